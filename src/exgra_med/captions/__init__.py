"""Extended answers: a language model rewrites each answer, checks tell how well it did."""

"""Extended answers: a language model rewrites each answer, and checks look for faults."""

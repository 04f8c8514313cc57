"""A run folder -> one self-contained page: what was trained, its scores, what they do not show."""

"""Checkpoints of other layouts: name tables and what has to be inferred."""

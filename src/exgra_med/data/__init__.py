"""From files on disk to checked records and token ids. Knows nothing of models."""

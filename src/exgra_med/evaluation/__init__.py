"""A model's answers to numbers one can trust: prediction, scorers, statistics, reports."""

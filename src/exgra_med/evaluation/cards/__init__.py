"""Model card and data card: what travels with a model or a data set, made from their folders."""

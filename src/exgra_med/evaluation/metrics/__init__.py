"""Scorers as pure functions of texts: `strict`, `legacy`, `legacy_pathvqa`, and BLEU."""

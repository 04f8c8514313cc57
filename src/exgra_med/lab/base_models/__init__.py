"""Base models made from nothing: an image tower and a language model, for studies."""

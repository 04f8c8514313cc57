"""A page to look at models and runs: chat with an image, matched graphs, scores, wrong answers."""

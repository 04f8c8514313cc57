"""ExGra-Med Open: medical vision-language models trained with multi-graph alignment.

Research use only. Nothing this package prints is clinical advice.
"""

__version__ = "0.1.0"

"""Multi-graph alignment: the invention. Imports torch, numpy, numba; nothing of ours."""

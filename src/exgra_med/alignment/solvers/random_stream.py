"""Random numbers for compiled loops: one 64-bit state, a few shifts, no shared generator."""

import numpy as np

from exgra_med.alignment.solvers.compiled import compiled

TABLE_BITS = 12
EXPONENTIAL = -np.log((np.arange(1 << TABLE_BITS) + 0.5) / (1 << TABLE_BITS))
"""Quantiles of the exponential distribution: accept a rise of d at temperature T if d < T * x."""


@compiled
def seeded(seed):
    """Spread a seed over 64 bits (splitmix64); never zero."""
    z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return z | np.uint64(1)


@compiled
def advance(state):
    """Next state of Marsaglia's xorshift64."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state

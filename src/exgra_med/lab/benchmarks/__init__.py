"""Ours against another way in one run, as ratios: matching solvers, and a training step."""

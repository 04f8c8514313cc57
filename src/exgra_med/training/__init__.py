"""Learning: stages, the loop on accelerate, checkpoints that resume bit for bit."""

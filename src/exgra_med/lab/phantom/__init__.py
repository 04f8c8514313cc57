"""The phantom world: radiology-like pictures drawn from seeded scenes, and questions about them."""

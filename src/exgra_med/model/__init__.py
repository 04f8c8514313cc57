"""Pixels and tokens to logits and answers: a LLaVA subclass, its processor, its checkpoints."""

"""Pixels and tokens to logits: the native LLaVA subclass, its processor, checkpoints."""

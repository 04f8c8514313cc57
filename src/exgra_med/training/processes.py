"""The processes of one launch (`accelerate launch`, `torchrun`), with or without an accelerator."""

import torch
from accelerate import PartialState


def on_cpu() -> bool:
    """Whether training runs on processors only; accelerate has to be told to use gloo then."""
    return not torch.accelerator.is_available()


def process_state() -> PartialState:
    """This process among the others."""
    return PartialState(cpu=on_cpu())

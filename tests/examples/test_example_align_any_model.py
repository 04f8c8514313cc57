"""The plain loop runs, and both losses fall; the TRL sketch fits a trainer of TRL's shape."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import torch

FOLDER = Path(__file__).parents[2] / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_losses_fall() -> None:
    losses = torch.tensor(load("align_any_model").main(steps=25))
    first, last = losses[:5].mean(0), losses[-5:].mean(0)
    assert (last < 0.9 * first).all()


def test_the_sketch_adds_its_term_to_a_trainer_of_this_shape() -> None:
    plain, sketch = load("align_any_model"), load("align_trl")
    logged = []

    class Trainer:
        def __init__(self, model) -> None:
            self.model = model
            self.args = SimpleNamespace(gradient_accumulation_steps=2)
            self.accelerator = SimpleNamespace(unwrap_model=lambda model: model)
            self.log = logged.append

        def compute_loss(self, model, inputs, **kwargs):
            return model(**inputs).loss

    trainer = sketch.aligned_trainer(Trainer, weight=0.5, dropout=0.0)(plain.tiny_model())
    batch = plain.tiny_batch()
    extra = {key: batch[key] for key in ("answer", "extended", "images_per_sample")}
    inputs = batch["conversation"] | batch["vision"]
    with torch.no_grad():
        lm = trainer.model(**inputs).loss
    total = trainer.compute_loss(trainer.model, inputs | extra)
    assert torch.allclose(total - lm, torch.tensor(0.25 * logged[0]["alignment_loss"]), atol=1e-5)
    total.backward()
    layers = trainer.model.alignment_adapter.align.message_passing
    assert layers.conv1.lin_rel.weight.grad.abs().max() > 0

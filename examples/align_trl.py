"""Multi-graph alignment in TRL's supervised fine-tuning trainer. A sketch: not run by our tests.

It needs `pip install trl` and a collator that puts `answer`, `extended` (each with `input_ids` and
`attention_mask`) and `images_per_sample` beside what the processor makes. Three facts to respect:

* TRL refuses packing for vision data, and so must you: graphs need one row per sample;
* with gradient accumulation, divide the alignment loss yourself if the trainer does not: it is a
  value of each micro batch, not a sum over tokens (see docs/explanation/alignment.md);
* the adapter's graph layers must be in the optimizer: attach it to the model before training.
"""

from typing import Any

from exgra_med.alignment.adapter import AlignmentAdapter

ALIGNMENT_KEYS = ("answer", "extended", "images_per_sample")
VISION_KEYS = ("pixel_values", "image_grid_thw", "image_sizes")


def aligned_trainer(base: type, weight: float = 1.0, **settings: Any) -> type:
    """A subclass of `trl.SFTTrainer` whose loss has the alignment term.

    Args:
        base: `trl.SFTTrainer`.
        weight: factor alpha of the alignment loss.
        settings: of `AlignmentAdapter`.
    """

    class AlignedTrainer(base):
        def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
            model.alignment_adapter = AlignmentAdapter(model, **settings)
            super().__init__(model, *args, **kwargs)

        def compute_loss(self, model: Any, inputs: dict[str, Any], **kwargs: Any) -> Any:
            extra = {key: inputs.pop(key) for key in ALIGNMENT_KEYS}
            vision = {key: inputs[key] for key in VISION_KEYS if key in inputs}
            inner = self.accelerator.unwrap_model(model)
            adapter = inner.alignment_adapter
            with adapter.reuse_image_features(inner):
                loss = super().compute_loss(model, inputs, **kwargs)
            aligned = adapter(
                inner, vision, extra["images_per_sample"], extra["answer"], extra["extended"]
            )
            self.log({"alignment_loss": aligned.loss.item()})
            return loss + weight * aligned.loss / self.args.gradient_accumulation_steps

    return AlignedTrainer


if __name__ == "__main__":
    from trl import SFTTrainer

    print(aligned_trainer(SFTTrainer))

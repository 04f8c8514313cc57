"""Multi-graph alignment in `transformers.Trainer`, or in TRL's supervised fine-tuning trainer.

    from transformers import Trainer                       # or: from trl import SFTTrainer
    Aligned = aligned_trainer(Trainer, neighbours=3)
    trainer = Aligned(model, args, train_dataset=rows, data_collator=collate)
    trainer.train()
    trainer.save_without_alignment("aligned")

Copy this file beside your script. Our tests run it with `Trainer`; with TRL 1.16 it was run by
hand. The collator puts `answer` and `extended` (each with `input_ids` and `attention_mask`) beside
what the processor makes; `docs/how-to/align-any-model.md` has one, and the settings that let these
columns through.
"""

from typing import Any

import torch

from exgra_med.alignment.adapter import AlignmentAdapter

TEXTS = ("answer", "extended")


def aligned_trainer(base: type, weight: float = 1.0, **settings: Any) -> type:
    """A subclass of `Trainer` or `SFTTrainer` whose training loss has the alignment term.

    Args:
        base: the class.
        weight: factor alpha of the alignment loss.
        settings: of `AlignmentAdapter`.
    """

    class AlignedTrainer(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # Only now: a trainer that attaches LoRA freezes all that the model has before. A part
            # of the model, the adapter is optimized, distributed and saved in checkpoints with it.
            adapter = AlignmentAdapter(self.model, **settings)
            self.model.alignment_adapter = adapter.to(self.args.device)
            self.alignment_losses: list[torch.Tensor] = []

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            texts = {name: inputs[name] for name in TEXTS if name in inputs}
            plain = {name: value for name, value in inputs.items() if name not in texts}
            options = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch}
            if not model.training:
                return super().compute_loss(model, plain, **options)
            adapter = self.accelerator.unwrap_model(model).alignment_adapter
            with adapter.watch(model):
                result = super().compute_loss(model, plain, **options)
            with self.accelerator.autocast():  # as the model's own pass has it
                output = adapter(**texts)
            if output.num_nodes:  # no image, no graph
                self.alignment_losses.append(output.loss.detach())
            # The trainer divides by the accumulation steps, unless the model divided by the tokens
            # of all micro batches; this term belongs to one micro batch either way.
            divided = num_items_in_batch is not None and self.model_accepts_loss_kwargs
            steps = self.current_gradient_accumulation_steps if divided else 1
            term = weight * output.loss / steps
            return (result[0] + term, *result[1:]) if return_outputs else result + term

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            """Beside the training loss, the mean of the alignment loss since the last time."""
            if "loss" in logs and self.alignment_losses:
                logs["alignment_loss"] = torch.stack(self.alignment_losses).mean().item()
                self.alignment_losses.clear()
            super().log(logs, *args, **kwargs)

        def save_without_alignment(self, folder: str) -> None:
            """Save the model as `from_pretrained` expects it.

            Checkpoints keep the adapter, so that a run resumes with it.
            """
            inner = self.accelerator.unwrap_model(self.model)
            adapter = inner.alignment_adapter
            del inner.alignment_adapter
            try:
                self.save_model(folder)
            finally:
                inner.alignment_adapter = adapter

    return AlignedTrainer


if __name__ == "__main__":
    from transformers import Trainer

    print(aligned_trainer(Trainer))

"""Multi-graph alignment in a plain training loop, around any image-text-to-text model.

python examples/align_any_model.py            # a tiny random LLaVA, nothing is downloaded

With a model of your own: `model = AutoModelForImageTextToText.from_pretrained(...)`, and batches
from its processor, as `docs/how-to/align-any-model.md` has them. Only the four marked lines are
about alignment.
"""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from exgra_med.alignment.adapter import AlignmentAdapter

IMAGE = 98


def tiny_model() -> LlavaForConditionalGeneration:
    """A LLaVA of a few thousand weights."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**sizes, num_hidden_layers=2, image_size=28, patch_size=14)
    text = LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=99, pad_token_id=0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    return LlavaForConditionalGeneration(config)


def tiny_batch(samples: int = 6) -> dict:
    """Images, conversations about them, and the answers alone: short and extended."""
    answer = torch.randint(3, 90, (samples, 4))
    place = torch.full((samples, 4), IMAGE)
    extended = torch.cat([answer, torch.randint(3, 90, (samples, 4))], 1)
    return {
        "conversation": {
            "input_ids": torch.cat([place, answer], 1),
            "labels": torch.cat([torch.full_like(place, -100), answer], 1),
            "pixel_values": torch.randn(samples, 3, 28, 28),
        },
        "texts": {
            "answer": {"input_ids": answer, "attention_mask": torch.ones_like(answer)},
            "extended": {"input_ids": extended, "attention_mask": torch.ones_like(extended)},
        },
    }


def main(steps: int = 20) -> list[tuple[float, float]]:
    """Train on one batch; returns language-model and alignment loss of every step."""
    torch.manual_seed(0)
    model, batch, losses = tiny_model(), tiny_batch(), []
    adapter = AlignmentAdapter(model, neighbours=3, objective="barycenter", solver="anneal")  # 1
    parameters = [*model.parameters(), *adapter.parameters()]  # 2
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    for step in range(steps):
        with adapter.watch(model):  # 3
            lm_loss = model(**batch["conversation"]).loss
        aligned = adapter(**batch["texts"], generator=step)  # 4
        optimizer.zero_grad()
        (lm_loss + aligned.loss).backward()
        optimizer.step()
        losses.append((lm_loss.item(), aligned.loss.item()))
    return losses


if __name__ == "__main__":
    for number, (lm, alignment) in enumerate(main()):
        print(f"step {number:3d}  lm {lm:.3f}  alignment {alignment:.3f}")

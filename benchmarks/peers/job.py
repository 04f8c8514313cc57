"""A job that every way is given: its records, its model with what is trained of it, and one clock.

A job is a JSON file: `start` (a checkpoint that transformers loads), `train` and `test` (lists of
records: picture, question as it is shown, answer), `batch_size`, `warm_up`, `steps`, `half`
(bfloat16 autocast), `learning_rate`, `rank` of the adapters, `new_tokens`.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LANGUAGE_LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


class Clock:
    """Processor time at every step; a busy machine changes it less than the time of day."""

    def __init__(self) -> None:
        self.times = [time.process_time()]

    def tick(self) -> None:
        """A step has ended."""
        self.times.append(time.process_time())

    def seconds(self, warm_up: int) -> list[float]:
        """Seconds of every step after the first ones."""
        steps = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        return [round(each, 4) for each in steps[warm_up:]]


def lora(job: dict[str, Any]) -> Any:
    """Adapters in every linear layer of the language model, as the small recipes have them."""
    from peft import LoraConfig

    rank = job["rank"]
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LANGUAGE_LAYERS)


def connector_of(model: Any) -> list[Any]:
    """The weights between vision tower and language model."""
    return [w for name, w in model.named_parameters() if "multi_modal_projector" in name]


def load(job: dict[str, Any], adapters: bool = True) -> tuple[Any, Any]:
    """Model and processor; the tower is frozen, connector and adapters are trained."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_pretrained(job["start"], dtype=torch.float32)
    processor: Any = AutoProcessor.from_pretrained(job["start"])
    if adapters:
        from peft import get_peft_model

        model = get_peft_model(model, lora(job))
        for weight in connector_of(model):
            weight.requires_grad_(True)
    return model, processor


def asked(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A question as a chat message with its picture."""
    content = [{"type": "image"}, {"type": "text", "text": record["question"]}]
    return [{"role": "user", "content": content}]


def opened(record: dict[str, Any]) -> Any:
    """Its picture."""
    from PIL import Image

    return Image.open(record["picture"]).convert("RGB")


def collate(processor: Any, records: list[dict[str, Any]], **padding: Any) -> dict[str, Any]:
    """What the processor makes of records, and labels of their answers."""
    prompts = [processor.apply_chat_template(asked(r), add_generation_prompt=True) for r in records]
    end = processor.tokenizer.eos_token
    texts = [f"{prompt} {r['answer']}{end}" for prompt, r in zip(prompts, records, strict=True)]
    images = [[opened(r)] for r in records]
    given = {"padding": True, "padding_side": "right", "return_tensors": "pt"} | padding
    inputs = processor(text=texts, images=images, **given)
    lengths = processor(text=prompts, images=images, padding=True, padding_side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    begins = inputs["attention_mask"].long().argmax(1)  # padding may stand on the left
    for row, mask in enumerate(lengths["attention_mask"]):
        labels[row, begins[row] : begins[row] + sum(mask)] = -100
    return dict(inputs) | {"labels": labels}


def peak_memory() -> int:
    """Bytes that this process held at most; `getrusage` also counts what its parent held before."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) * 1024


def main(ways: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Run the way that is named on the command line, and print what it took as JSON."""
    way, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    found = ways[way](job)
    print(json.dumps({"peak_gigabytes": round(peak_memory() / 1e9, 2)} | found))

"""The small recipes against a plain loop of transformers, on the same work in one run.

    PYTHONPATH=src python benchmarks/small_road.py --data SLAKE --parts PARTS --out RESULT.json

Training: steps of `small/slake` (LoRA, or all weights with `--full`) against what a user writes
by hand with transformers and peft: a batch of the processor, padded; pictures decoded and the
tower run in every step; logits of all positions; autocast; AdamW. Evaluation: `answer_all` in
batches against `generate`, one question after another. Each way runs in a process of its own,
because peak memory is that of a process; the ways take turns. Seconds are processor time, which a
busy machine changes less.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from exgra_med.data.chat_template import options_suffix
from exgra_med.data.records import Record, open_prepared
from exgra_med.evaluation.engines import CheckpointEngine, EngineOptions, answer_all
from exgra_med.model.bundle import load_bundle
from exgra_med.recipe.load import load_recipe
from exgra_med.training.stages import begin_run, starting_checkpoint, train_run

BATCH, WARM_UP, STEPS, QUESTIONS, NEW_TOKENS = 16, 2, 8, 48, 16


class Clock:
    """A reporter that notes the processor time at every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def start(self, *told: Any, **more: Any) -> None:
        """See `Reporter`."""
        self.times = []

    def advance(self, *told: Any, **more: Any) -> None:
        """See `Reporter`."""
        self.times.append(time.process_time())

    def finish(self) -> None:
        """See `Reporter`."""


def recipe(data: Path, start: str, full: bool, max_steps: int) -> Any:
    """`small/slake` for a few steps."""
    changes = [f"data.folder={data}", f"model.start={start}", f"stages.vqa.max_steps={max_steps}"]
    changes += ["data.held_out_split=null", "stages.vqa.save_every_steps=null"]
    if full:
        changes += ["stages.vqa.lora=null", "stages.vqa.learning_rate=1e-4"]
    return load_recipe("small/slake", changes).recipe


def train_ours(data: Path, start: Path, full: bool, scratch: Path) -> dict[str, Any]:
    """Seconds a step of `exgra-med train`."""
    clock = Clock()
    run = begin_run(scratch / "run", recipe(data, str(start), full, WARM_UP + STEPS), False)
    train_run(run, clock)
    steps = [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)]
    return {"seconds": steps[WARM_UP - 1 :], "precision": run.recipe.stages["vqa"].precision}


def train_plain(data: Path, start: Path, full: bool, scratch: Path) -> dict[str, Any]:
    """Seconds a step of a loop by hand."""
    prepared = open_prepared(data)
    records = list(prepared.records("train"))[:: len(list(prepared.records("train"))) // 400]
    model: Any = AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32)
    processor: Any = AutoProcessor.from_pretrained(start, backend="pil")
    model.model.vision_tower.requires_grad_(False)
    if not full:
        from peft import LoraConfig, get_peft_model

        linear = r".*language_model.*(q|k|v|o|gate|up|down)_proj"
        config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=linear)
        connector = list(model.model.multi_modal_projector.parameters())
        model = get_peft_model(model, config)
        for weight in connector:
            weight.requires_grad_(True)
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0)
    model.train()
    seconds = []
    for step in range(WARM_UP + STEPS):
        began = time.process_time()
        batch = records[step * BATCH : (step + 1) * BATCH]
        inputs = plain_batch(processor, batch, prepared.path)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - began)
    return {"seconds": seconds[WARM_UP:], "precision": "bfloat16"}


def messages(record: Record) -> list[dict[str, Any]]:
    """A record as a chat message with its picture; options are named as `evaluate` names them."""
    options = record.meta.get("options")
    text = record.question + (options_suffix(options) if options else "")
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def plain_batch(processor: Any, batch: list[Record], folder: Path) -> Any:
    """What the processor makes of records, and labels of their answers."""
    asked = [processor.apply_chat_template(messages(r), add_generation_prompt=True) for r in batch]
    end = processor.tokenizer.eos_token
    texts = [f"{prompt} {r.answer}{end}" for prompt, r in zip(asked, batch, strict=True)]
    images = [[Image.open(folder / "images" / r.images[0]).convert("RGB")] for r in batch]
    inputs = processor(
        text=texts, images=images, padding=True, padding_side="right", return_tensors="pt"
    )
    prompts = processor(text=asked, images=images, padding=True, padding_side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for row, mask in enumerate(prompts["attention_mask"]):
        labels[row, : sum(mask)] = -100
    return inputs | {"labels": labels}


def evaluate_ours(data: Path, start: Path, full: bool, scratch: Path) -> dict[str, Any]:
    """Seconds for all questions, through the road that `evaluate vqa` takes."""
    prepared = open_prepared(data)
    records = list(prepared.records("test"))[:QUESTIONS]
    engine = CheckpointEngine(
        EngineOptions(model=str(start), batch_size=32, max_new_tokens=NEW_TOKENS)
    )
    _ = engine.bundle
    began = time.process_time()
    answer_all(engine, records, prepared.image_folder(10**8), scratch / "answers.jsonl", {})
    spent = time.process_time() - began
    lines = (scratch / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    found = {each["id"]: each["text"] for each in map(json.loads, lines) if "id" in each}
    return {"seconds": [spent], "answers": [found[r.id] for r in records]}


def evaluate_plain(data: Path, start: Path, full: bool, scratch: Path) -> dict[str, Any]:
    """The same, one question after another."""
    prepared = open_prepared(data)
    records = list(prepared.records("test"))[:QUESTIONS]
    bundle = load_bundle(start)
    processor, model = bundle.processor, bundle.model
    began, answers = time.process_time(), []
    for record in records:
        asked = processor.apply_chat_template(messages(record), add_generation_prompt=True)
        image = Image.open(prepared.path / "images" / record.images[0]).convert("RGB")
        inputs = processor(text=[asked], images=[[image]], return_tensors="pt")
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return {"seconds": [time.process_time() - began], "answers": answers}


WAYS = {
    "training": {"ours": train_ours, "plain": train_plain},
    "evaluation": {"ours": evaluate_ours, "plain": evaluate_plain},
}


def run_way(what: str, way: str, data: Path, start: Path, full: bool) -> dict[str, Any]:
    """One way in this process, with its peak memory."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        found = WAYS[what][way](data, start, full, Path(scratch))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found | {"peak_gigabytes": round(peak / 1e9, 2)}


def compare(data: Path, start: Path, full: bool, rounds: int) -> dict[str, Any]:
    """All ways in turn, each in a process of its own."""
    result: dict[str, Any] = {}
    for what, ways in WAYS.items():
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                command = [sys.executable, __file__, "--way", what, way, "--data", str(data)]
                command += ["--start", str(start)] + ["--full"] * full
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
        medians = {
            way: statistics.median(second for each in each_round for second in each["seconds"])
            for way, each_round in found.items()
        }
        count = BATCH if what == "training" else QUESTIONS
        result[what] = {
            way: {
                "per_second": round(count / medians[way], 2),
                "peak_gigabytes": max(each["peak_gigabytes"] for each in each_round),
            }
            for way, each_round in found.items()
        }
        result[what]["speedup"] = round(medians["plain"] / medians["ours"], 2)
        if what == "evaluation":
            pairs = zip(found["ours"][0]["answers"], found["plain"][0]["answers"], strict=True)
            result[what]["equal_answers"] = sum(a == b for a, b in pairs)
            result[what]["questions"] = QUESTIONS
    return result


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", type=Path, help="folder of `exgra-med checkpoint parts`")
    parser.add_argument("--start", type=Path, help="a checkpoint, in the place of --parts")
    parser.add_argument("--full", action="store_true", help="train all weights, not adapters")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(run_way(*asked.way, asked.data, asked.start, asked.full)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        start = asked.start
        if start is None:
            own = "{language: P/smollm2-135m-instruct, vision: P/dinov2-small}"
            parts = own.replace("P/", f"{asked.parts}/")
            changes = [f"data.folder={asked.data}", "model.start=null", f"model.parts={parts}"]
            changes += ["model.parts.connector=pixel-shuffle", "model.parts.chat_template=plain"]
            made = begin_run(
                Path(scratch) / "parts", load_recipe("small/slake", changes).recipe, False
            )
            start = starting_checkpoint(made)
        result = compare(asked.data, start, asked.full, asked.rounds)
    result["metadata"] = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trained": "all weights" if asked.full else "connector and LoRA",
        "records_a_step": BATCH,
        "steps": STEPS,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

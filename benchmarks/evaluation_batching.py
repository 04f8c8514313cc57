"""Answers one by one against answers in batches, both in this run, on 200 questions.

    PYTHONPATH=src python benchmarks/evaluation_batching.py --out RESULT.json

Both ways go through `answer_all`, as `evaluate vqa` does: questions of 1 to 200 tokens, two
thirds with an image, answers on disk after each batch. A random tiny model writes every answer to
its end or to the limit. Answers must be equal token for token. Rounds of the two ways alternate; on
a CPU that others use at the same time, the ratio of processor times says more than that of seconds.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.evaluation.engines import CheckpointEngine, EngineOptions, answer_all
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle, save_bundle
from exgra_med.recipe.load import load_recipe

WORDS = "is there a mass in the left upper lobe of this lung or liver on axial slice".split()
NUM_QUESTIONS = 200
NUM_IMAGES = 20


def make_records(bundle: Bundle) -> list[Record]:
    """Question number n has n tokens, or one more where a word is two."""
    records = []
    for number in range(1, NUM_QUESTIONS + 1):
        text = ""
        for index in range(number):
            longer = f"{text} {WORDS[(number + index) % len(WORDS)]}".strip()
            if text and len(bundle.tokenizer.encode(longer, add_special_tokens=False)) > number:
                break
            text = longer
        value = {
            "id": str(number),
            "turns": [{"role": "user", "text": text}, {"role": "assistant", "text": "yes"}],
        }
        if number % 3:
            value["image"] = f"{number % NUM_IMAGES}.png"
        records.append(Record.model_validate(value))
    return records


def timed(
    engine: CheckpointEngine, records: list[Record], images: ImageFolder, out: Path
) -> dict[str, float]:
    """Seconds of one way, from open questions to answers on disk."""
    start, processor_start = time.perf_counter(), time.process_time()
    answer_all(engine, records, images, out, {})
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,
    }


def main() -> None:
    """Measure both ways and print, and where asked write, the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="debug/tiny")
    parser.add_argument("--batch-size", type=int, help="the recipe's else")
    parser.add_argument("--max-new-tokens", type=int, help="the recipe's else")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe).recipe
    settings = recipe.evaluation
    batch_size = arguments.batch_size or settings.batch_size
    max_new_tokens = arguments.max_new_tokens or settings.max_new_tokens
    bundle = build_model(recipe.model.architecture, [" ".join(WORDS), "yes no normal ###"], seed=1)
    records = make_records(bundle)
    lengths = [
        len(bundle.tokenizer.encode(record.question, add_special_tokens=False))
        for record in records
    ]
    noise = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(NUM_IMAGES):
            pixels = noise.integers(0, 255, (240, 320, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / f"{index}.png")
        images = ImageFolder(folder, 1_000_000)
        save_bundle(bundle, folder / "model")
        engine = CheckpointEngine(
            EngineOptions(
                model=str(folder / "model"),
                template=recipe.text.template,
                max_new_tokens=max_new_tokens,
            )
        )
        engine.answer(records[:8], images)
        found: dict[str, list[dict[str, float]]] = {"one_by_one": [], "batched": []}
        for number in range(arguments.rounds):
            texts = []
            for way, size in (("one_by_one", 1), ("batched", batch_size)):
                out = folder / f"{way}-{number}.jsonl"
                engine.batch_size = size
                found[way].append(timed(engine, records, images, out))
                lines = map(json.loads, out.read_text(encoding="utf-8").splitlines())
                texts.append({each["id"]: (each["text"], each["num_tokens"]) for each in lines})
            equal = texts[0] == texts[1]
    figures = {
        way: {key: round(statistics.median(each[key] for each in rounds), 2) for key in rounds[0]}
        for way, rounds in found.items()
    }
    ratios = {
        key: [
            round(alone[key] / together[key], 2)
            for alone, together in zip(found["one_by_one"], found["batched"], strict=True)
        ]
        for key in ("seconds", "processor_seconds")
    }
    report = {
        "benchmark": "evaluation_batching",
        "median": figures,
        "ratio_by_round": ratios,
        "ratio": {key: statistics.median(values) for key, values in ratios.items()},
        "answers_equal": equal,
        "questions": len(records),
        "question_tokens": [min(lengths), max(lengths)],
        "mean_new_tokens": round(statistics.mean(n for _, n in texts[0].values()), 1),
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
        "parameters": sum(weight.numel() for weight in bundle.model.parameters()),
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Tokens per second: a batch, one by one, and the original's way, in one run.

    PYTHONPATH=src python benchmarks/generation.py --size tiny --size 100m --out RESULT.json
    PYTHONPATH=src python benchmarks/generation.py --size 7b --device cuda --dtype bfloat16 --out X

`original`: one question after another through transformers' `generate`, with a stopping criterion
that decodes everything new at each step; `single`: `model/generate.py`, one question after another;
`batch`: the same, all at once. Random weights, the same prompts, images and number of new tokens;
rounds of the three are interleaved. Median and quartiles; the share of equal answers is reported,
too. On a CPU that others use at the same time, tokens for each second of processor time say more
than tokens for each second.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import StoppingCriteria, StoppingCriteriaList

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import generate
from exgra_med.model.native import pixel_values
from exgra_med.recipe.schema import (
    Architecture,
    LanguageArchitecture,
    TokenizerArchitecture,
    VisionArchitecture,
)

SMALL_VISION = VisionArchitecture(
    hidden_size=64, intermediate_size=128, num_heads=4, image_size=112, patch_size=14
)
ARCHITECTURES = {
    "tiny": Architecture(
        vision=SMALL_VISION,
        language=LanguageArchitecture(
            hidden_size=128, intermediate_size=344, num_layers=4, num_heads=4
        ),
        tokenizer=TokenizerArchitecture(vocabulary_size=2000),
        connector="dci",
    ),
    "100m": Architecture(
        vision=SMALL_VISION,
        language=LanguageArchitecture(
            hidden_size=768, intermediate_size=2560, num_layers=12, num_heads=12
        ),
        tokenizer=TokenizerArchitecture(vocabulary_size=2000),
        connector="dci",
    ),
    "7b": Architecture(connector="dci"),
}
TEXTS = [
    f"Is there a lesion of {i} mm in lobe {i % 7}? The image shows {i % 5}." for i in range(900)
]


class Keyword(StoppingCriteria):
    """Ends when the decoded new text holds `###`, as the original's criterion does."""

    def __init__(self, bundle: Bundle, length: int) -> None:
        self.bundle, self.length = bundle, length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> bool:
        text = self.bundle.tokenizer.decode(input_ids[0, self.length :], skip_special_tokens=True)
        return "###" in text


def original_way(
    bundle: Bundle, prompts: list[list[int]], images: list[list[Image.Image]], length: int
) -> list[list[int]]:
    """Token ids of each answer, one question after another."""
    answers = []
    device = bundle.model.device
    for prompt, own in zip(prompts, images, strict=True):
        output = bundle.model.generate(
            input_ids=torch.tensor([prompt], device=device),
            pixel_values=pixel_values(bundle, own).to(device, bundle.model.dtype),
            max_new_tokens=length,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([Keyword(bundle, len(prompt))]),
        )
        answers.append(output[0, len(prompt) :].tolist())
    return answers


def measure(bundle: Bundle, questions: int, length: int, rounds: int) -> dict:
    """Way -> tokens per second, and how many answers equal those of `single`."""
    noise = np.random.default_rng(0)
    images = [
        [Image.fromarray(noise.integers(0, 255, (90, 120, 3), dtype="uint8"))]
        for _ in range(questions)
    ]
    prompts = [
        encode_prompt(
            bundle.tokenizer,
            [Turn(role="user", text=f"Is there a lesion of {i} mm{' in the lobe' * (i % 4)}?")],
            "exgra",
            bundle.num_image_tokens,
            1,
        )
        for i in range(questions)
    ]
    ways: dict[str, Callable[[], list[list[int]]]] = {
        "original": lambda: original_way(bundle, prompts, images, length),
        "single": lambda: [
            generate(bundle, [prompt], [own], length)[0].token_ids
            for prompt, own in zip(prompts, images, strict=True)
        ],
        "batch": lambda: [each.token_ids for each in generate(bundle, prompts, images, length)],
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    processor_rates: dict[str, list[float]] = {way: [] for way in ways}
    answers = {}
    for number in range(rounds + 1):
        for way, answer in ways.items():
            synchronize(bundle)
            start, processor_start = time.perf_counter(), time.process_time()
            answers[way] = answer()
            synchronize(bundle)
            # The first round warms up and is not counted.
            if number:
                tokens = sum(map(len, answers[way]))
                rates[way].append(tokens / (time.perf_counter() - start))
                processor_rates[way].append(tokens / (time.process_time() - processor_start))
    equal = {
        way: sum(a == b for a, b in zip(found, answers["single"], strict=True)) / questions
        for way, found in answers.items()
    }
    return {
        "tokens_per_second": {way: summary(values) for way, values in rates.items()},
        "tokens_per_processor_second": {
            way: summary(values) for way, values in processor_rates.items()
        },
        "share_of_answers_equal_to_single": equal,
        "questions": questions,
        "new_tokens": length,
        "prompt_tokens": round(statistics.mean(map(len, prompts))),
        "parameters": sum(weight.numel() for weight in bundle.model.parameters()),
    }


def synchronize(bundle: Bundle) -> None:
    """Wait for the accelerator."""
    if bundle.model.device.type == "cuda":
        torch.cuda.synchronize()


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles, rounded to a tenth."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 1), "q1": round(low, 1), "q3": round(high, 1)}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", action="append", choices=list(ARCHITECTURES), required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = {}
    for size in arguments.size:
        bundle = build_model(ARCHITECTURES[size], TEXTS, seed=0)
        bundle.model.to(arguments.device, getattr(torch, arguments.dtype))
        results[size] = measure(bundle, arguments.questions, arguments.new_tokens, arguments.rounds)
        print(size, json.dumps(results[size]["tokens_per_second"]))
    on_gpu = arguments.device.startswith("cuda")
    report = {
        "benchmark": "generation",
        "unit": "new tokens per second",
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "results": results,
        "machine": {
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

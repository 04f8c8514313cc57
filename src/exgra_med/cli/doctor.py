"""`exgra-med doctor`: what this installation can do, and what it lacks."""

import shutil
from importlib import import_module, util
from pathlib import Path
from typing import Any

import typer

from exgra_med.cli.options import Json
from exgra_med.terminal import next_step, show

EXTRAS = {
    "report": ("matplotlib", "jinja2"),
    "llm": ("openai",),
    "vllm": ("vllm",),
    "vlm": ("torchvision", "num2words"),
    "lora": ("peft",),
    "optim": ("torchao",),
    "web": ("gradio", "matplotlib", "jinja2"),
    "serve": ("uvicorn",),
    "reports": ("radeval",),
    "track": ("trackio",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "parquet": ("pyarrow",),
    "excel": ("openpyxl",),
    "dicom": ("pydicom", "nibabel", "gdcm", "pylibjpeg", "openjpeg"),
}
"""Extra -> modules that come with it."""


def doctor(as_json: Json = False) -> None:
    """Say which versions, devices, extras and how much disk there are.

    The exit code is 1 where something the core needs is missing or does not work.
    """
    findings = examine()
    lines = [
        f"{name.replace('_', ' '):<22} {_plain(value)}"
        for name, value in findings.items()
        if name != "problems"
    ]
    well = [] if findings["problems"] else [next_step("demo")]
    show(findings, as_json, lines + well)
    if findings["problems"]:
        for problem in findings["problems"]:
            typer.secho(f"Problem: {problem}", fg="red", err=True)
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Gather the findings; `problems` lists what keeps the core from working."""
    import numpy as np
    import torch

    from exgra_med.alignment import solve_matching
    from exgra_med.files import PROBES, cache_folder
    from exgra_med.recipe.run_folder import describe_software
    from exgra_med.training.precision import bfloat16_speedup, faster_precision

    # One small matching problem whose answer is known.
    unary = (1.0 - 2.0 * np.eye(3))[None]
    result = solve_matching(unary, np.zeros((1, 1, 1)), np.array([[[0], [1]]]))
    solves = list(np.asarray(result.assignment)[0]) == [0, 1, 2]
    wrong = "the matching solver gave a wrong answer to a problem with a known one"
    problems = [] if solves else [wrong]
    problems += filter(None, [torchvision_problem()])
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        **describe_software(),
        "accelerators": devices,
        "bfloat16_speedup": bfloat16_speedup(),
        "precision_auto": faster_precision(),
        "free_disk_gigabytes": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "extras": {
            name: all(util.find_spec(module) is not None for module in modules)
            for name, modules in EXTRAS.items()
        },
        "measured_models": len(list((cache_folder() / PROBES).glob("*.json"))),
        "matching_solver": "works" if solves else "wrong",
        "problems": problems,
    }


def torchvision_problem() -> str:
    """Why the torchvision that is installed cannot be imported; empty where nothing is wrong.

    transformers imports one that is there, so nothing works beside one of another torch.
    """
    if util.find_spec("torchvision") is None:
        return ""
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        return (
            f"torchvision does not work with the torch beside it ({reason}); install the two "
            "together, or remove torchvision"
        )
    return ""


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        words = {True: "yes", False: "no"}
        return ", ".join(f"{key} {words.get(each, each)}" for key, each in value.items())
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)

"""The public API as text, one name a line; `tests/architecture/public_api.txt` freezes it.

    PYTHONPATH=src python tools/public_api.py --write

Frozen are the Python names of `PUBLIC` with their signatures, the commands with their arguments and
options, and the fields of a recipe with their defaults. A line that disappears or changes breaks
somebody: say so in the changelog, then write the file anew.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FROZEN = ROOT / "tests" / "architecture" / "public_api.txt"
sys.path[:0] = [str(ROOT / "docs" / "_ext")]

PUBLIC = {
    "exgra_med": ("load",),
    "exgra_med.model.assistant": ("Assistant",),
    "exgra_med.alignment": (
        "AlignmentOutput",
        "MatchingError",
        "MatchingResult",
        "MultiGraphAlignment",
        "solve_matching",
    ),
    "exgra_med.alignment.adapter": ("AlignmentAdapter",),
    "exgra_med.alignment.diagnostics": ("view_diagnostics",),
    "exgra_med.data.records": ("Prepared", "Record", "Turn", "open_prepared"),
    "exgra_med.recipe.load": ("LoadedRecipe", "load_recipe"),
    "exgra_med.recipe.run_folder": ("Run", "open_run"),
    "exgra_med.evaluation.score": ("score_files", "score_vqa"),
    "exgra_med.evaluation.answers": ("Prediction", "Question"),
    "exgra_med.evaluation.results": ("read_results",),
    "exgra_med.evaluation.compare": ("compare", "compare_stored"),
    "exgra_med.evaluation.statistics": (
        "cluster_bootstrap",
        "cluster_codes",
        "holm",
        "interval",
        "mcnemar",
        "paired_permutation",
        "smallest_difference",
        "wilson",
    ),
    "exgra_med.errors": (
        "ExgraMedError",
        "RecipeError",
        "DataError",
        "WriteError",
        "CheckpointError",
        "RunError",
        "ScoreError",
        "MissingExtraError",
        "ServiceError",
    ),
}
"""What the reference shows and what other people's code may rely on, by module."""


def public_api() -> str:
    """All frozen lines, in a fixed order."""
    return "\n".join([*_python(), *_commands(), *_recipe()]) + "\n"


def _python() -> Iterator[str]:
    for module, names in PUBLIC.items():
        for name in names:
            thing = getattr(importlib.import_module(module), name)
            yield f"python {module}.{name}{_signature(thing)}"
            if inspect.isclass(thing):
                yield from _members(f"{module}.{name}", thing)


def _members(at: str, thing: type) -> Iterator[str]:
    for name, member in sorted(vars(thing).items()):
        if name.startswith("_"):
            continue
        if inspect.isfunction(member):
            yield f"python {at}.{name}{_signature(member)}"
        elif isinstance(member, property):
            yield f"python {at}.{name}"


def _signature(thing: Any) -> str:
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return f" exit code {getattr(thing, 'exit_code', 1)}"
    parameters = inspect.signature(thing).parameters.values()
    # Types are left out: how they print differs between versions of Python and torch.
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    return str(inspect.Signature(plain))


def _commands() -> Iterator[str]:
    from command_page import commands

    for name, command in commands():
        yield f"command {name}"
        for each in command.params:
            what = "/".join([*each.opts, *each.secondary_opts])
            kind = "argument" if each.param_type_name == "argument" else "option"
            yield f"command {name} {kind} {what}{' needed' if each.required else ''}"


def _recipe() -> Iterator[str]:
    from recipe_page import sections

    for section in sections():
        for name, field in section.model_fields.items():
            default = "needed" if field.is_required() else repr(field.get_default())
            if hasattr(field.get_default(), "model_fields_set"):
                default = f"{type(field.get_default()).__name__}()"
            yield f"recipe {section.__name__}.{name} = {default}"


def main() -> None:
    """Print the lines, or write the file that freezes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {FROZEN.name}")
    if parser.parse_args().write:
        FROZEN.write_text(public_api(), encoding="utf-8")
    else:
        print(public_api(), end="")


if __name__ == "__main__":
    main()

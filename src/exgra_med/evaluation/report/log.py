"""`log.jsonl` of a run -> curves by stage."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.errors import RunError

MEASURES = ("language_loss", "alignment_loss", "matching_accuracy", "image_answer_accuracy")


@dataclass
class Curve:
    """Values of one measure over optimizer steps."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: float, value: Any) -> None:
        """Append a point; what is no finite number (a stage without that measure) is left out."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and value == value and abs(value) != float("inf"):
            self.steps.append(step)
            self.values.append(float(value))


@dataclass
class StageCurves:
    """Everything measured in one stage: in training, and on held-out records."""

    name: str
    train: dict[str, Curve] = field(default_factory=lambda: {name: Curve() for name in MEASURES})
    held_out: dict[str, Curve] = field(default_factory=lambda: {name: Curve() for name in MEASURES})
    last: dict[str, Any] = field(default_factory=dict)
    """The last training line, with learning rate and speed."""
    chance: float | None = None
    """Matching accuracy of a random matching of the held-out graphs."""

    def has(self, measure: str) -> bool:
        """Whether the stage measured this at all."""
        return bool(self.train[measure].values or self.held_out[measure].values)


def read_log(path: Path) -> list[StageCurves]:
    """Stages of a log in the order they were trained; empty where there is no log.

    A torn last line, as a killed run leaves it, is dropped. Steps that were run again after a
    resume replace the earlier ones.

    Raises:
        RunError: a line before the last one is not a JSON object.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    entries: dict[tuple[str, str, float], dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise RunError(f"{path}:{number}: not a JSON object.") from error
        if isinstance(entry, dict) and entry.get("kind") in ("train", "held_out"):
            key = (str(entry["kind"]), str(entry.get("stage")), float(entry.get("step", 0)))
            entries[key] = entry
    stages: dict[str, StageCurves] = {}
    for (kind, name, step), entry in sorted(entries.items(), key=lambda pair: pair[0][2]):
        stages.setdefault(name, StageCurves(name))
        curves = stages[name].train if kind == "train" else stages[name].held_out
        for measure in MEASURES:
            curves[measure].add(step, entry.get(measure))
        if isinstance(entry.get("chance"), float):
            stages[name].chance = entry["chance"]
        if kind == "train":
            if "language_loss" not in entry:
                curves["language_loss"].add(step, entry.get("loss"))
            stages[name].last = entry
    order = list(dict.fromkeys(name for _, name, _ in entries))
    return [stages[name] for name in order]

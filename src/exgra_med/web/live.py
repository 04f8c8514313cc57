"""A run while it is trained: its curves, its speed, and how long its stage still takes."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from exgra_med import files
from exgra_med.errors import ExgraMedError
from exgra_med.evaluation.report.page import CURVES
from exgra_med.evaluation.session import read_recipe
from exgra_med.recipe.run_folder import LOG
from exgra_med.terminal import spoken_time

Point = tuple[int, float]
_TRAIN, _HELD_OUT = "train", "held_out"
_MOST_POINTS = 300
_NEW_SECONDS = 10.0
"""A line that is not older was written by the training that goes on."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 400, 170, 44, 10, 24


def is_running(run: Path) -> bool:
    """Whether a process writes into a run folder: it trains or evaluates."""
    return files.is_being_written(run / files.LOCK)


@dataclass
class LiveStage:
    """What the log has of one stage."""

    name: str
    total_steps: int | None = None
    step: int = 0
    has_ended: bool = False
    tokens_per_second: float | None = None
    curves: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    """(`train` or `held_out`, measure) -> step -> value."""

    def points(self, kind: str, measure: str) -> list[Point]:
        """A curve in the order of its steps."""
        return sorted(self.curves.get((kind, measure), {}).items())


def read_stages(log: Path) -> list[LiveStage]:
    """The stages of a log that is still written, in the order of training.

    Steps that were run again after a resume replace the earlier ones. A last line that is only half
    there is left out.

    Raises:
        DamagedFileError: the log is not what was written.
    """
    from exgra_med.training.log import read_log

    stages: dict[str, LiveStage] = {}
    for event in read_log(log):
        stage = stages.setdefault(str(event.get("stage")), LiveStage(str(event.get("stage"))))
        kind, step = event.get("kind"), int(event["step"])
        if kind == "stage":
            total = event.get("total_steps")
            stage.total_steps = total if isinstance(total, int) else stage.total_steps
            stage.has_ended = event.get("event") == "end"
        if kind not in (_TRAIN, _HELD_OUT):
            continue
        stage.step = max(stage.step, step)
        speed = event.get("tokens_per_second")
        stage.tokens_per_second = speed if _is_number(speed) else stage.tokens_per_second
        for measure in CURVES:
            value: Any = event.get(measure)
            if _is_number(value):
                stage.curves.setdefault((str(kind), measure), {})[step] = float(value)
    return list(stages.values())


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < float("inf")


class Pace:
    """Steps per second, from how a log has grown since it was first looked at.

    The log has no times: a line is as old as the file was when it was the last one. The line that
    is there at the first look may be from before a pause, so an old one does not count.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[Path, str], tuple[int, float, bool]] = {}
        self._lock = threading.Lock()

    def steps_per_second(
        self, log: Path, stage: str, step: int, written: float, now: float
    ) -> float | None:
        """Speed of a stage that has come to `step` when its log was `written` (seconds since the
        epoch, as `now`); None where that is not known yet."""
        with self._lock:
            first, since, is_new = self._first.get((log, stage), (step + 1, 0.0, False))
            if step < first or (step > first and not is_new):  # or it was begun again
                is_new = step > first or now - written < _NEW_SECONDS
                self._first[log, stage] = (step, written, is_new)
                return None
        return (step - first) / (written - since) if step > first and written > since else None


def live_html(run: Path, name: str, pace: Pace) -> str:
    """A run in training: stage, step, losses, speed, time left, curves; empty where none runs."""
    if not is_running(run):
        return ""
    try:
        planned = list(read_recipe(run).get("stages") or {})
        written = (run / LOG).stat().st_mtime if (run / LOG).is_file() else 0.0
        stages = read_stages(run / LOG)
    except (ExgraMedError, OSError):
        # Its sentence names a folder of this machine.
        return (
            f'<h2>{escape(name)} <span class="badge">running</span></h2><p class="hint">Its log '
            "cannot be read just now, or is not what was written.</p>"
        )
    head = f'<h2>{escape(name)} <span class="badge">running</span></h2>'
    if not stages:
        return f'{head}<p class="hint">It has begun, and there is no step yet.</p>'
    stage = stages[-1]
    if stage.has_ended and (not planned or stage.name == planned[-1]):
        state = "All stages are trained; it is saved or evaluated."
    else:
        state = _place(stage, planned)
    speed = pace.steps_per_second(run / LOG, stage.name, stage.step, written, time.time())
    tiles = "".join(
        f'<div class="tile"><span class="label">{label}</span><span class="number">{value}</span>'
        f'<span class="detail">{detail}</span></div>'
        for label, value, detail in _tiles(stage, speed)
    )
    figures = "".join(
        _figure(each, measure)
        for each in reversed(stages)
        for measure in CURVES
        if each.points(_TRAIN, measure) or len(each.points(_HELD_OUT, measure)) > 1
    )
    return (
        f'{head}<p class="under" role="status">{escape(state)} This part is read again every few '
        f'seconds.</p><div class="tiles">{tiles}</div><div class="figures live">{figures}</div>'
    )


def _place(stage: LiveStage, planned: Sequence[str]) -> str:
    of = f" ({planned.index(stage.name) + 1} of {len(planned)})" if stage.name in planned else ""
    total = "" if stage.total_steps is None else f" of {stage.total_steps:,}"
    return f"Stage {stage.name}{of}, step {stage.step:,}{total}."


def _tiles(stage: LiveStage, speed: float | None) -> list[tuple[str, str, str]]:
    tiles = []
    names = {"language_loss": "Loss", "alignment_loss": "Alignment loss"}
    for measure, label in names.items():
        train, held_out = stage.points(_TRAIN, measure), stage.points(_HELD_OUT, measure)
        if train or held_out:
            value = f"{train[-1][1]:.3f}" if train else "–"
            detail = "not measured on held-out records"
            if held_out:
                detail = f"held out {held_out[-1][1]:.3f} at step {held_out[-1][0]:,}"
            tiles.append((label, value, detail))
    tokens = stage.tokens_per_second
    told = "" if tokens is None else f"{tokens:,.0f} tokens/s"
    if speed is None:
        tiles.append(("Steps per second", "…", f"{told}; known once it has gone on"))
    else:
        tiles.append(("Steps per second", f"{speed:.3g}", told))
    if stage.total_steps is not None:
        left = max(0, stage.total_steps - stage.step)
        value = "…" if speed is None else spoken_time(left / speed)
        tiles.append(("Left in this stage", value if left else "–", f"{left:,} steps"))
    return tiles


def _figure(stage: LiveStage, measure: str) -> str:
    train, held_out = stage.points(_TRAIN, measure), stage.points(_HELD_OUT, measure)
    scale = 100.0 if measure.endswith("accuracy") else 1.0
    title = f"{stage.name}: {CURVES[measure]}{', %' if scale > 1 else ''}"
    svg = curves_svg({_TRAIN: train, _HELD_OUT: held_out}, scale, title)
    shown = [
        f'<span class="{kind}"></span>{word}'
        for kind, word, points in (
            (_TRAIN, "training", train),
            (_HELD_OUT, "held out", held_out),
        )
        if points
    ]
    return (
        f"<figure><figcaption><b>{escape(title)}</b>"
        f'<small class="key">{"".join(shown)}</small></figcaption>{svg}</figure>'
    )


def curves_svg(curves: Mapping[str, Sequence[Point]], scale: float, title: str) -> str:
    """Curves over steps; the name of each is its class, and colours are those of the page."""
    drawn = {name: _thinned(points) for name, points in curves.items() if points}
    steps = [step for points in drawn.values() for step, _ in points]
    values = [value * scale for points in drawn.values() for _, value in points]
    low, high, first, last = min(values), max(values), min(steps), max(steps)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - pad, high + pad
    right, bottom = _WIDTH - 12, _HEIGHT - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + (right - _LEFT) * (step - first) / max(last - first, 1)

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - low) / (high - low)

    marks = [
        f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{right}"/>'
        f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for value in (low + pad, (low + high) / 2, high - pad)
    ]
    marks += [
        f'<text x="{x(step):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{step:,}</text>'
        for step, anchor in {first: "start", last: "end"}.items()
    ]
    marks.append(
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">step</text>'
    )
    for name, points in drawn.items():
        path = " ".join(f"{x(step):.1f},{y(value * scale):.1f}" for step, value in points)
        marks.append(f'<polyline class="{name}" points="{path}"/>')
        if name == _HELD_OUT or len(points) == 1:
            marks += [
                f'<circle class="{name}" cx="{x(step):.1f}" cy="{y(value * scale):.1f}" r="2.6"/>'
                for step, value in points
            ]
    ends = "; ".join(
        f"{name.replace('_', ' ')} {points[0][1] * scale:.3g} to {points[-1][1] * scale:.3g}"
        for name, points in drawn.items()
    )
    said = f"{title}: {ends}, steps {first:,} to {last:,}"
    return (
        f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(said, quote=True)}">{"".join(marks)}</svg>'
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most `_MOST_POINTS`: means of as many neighbours as that takes; both ends are kept."""
    size = -(-len(points) // _MOST_POINTS)
    if size == 1:
        return list(points)
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    means = [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
    return [points[0], *means[1:-1], points[-1]]

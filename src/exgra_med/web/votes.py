"""Which of two answers was better: votes of visitors, in memory and, where allowed, in a file.

A vote names two models and the better one. Of question, answers and picture it keeps nothing.
"""

import json
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exgra_med import files
from exgra_med.errors import DataError, ServiceError
from exgra_med.evaluation.statistics import wilson
from exgra_med.reading import decode_json, read_text

_BEGINNING = '{"time": "'
"""Of every line of the file."""


@dataclass(frozen=True)
class Vote:
    """One comparison of two answers to the same question."""

    models: tuple[str, str]
    better: str | None
    """One of the two, or None where both were as good."""
    blind: bool
    """Whether the names were hidden until the vote."""


@dataclass(frozen=True)
class Tally:
    """All votes on one pair of models; `blind` ones are counted apart."""

    models: tuple[str, str]
    blind: bool
    wins: tuple[int, int]
    num_equal: int

    @property
    def num_decided(self) -> int:
        """Votes that found one better."""
        return sum(self.wins)

    @property
    def share(self) -> float | None:
        """Of the decided votes, the share in percent that found the first model better."""
        return 100 * self.wins[0] / self.num_decided if self.num_decided else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of `share`."""
        bounds = wilson(self.wins[0], self.num_decided)
        return None if bounds is None else (100 * bounds[0], 100 * bounds[1])


class VoteBook:
    """Votes of all visitors.

    Args:
        path: JSON Lines file that each vote is appended to at once, readable by its owner alone;
            votes that are there count. None keeps them until the page is closed.

    Raises:
        ServiceError: the file holds something else.
        WriteError: it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._votes: list[Vote] = []
        self._lock = threading.Lock()
        if path is None:
            return
        with files.disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        text = read_text(path, ServiceError)
        for number, line in enumerate(text.splitlines(keepends=True), start=1):
            if not line.endswith("\n") and line.startswith(_BEGINNING[: len(line)]):
                # A power cut or a kill has left the beginning of a vote.
                os.truncate(path, path.stat().st_size - len(line.encode()))
                break
            try:
                self._votes.append(_parsed(line))
            except (DataError, ValueError, KeyError, TypeError) as error:
                raise ServiceError(
                    f"{path}:{number} is no vote.", "Name another file with --votes."
                ) from error

    def add(self, vote: Vote) -> None:
        """Count a vote, after it was written.

        Raises:
            WriteError: it cannot be written; it is not counted.
        """
        with self._lock:
            if self.path is not None:
                line = {
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                    "models": list(vote.models),
                    "better": vote.better,
                    "blind": vote.blind,
                }
                files.append(self.path, json.dumps(line).encode() + b"\n")
            self._votes.append(vote)

    def tallies(self, names: Collection[str]) -> list[Tally]:
        """Every pair of these models that has votes, blind ones first; names in alphabetical
        order."""
        found: dict[tuple[bool, tuple[str, str]], list[Vote]] = {}
        with self._lock:
            for vote in self._votes:
                first, second = sorted(vote.models)
                if first in names and second in names:
                    found.setdefault((not vote.blind, (first, second)), []).append(vote)
        return [
            Tally(
                pair,
                not seen,
                (sum(v.better == pair[0] for v in votes), sum(v.better == pair[1] for v in votes)),
                sum(v.better is None for v in votes),
            )
            for (seen, pair), votes in sorted(found.items())
        ]


def _parsed(line: str) -> Vote:
    value = decode_json(line, "a vote")
    first, second = value["models"]
    better, blind = value["better"], value["blind"]
    if not isinstance(blind, bool) or better not in (None, first, second):
        raise ValueError("no vote")
    return Vote((str(first), str(second)), better, blind)

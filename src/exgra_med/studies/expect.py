"""How long the rest of a study will take, from the nodes that are finished."""

from collections.abc import Mapping, Sequence
from statistics import mean

from exgra_med.studies.folder import Attempt
from exgra_med.studies.plan import Node

_DONE = ("finished", "failed", "not run")


def remaining_seconds(
    nodes: Sequence[Node], states: Mapping[str, Attempt], jobs: int
) -> float | None:
    """Expected seconds until all nodes are done; None where no node is left, or none to learn from.

    A node is expected to take as long as finished ones of its method and fraction took, else of its
    fraction, else of its kind.
    """
    known: dict[tuple[object, ...], list[float]] = {}
    for node in nodes:
        attempt = states[node.id]
        if attempt.state == "finished" and attempt.seconds is not None:
            for key in _keys(node):
                known.setdefault(key, []).append(attempt.seconds)
    left = [node for node in nodes if states[node.id].state not in _DONE]
    expected = [
        next((mean(known[key]) for key in _keys(node) if key in known), None) for node in left
    ]
    learnt = [seconds for seconds in expected if seconds is not None]
    if not learnt:
        return None
    total = sum(learnt) + (len(expected) - len(learnt)) * mean(learnt)
    return total / min(jobs, len(left))


def spoken(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _keys(node: Node) -> list[tuple[object, ...]]:
    cell = node.cell
    if cell is None:
        return [(node.kind,)]
    return [(cell.arm, cell.fraction), (cell.fraction,), (node.kind,)]

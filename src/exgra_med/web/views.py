"""What the alignment and the run view show, kept for a while so that a filter answers at once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exgra_med.errors import RunError
from exgra_med.recipe.run import Run, open_run
from exgra_med.web.answers import Answers, read_answers
from exgra_med.web.folders import Place, find_places
from exgra_med.web.run_view import place_html

_MOST_KEPT = 8


class Views:
    """Runs and studies under some folders, as HTML.

    Args:
        roots: folders that may be looked into.
        data_folder: the prepared folder that runs answered, where it is not at their recipe's
            place.
        device: where models of the alignment view go.
    """

    def __init__(
        self, roots: Sequence[Path], data_folder: str | None = None, device: str = "cpu"
    ) -> None:
        self._roots, self._data_folder, self._device = list(roots), data_folder, device
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def names(self, kind: str | None = None) -> list[str]:
        """Names to choose from, of runs, of studies or of both."""
        places = find_places(self._roots).values()
        return [place.name for place in places if kind in (None, place.kind)]

    def place(self, name: str) -> Place:
        """The folder behind a name.

        Raises:
            RunError: the list has no such name.
        """
        places = find_places(self._roots)
        if name not in places:
            raise RunError("There is no such run here.", "Choose one from the list.")
        return places[name]

    def stages(self, name: str) -> list[str]:
        """Finished stages of a run that align."""
        from exgra_med.evaluation.graphs import aligned_stages

        return aligned_stages(self._run(name))

    def graphs(self, name: str, stage: str, num_nodes: int, draw: int, layers: bool) -> str:
        """The matched graphs of a run; see `measure_graphs`."""
        from exgra_med.evaluation.graphs import measure_graphs
        from exgra_med.evaluation.report.graph_page import graphs_fragment

        run = self._run(name)
        stamp = run.final(stage).stat().st_mtime_ns if run.final(stage).is_dir() else 0
        return self._once(
            ("graphs", run.path, stamp, stage, num_nodes, draw, layers),
            lambda: graphs_fragment(
                measure_graphs(run, stage, num_nodes, draw, layers, self._device)
            ),
        )

    def overview(self, name: str) -> str:
        """Scores and curves of a run, or the runs of a study."""
        place = self.place(name)
        return self._once(
            ("overview", place.path, _stamp(place.path)),
            lambda: place_html(place, self._data_folder),
        )

    def answers(self, name: str) -> Answers | None:
        """The answers of a run; a study has none of its own."""
        place = self.place(name)
        if place.kind == "study":
            return None
        return self._once(
            ("answers", place.path, _stamp(place.path)),
            lambda: read_answers(place.path, self._data_folder),
        )

    def _run(self, name: str) -> Run:
        place = self.place(name)
        if place.kind == "study":
            raise RunError("A study has no graphs of its own.", "Choose one of its runs.")
        return open_run(place.path)

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return made


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes when a run goes on or is scored again."""
    files = [folder / name for name in ("log.jsonl", "results.json", "figure.svg")]
    files += sorted((folder / "predictions").glob("*.jsonl"))
    return tuple(path.stat().st_mtime_ns for path in files if path.is_file())

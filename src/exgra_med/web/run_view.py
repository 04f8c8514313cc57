"""Runs and studies as the page shows them: found by name, scores and curves, judged answers."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exgra_med.data.images import ImageFolder
from exgra_med.errors import DamagedFileError, RunError
from exgra_med.evaluation.answers import Question, pair
from exgra_med.evaluation.measures import measures
from exgra_med.evaluation.report.page import (
    Example,
    gather,
    judge,
    make_card,
    template_environment,
    training_figures,
)
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.score import group_of
from exgra_med.evaluation.session import answered_questions, read_recipe, stored_answers
from exgra_med.lab.studies.report import read_study_results, render_fragment
from exgra_med.reading import STEERING
from exgra_med.recipe.run_folder import Run, open_run
from exgra_med.web.live import Pace, is_running, live_html
from exgra_med.web.run_table import differences_table, scores_table
from exgra_med.web.study_view import counted, study_rows

_DEPTH = 6
_MOST = 1000
_NO_RUNS_INSIDE = {"checkpoints", "predictions", "images", "node_modules", "data"}


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run or study folder."""

    name: str
    path: Path
    kind: Literal["run", "study"]


def find_runs(roots: Sequence[Path]) -> dict[str, FoundRun]:
    """Runs and studies in or under some folders, by name; links are not followed.

    A visitor chooses a name of this list and never gives a path.
    """
    found: dict[str, FoundRun] = {}
    for root in roots:
        root = root.resolve()
        for path, kind in _walk(root, _DEPTH):
            name = path.relative_to(root.parent).as_posix()
            found.setdefault(name, FoundRun(name, path, kind))
            if len(found) == _MOST:
                return found
    return found


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, Literal["run", "study"]]]:
    if not folder.is_dir():
        return
    if (folder / "study.yaml").is_file():
        yield folder, "study"
    if (folder / "recipe.yaml").is_file() and (folder / "record.json").is_file():
        yield folder, "run"
        return
    if depth == 0:
        return
    for inside in sorted(folder.iterdir()):
        hidden = inside.name.startswith(".") or inside.name in _NO_RUNS_INSIDE
        # Of a name that cannot be shown, none could choose, and no page could be sent.
        hidden = hidden or STEERING.search(inside.name) is not None
        if inside.is_dir() and not inside.is_symlink() and not hidden:
            yield from _walk(inside, depth - 1)


ANY = "any"
UNKNOWN = "unknown"
MARKS = (ANY, "not right", "wrong", "partly right", "right")
ANSWERS_PER_PAGE = 12


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One question with its answer and the strict judgement of it."""

    question: Question
    answer: str | None
    judged: tuple[float, str, str]
    """Score, mark, reason."""

    @property
    def mark(self) -> str:
        """`right`, `partly right` or `wrong`."""
        return self.judged[1]

    def value(self, field: str) -> str:
        """A property of the question: one that answers are grouped by, or `type` (open, closed)."""
        if field == "type":
            return self.question.answer_type.lower()
        return group_of(self.question, field) or UNKNOWN


@dataclass(frozen=True)
class RunAnswers:
    """All answers of a run to one data set."""

    dataset: str
    rows: list[AnswerRow]
    images: ImageFolder

    def choices(self, field: str) -> list[str]:
        """`any`, then the values of a field that occur."""
        return [ANY, *sorted({row.value(field) for row in self.rows})]

    def select(self, mark: str = ANY, **fields: str) -> list[AnswerRow]:
        """The rows of these values, `any` or one that occurs, in the order of the data set."""
        wanted = {name: value for name, value in fields.items() if value != ANY}
        return [
            row
            for row in self.rows
            if mark in (ANY, row.mark) or (mark == "not right" and row.mark != "right")
            if all(row.value(name) == value for name, value in wanted.items())
        ]

    def cards(self, rows: Sequence[AnswerRow], page: int) -> list[Example]:
        """Cards with pictures for one page of rows; pages are counted from 0."""
        chosen = rows[page * ANSWERS_PER_PAGE : (page + 1) * ANSWERS_PER_PAGE]
        return [make_card(row.question, row.answer, row.judged, self.images) for row in chosen]


def read_answers(run: Path, data_folder: str | None = None) -> RunAnswers:
    """The answers of a run, joined to their questions.

    Raises:
        RunError: the folder is no run, or has no answers.
        DataError, ScoreError: the questions are missing, or are not those that were answered.
    """
    read_recipe(run)
    entries = read_results(run).find("vqa")
    if not entries:
        raise RunError("This run has no stored answers.", "Make them with `exgra-med evaluate`.")
    entry = entries[0]
    questions, images = answered_questions(run, entry, data_folder)
    pairing = pair(stored_answers(run, entry), questions)
    rows = [
        AnswerRow(question, answer, judge(question, answer))
        for question, answer in zip(pairing.questions, pairing.answers, strict=True)
    ]
    return RunAnswers(entry.label, _one_an_image_first(rows), images)


def _one_an_image_first(rows: Sequence[AnswerRow]) -> list[AnswerRow]:
    """The first question of every image, then the second ones: a data set asks everything about one
    image before the next, and the first page would be one image many times."""
    seen: Counter[tuple[str, ...]] = Counter()
    turns = []
    for row in rows:
        images = tuple(row.question.images)
        turns.append(seen[images])
        seen[images] += 1
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]


_TEMPLATES = Path(__file__).parent / "templates"
_MOST_RUNS = 300


def run_html(place: FoundRun, data_folder: str | None = None) -> str:
    """A run's scores with intervals and its curves; a study's answer, figures and runs.

    Raises:
        RunError: a file in it cannot be read.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    if place.kind == "study":
        return _study_html(place, _study_answer(place.path))
    content = gather(place.path, data_folder)
    return _render("run.html.j2", report=content, figures=training_figures(content.stages))


def answers_html(answers: RunAnswers, rows: Sequence[AnswerRow], page: int) -> str:
    """One page of cards, and how many there are."""
    return _render(
        "answers.html.j2",
        cards=answers.cards(rows, page),
        num_rows=len(rows),
        num_all=len(answers.rows),
        first=page * ANSWERS_PER_PAGE + 1,
    )


def _render(template: str, **values: Any) -> str:
    return template_environment(True, _TEMPLATES).get_template(template).render(**values)


def num_pages(rows: Sequence[AnswerRow]) -> int:
    """Pages of cards, at least one."""
    return max(1, -(-len(rows) // ANSWERS_PER_PAGE))


@dataclass(frozen=True, slots=True)
class _StudyAnswer:
    """What a study has found, from its `results.json`."""

    results: dict[str, Any] | None = None
    html: str = ""
    problem: str = ""


def _study_answer(study: Path) -> _StudyAnswer:
    try:
        results = read_study_results(study)
        return _StudyAnswer(results, render_fragment(results))
    # Their sentences name a folder of this machine.
    except DamagedFileError:
        problem = "Its results.json is not what was written: `exgra-med study report` says more."
    except RunError:
        problem = "It has no results to show yet: `exgra-med study report` writes them."
    return _StudyAnswer(problem=problem)


def _study_html(place: FoundRun, answer: _StudyAnswer) -> str:
    runs = [
        path.relative_to(place.path).as_posix()
        for path, kind in _walk(place.path, _DEPTH)
        if kind == "run"
    ]
    results = answer.results or {}
    rows = study_rows(place.path, runs, results, is_running)
    return _render(
        "study.html.j2",
        name=place.name,
        answer=answer.html,
        description=str(results.get("description", "")),
        is_toy=bool(results.get("is_toy")),
        problem=answer.problem,
        rows=rows[:_MOST_RUNS],
        counted=counted(rows),
        measures=[each.name for each in measures("compare")],
    )


_MOST_KEPT = 8


class Views:
    """Runs and studies under some folders, as HTML; the latest results are cached.

    `data_folder` has the questions, where it is not the one that the recipe names.
    """

    def __init__(
        self, roots: Sequence[Path], data_folder: str | None = None, device: str = "cpu"
    ) -> None:
        self._roots, self._data_folder, self._device = list(roots), data_folder, device
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        self._pace = Pace()

    def names(self, kind: str | None = None) -> list[str]:
        """Names to choose from, of runs, of studies or of both; runs in training come first."""
        places = [each for each in find_runs(self._roots).values() if kind in (None, each.kind)]
        places.sort(key=lambda place: place.kind == "study" or not is_running(place.path))
        return [place.name for place in places]

    def place(self, name: str) -> FoundRun:
        """The folder behind a name.

        Raises:
            RunError: the list has no such name.
        """
        places = find_runs(self._roots)
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
        from exgra_med.evaluation.report.graphs import graphs_fragment

        run = self._run(name)
        stamp = run.final(stage).stat().st_mtime_ns if run.final(stage).is_dir() else 0
        asked = (stage, num_nodes, draw, layers)
        return self._once(
            ("graphs", run.path, stamp, *asked),
            lambda: graphs_fragment(measure_graphs(run, *asked, self._device)),
        )

    def overview(self, name: str) -> str:
        """Scores and curves of a run, or the runs of a study; of a run in training, see `live`."""
        place = self.place(name)
        stamp = _stamp(place.path)
        if place.kind == "study":
            answer = self._once(("study", place.path, stamp), lambda: _study_answer(place.path))
            return _study_html(place, answer)  # whose runs may have gone on
        if is_running(place.path):
            return ""
        key = ("overview", place.path, stamp)
        return self._once(key, lambda: run_html(place, self._data_folder))

    def live(self, name: str) -> str:
        """Curves and speed of a run in training; empty where it is not, or is a study."""
        place = self.place(name)
        return "" if place.kind == "study" else live_html(place.path, name, self._pace)

    def compared(self, names: Sequence[str]) -> str:
        """Scores of several runs, and what differs between their recipes."""
        runs = {name: self.place(name).path for name in names}
        scores, about_scores = scores_table(runs)
        settings, about_settings = differences_table(runs)
        return _render(
            "compared.html.j2",
            scores=scores,
            settings=settings,
            sentences=[*about_scores, *about_settings],
        )

    def answers(self, name: str) -> RunAnswers | None:
        """The answers of a run; a study has none of its own."""
        place = self.place(name)
        if place.kind == "study":
            return None
        key = ("answers", place.path, _stamp(place.path))
        return self._once(key, lambda: read_answers(place.path, self._data_folder))

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
    """Modification times; they change when a run continues or is scored again."""
    files = [folder / name for name in ("log.jsonl", "results.json", "figure.svg")]
    files += sorted((folder / "predictions").rglob("*.jsonl"))
    return tuple(path.stat().st_mtime_ns for path in files if path.is_file())

"""Report content -> `report.html` and `scores.csv` in the run folder."""

import base64
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import partial
from html import escape
from io import BytesIO, StringIO
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

from PIL import Image

from exgra_med.data.chat_template import answer_of
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import file_sha256, numbered_images
from exgra_med.digests import checked_lines, read_document
from exgra_med.errors import DamagedFileError, DataError, RunError, ScoreError
from exgra_med.evaluation import metrics
from exgra_med.evaluation.answer_spread import FEWEST_ANSWERS, collapsed, spread_sentence
from exgra_med.evaluation.answers import Pairing, Question, pair, read_predictions
from exgra_med.evaluation.engines import facts_path
from exgra_med.evaluation.results import RESULTS_NAME, Entry, Score, read_results
from exgra_med.evaluation.session import (
    answered_questions,
    answers_file,
    read_recipe,
    stored_answers,
)
from exgra_med.evaluation.statistics import smallest_difference, wilson
from exgra_med.evaluation.tables import (
    Block,
    Column,
    Row,
    Table,
    Task,
    basis_sentences,
    cell,
    entry_table,
    overview_table,
    scores_csv,
    tasks,
)
from exgra_med.evaluation.tasks import reports
from exgra_med.evaluation.tasks.vqa import BASELINE_LABELS, strongest_blind
from exgra_med.files import write_text
from exgra_med.llm.request import adapted_sentence
from exgra_med.page_style import PAGE_CSS
from exgra_med.plugins import import_extra
from exgra_med.reading import decode_json
from exgra_med.recipe.run_folder import LOG, RECORD, is_toy, unchecked
from exgra_med.terminal import remark

_QUALITY = 80
_SIDE_PIXELS = 360


def jpeg(image: Image.Image, side_pixels: int) -> str:
    """A copy that fits a square, as base64 JPEG without any metadata of the file."""
    small = image.convert("RGB")
    small.thumbnail((side_pixels, side_pixels))
    small.info.clear()
    stream = BytesIO()
    small.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


@dataclass(frozen=True, slots=True)
class Example:
    """One card: what was asked, what was expected, what was said."""

    id: str
    question: str
    reference: str
    prediction: str
    score: float
    """1 for a right closed answer; for an open one the strict recall."""
    mark: str
    """`right`, `partly right` or `wrong`, by the strict score."""
    detail: str
    """Why, in a few words."""
    images: list[str]
    """JPEGs as base64, in the order of the question; none where there is none to show."""
    image_problem: str = ""


@dataclass(frozen=True, slots=True)
class Examples:
    """Cards of the report."""

    sample: list[Example]
    wrong: list[Example]
    num_wrong: int
    """Wrong and partly right answers in all, shown or not."""


def pick_examples(
    pairing: Pairing, images: ImageFolder | None, num_examples: int, seed: int = 0
) -> Examples:
    """Draw questions at random, at most one an image as far as there are enough images.

    Nothing is chosen by how well it looks: the sample is drawn before anything is scored, and the
    wrong answers are drawn from all wrong ones. Each of the two lists has `num_examples` cards,
    without pictures where `images` is absent.
    """
    generator = random.Random(seed)
    rows = list(range(len(pairing.questions)))
    generator.shuffle(rows)
    judged = map(judge, pairing.questions, pairing.answers)
    is_missed = [mark != "right" for _, mark, _ in judged]
    sample = spread(rows, pairing.questions, num_examples)
    shown = set(sample)
    missed = [row for row in rows if is_missed[row] and row not in shown]
    wrong = spread(missed, pairing.questions, num_examples)

    def card(row: int) -> Example:
        question, answer = pairing.questions[row], pairing.answers[row]
        return make_card(question, answer, judge(question, answer), images)

    return Examples(list(map(card, sample)), list(map(card, wrong)), sum(is_missed))


def spread(rows: Sequence[int], questions: Sequence[Question], number: int) -> list[int]:
    """So many of the rows, the first of each image before all others."""
    first: dict[str, int] = {}
    for row in rows:
        if len(first) == number:
            break
        first.setdefault(questions[row].cluster, row)
    chosen = dict.fromkeys(first.values())
    further = (row for row in rows if row not in chosen)
    return [*chosen, *islice(further, number - len(chosen))]


def judge(question: Question, answer: str | None) -> tuple[float, str, str]:
    """Score, mark (`right`, `partly right` or `wrong`) and reason, as an `Example` has them."""
    if answer is None:
        return 0.0, "wrong", "no answer"
    if question.answer_type == "CLOSED":
        reading = metrics.closed(answer, question.answer, question.text, question.options)
        detail = {
            metrics.Verdict.RIGHT: "closed",
            metrics.Verdict.WRONG: f"closed, read as “{reading.chosen}”",
            metrics.Verdict.SEVERAL: "closed, names several options",
            metrics.Verdict.ABSTAINED: "closed, abstains",
            metrics.Verdict.UNPARSED: "closed, names no option",
        }[reading.verdict]
        if not reading.hit and metrics.published_closed_hit(answer_of(answer), question.answer):
            detail += "; legacy counts it as right"
        return float(reading.hit), "right" if reading.hit else "wrong", detail
    recall = metrics.open_overlap(answer, question.answer).recall
    mark = "right" if recall == 1 else "partly right" if recall else "wrong"
    return recall, mark, f"open, recall {100 * recall:.0f} %"


def make_card(
    question: Question,
    answer: str | None,
    judged: tuple[float, str, str],
    images: ImageFolder | None,
) -> Example:
    """One card with small copies of its images, or with why there are none."""
    score, mark, detail = judged
    pictures, problem = _pictures(question, images)
    return Example(
        id=question.id,
        question=numbered_images(question.text),
        reference=question.answer,
        prediction=shown_answer(answer),
        score=score,
        mark=mark,
        detail=detail,
        images=pictures,
        image_problem=problem,
    )


def shown_answer(answer: str | None) -> str:
    """An answer for a reader, who has to see that there is none, or an empty one."""
    return "(no answer)" if answer is None else answer.strip() or "(empty)"


def _pictures(question: Question, images: ImageFolder | None) -> tuple[list[str], str]:
    """Small copies of the images of a question, or why there are none."""
    if not question.images:
        return [], "a question without an image"
    if images is None:
        return [], "the image folder is not at hand"
    side = _SIDE_PIXELS if len(question.images) == 1 else _SIDE_PIXELS // 2
    try:
        return [jpeg(images.open(name, question.id), side) for name in question.images], ""
    except DataError as error:
        return [], error.message


Marked = list[tuple[str, bool]]
"""A text in pieces, each with whether the other text lacks it."""


@dataclass(frozen=True, slots=True)
class ReportCard:
    """A report that was written, beside its reference."""

    question: str
    reference: Marked
    report: Marked
    kind: Literal["right", "partly-right", "wrong", "unread"]
    """By the findings that the rules read in both; `unread` where there are none."""
    mark: str
    detail: str
    images: list[str]
    image_problem: str


def marked(reference: str, report: str) -> tuple[Marked, Marked]:
    """Two texts with the words marked that the other one has not, or not in this order.

    >>> marked("No effusion.", "Effusion.")
    ([('No', True), (' effusion.', False)], [('Effusion.', False)])
    """
    words = [re.findall(r"\S+|\s+", text) for text in (reference, report)]
    known = [[tuple(reports.report_words(each)) for each in one] for one in words]
    # Signs, blanks and headings are no words, and differ from nothing.
    places = [[place for place, each in enumerate(one) if each] for one in known]
    compared = [[one[place] for place in at] for one, at in zip(known, places, strict=True)]
    differs = [set(at) for at in places]
    for first, second, size in SequenceMatcher(
        None, *compared, autojunk=False
    ).get_matching_blocks():
        for text, start in enumerate((first, second)):
            differs[text] -= {*places[text][start : start + size]}
    return _joined(words[0], differs[0]), _joined(words[1], differs[1])


def _joined(words: Sequence[str], differs: set[int]) -> Marked:
    """Pieces as long as they can be; a blank between two marked words is marked, too."""
    found: Marked = []
    for place, word in enumerate(words):
        flag = place in differs or (not word.strip() and {place - 1, place + 1} <= differs)
        if found and found[-1][1] == flag:
            found[-1] = (found[-1][0] + word, flag)
        else:
            found.append((word, flag))
    return found


def report_card(question: Question, report: str, images: ImageFolder | None) -> ReportCard:
    """One report beside its reference, with what the rules read in the two."""
    found = reports.compare_findings(question.answer, report)
    named = {
        kind: ", ".join(name for name, each in found.items() if each == kind)
        for kind in ("opposite", "missed", "added", "hit", "same")
    }
    parts = [f"{kind} {named[kind]}" for kind in ("missed", "added") if named[kind]]
    kind: Literal["right", "partly-right", "wrong", "unread"] = "unread"
    mark, detail = "no finding of the list in both", "; ".join(parts)
    if not report:
        kind, mark, detail = "wrong", "no report", "worth 0; misses every finding"
    elif named["opposite"]:
        kind, mark = "wrong", f"contradicts the reference: {named['opposite']}"
    elif parts:
        kind, mark = "partly-right", "not the same findings"
    elif named["hit"] or named["same"]:
        kind, mark = "right", "the same findings"
        stated = [("stated", named["hit"]), ("denied", named["same"])]
        detail = "; ".join(f"{what} by both: {names}" for what, names in stated if names)
    pieces = marked(question.answer, report)
    pictures = _pictures(question, images)
    return ReportCard(numbered_images(question.text), *pieces, kind, mark, detail, *pictures)


CURVES = {
    "language_loss": "language-model loss",
    "image_answer_accuracy": "image ↔ answer matched, bare embeddings",
    "alignment_loss": "alignment loss",
    "matching_accuracy": "matched through graph layers and barycenter",
}
"""What a stage measures, and how figures name it."""
LEVELS = {
    "image_answer": "image ↔ answer",
    "image_extended": "image ↔ extended answer",
    "answer_extended": "answer ↔ extended answer",
    "matching": "every view ↔ barycenter, through graph layers",
}
"""What is matched with what on held-out records: `NAME_accuracy`, and `NAME_unrelated`, the same
for views of different records."""
_LOGGED = [*CURVES, *(f"{name}_{kind}" for name in LEVELS for kind in ("accuracy", "unrelated"))]


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
    train: dict[str, Curve] = field(default_factory=lambda: {name: Curve() for name in _LOGGED})
    held_out: dict[str, Curve] = field(default_factory=lambda: {name: Curve() for name in _LOGGED})
    last: dict[str, Any] = field(default_factory=dict)
    """The last training line, with learning rate and speed."""
    chance: float | None = None
    """Matching accuracy of a random matching of the held-out graphs."""
    num_nodes: int | None = None
    """Held-out records that are matched."""

    def has(self, measure: str) -> bool:
        """Whether the stage measured this, so that it can be drawn."""
        if measure == "image_answer_accuracy":
            # Held out only, and one point is no curve.
            return len(self.held_out[measure].values) > 1
        return bool(self.train[measure].values or self.held_out[measure].values)


def _read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a log, without a torn last line; none where there is no log."""
    if not os.path.lexists(path):
        return []
    try:
        lines = checked_lines(path.read_bytes(), path, _WITHOUT_LOG)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror}).", "") from error
    events = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = decode_json(line.decode(), str(path), finite=False)
        except (DataError, UnicodeDecodeError) as error:
            if number == len(lines):
                break
            raise RunError(f"{path}:{number}: not a JSON object.") from error
        if isinstance(event, dict):
            events.append(event)
    return events


_WITHOUT_LOG = "Put it back from a copy; what is here has no curves."


def read_log(path: Path) -> list[StageCurves]:
    """Stages of a log in the order they were trained; empty where there is no log.

    A torn last line, as a killed run leaves it, is dropped. Steps that were run again after a
    resume replace the earlier ones.

    Raises:
        RunError: a line before the last one is not a JSON object.
        DamagedFileError: the log is not what was written.
    """
    entries: dict[tuple[str, str, float], dict[str, Any]] = {}
    for number, entry in enumerate(_read_events(path), start=1):
        if entry.get("kind") in ("train", "held_out"):
            if not isinstance(entry.get("step", 0), int | float):
                raise DamagedFileError(f"{path}:{number}: the step is no number.", _WITHOUT_LOG)
            key = (str(entry["kind"]), str(entry.get("stage")), float(entry.get("step", 0)))
            entries[key] = entry
    stages: dict[str, StageCurves] = {}
    for (kind, name, step), entry in sorted(entries.items(), key=lambda pair: pair[0][2]):
        stages.setdefault(name, StageCurves(name))
        curves = stages[name].train if kind == "train" else stages[name].held_out
        for measure in _LOGGED:
            curves[measure].add(step, entry.get(measure))
        if isinstance(entry.get("chance"), float):
            stages[name].chance = entry["chance"]
        if isinstance(entry.get("num_nodes"), int) and kind == "held_out":
            stages[name].num_nodes = entry["num_nodes"]
        if kind == "train":
            if "language_loss" not in entry:
                curves["language_loss"].add(step, entry.get("loss"))
            stages[name].last = entry
    order = list(dict.fromkeys(name for _, name, _ in entries))
    return [stages[name] for name in order]


NOTICE = (
    "Research use only. Nothing here is clinical advice, and no answer may be used to diagnose or "
    "treat anyone."
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the first screen."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One question of the first screen, and what the run says to it."""

    question: str
    state: Literal["good", "bad", "open"]
    """`open` where it was not measured, or cannot be decided."""
    answer: str


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of the results."""

    id: str
    """For links within the page."""
    nav: str
    """Short, for the list of links."""
    block: Block
    further: list[Block] = field(default_factory=list)
    """Baselines and published numbers beside the scores."""
    details: list[Block] = field(default_factory=list)
    """Parts of the scores."""
    examples: Examples | None = None
    """Questions with pictures and answers."""
    examples_problem: str = ""
    """Why there are none; empty for a task without any."""
    reports: list[ReportCard] = field(default_factory=list)
    """Reports beside their references, drawn at random."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the page and the cards are made of."""

    name: str
    description: str
    is_toy: bool
    notice: str
    findings: list[Finding]
    """The first screen."""
    tiles: list[Tile]
    overview: Block | None
    parts: list[Part]
    entries: list[Entry]
    stages: list[StageCurves]
    alignment: list[Block]
    """For each stage that measured it, how often views find their own partner."""
    provenance: list[tuple[str, str]]
    limits: list[str]
    problems: list[str]
    """What of the run's files is not whole, or cannot be checked; also the first limits."""


def gather(run: Path, data_folder: str | None = None) -> Content:
    """Read a run folder: `recipe.yaml`, and what else is there.

    `data_folder` is the prepared folder that was answered, where it is not at its place; of several
    data sets the one that it holds.

    Raises:
        RunError: the folder is no run, or a file in it cannot be read.
    """
    recipe = read_recipe(run)
    entries = read_results(run).results
    problems: list[str] = []
    record = _whole(lambda: read_document(run / RECORD), {}, problems)
    stages = _whole(lambda: read_log(run / LOG), [], problems)
    problems += _lost(run, recipe, entries)
    if said := unchecked(run):
        problems.append(said)
    problems = [_within(run, each) for each in problems]
    toy = is_toy(run)
    vqa = [each for each in entries if each.task == "vqa"]
    known = tasks()
    overview = Block("Every data set", overview_table(vqa)) if len(vqa) > 1 else None
    # In the order of the tasks, each task's entries in the order of the file.
    order = [each for name in known for each in entries if each.task == name]
    parts = [
        _part(run, recipe, entry, known[entry.task], f"part-{number}", data_folder)
        for number, entry in enumerate(order, start=1)
    ]
    return Content(
        name=run.resolve().name,
        description=what_ran(recipe, entries, stages),
        is_toy=toy,
        notice=NOTICE,
        findings=_findings(run, entries, stages, recipe),
        tiles=_score_tiles(vqa[:1]),
        overview=overview,
        parts=parts,
        entries=entries,
        stages=stages,
        alignment=[each for stage in stages for each in _alignment_block(stage)],
        provenance=_provenance(run, recipe, record, entries),
        limits=[*problems, *limits(entries, toy)],
        problems=problems,
    )


def what_ran(
    recipe: Mapping[str, Any], entries: Sequence[Entry], stages: Sequence[StageCurves]
) -> str:
    """What this run is, from what it did: its stages and their data, and what it was asked.

    A recipe's own words stay the same whatever it is made to run on.
    """
    model = recipe.get("model") or {}
    # Of a path only its end: where things lie on a machine is nobody's business.
    data = Path(str((recipe.get("data") or {}).get("folder") or "no data")).name
    who = (
        "a toy model with random weights"
        if model.get("architecture")
        else Path(str(model["start"])).name
        if model.get("start")
        else "a model joined from parts"
    )
    if stages:
        done = ", ".join(
            f"{each.name} ({each.last['step']:g} steps)" if each.last else each.name
            for each in stages
        )
        told = [f"Trained on {data}, from {who}: {done}."]
    else:
        told = [f"{who[:1].upper()}{who[1:]}, without a log of training."]
    for entry in entries:
        counts = entry.counts()
        number = f"{counts['questions']} questions" if counts else "the questions"
        told.append(f"Asked ({entry.task}): {number} of {entry.label}.")
    return " ".join(told)


def _within(run: Path, sentence: str) -> str:
    """A sentence that names files as they lie in the run: a page is passed on, and says nothing of
    where the run lies."""
    return sentence.replace(f"{run}{os.sep}", "").replace(str(run), run.name)


Value = TypeVar("Value")


def _whole(read: Callable[[], Value], otherwise: Value, problems: list[str]) -> Value:
    """What was read, or something else and the problem."""
    try:
        return read()
    except (DataError, RunError) as error:
        problems.append(error.message)
        return otherwise


def _lost(run: Path, recipe: dict[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    """What the run says that it has, and that is gone or is not what was written."""
    problems: list[str] = []
    # What is wrong with the whole log is told apart.
    events = _whole(lambda: _read_events(run / LOG), None, [])
    ended = {each.get("stage") for each in events or () if each.get("event") == "end"}
    lost = {each.get("stage") for each in events or () if each.get("event") == "lost"}
    for stage in recipe.get("stages") or {}:
        is_finished = (run / "checkpoints" / stage / "final").is_dir()
        if events is not None and (stage in lost or (is_finished and stage not in ended)):
            yield f"{run / LOG} does not hold all that was logged of stage {stage}."
    if not entries and next((run / "predictions").rglob("*.jsonl"), None):
        yield f"{run / RESULTS_NAME} is not there, and answers are; `evaluate` scores them."
    for entry in entries:
        for asked in entry.answers:
            before = len(problems)
            _whole(partial(stored_answers, run, entry, asked), [], problems)
            if len(problems) == before:
                file = facts_path(answers_file(run, entry, asked))
                _whole(partial(read_document, file), {}, problems)
    yield from problems


HEADLINES = {
    "average": "average",
    "closed_accuracy": "closed accuracy",
    "open_recall": "open recall",
}
"""Measures that can stand for a whole entry: the average, or what there is of its parts."""


def headline(entry: Entry, scorer: str) -> str | None:
    """The first measure of `HEADLINES` that has a value; None where nothing was scored."""
    return next((each for each in HEADLINES if entry.score(scorer, each).value is not None), None)


def _findings(
    run: Path,
    entries: Sequence[Entry],
    stages: Sequence[StageCurves],
    recipe: Mapping[str, Any],
) -> list[Finding]:
    vqa = [each for each in entries if each.task == "vqa"]
    missing, against = _missing(run, entries), _against_blind(vqa)
    if vqa and changed_answers(run, vqa[0]):
        answer = f"Of answers that are no longer those of the run: {against.answer}"
        against = Finding(against.question, "open", answer)
    choices = [each for each in entries if each.task == "multiple-choice"]
    written = [each for each in entries if each.task == reports.NAME]
    if choices and not vqa:
        against = _choices_against_blind(choices[0])
    elif written and not vqa:
        against = _reports_against_blind(written[0])
    found = [against, missing]
    if missing.state == "bad":
        found.reverse()  # every other number rests on it
    if vqa:
        found += [_looks(vqa[0], entries, run), *_invents(vqa), _collapse(vqa[0])]
    found += [_contradicts(each) for each in written[:1]]
    aligned = [each for each in stages if each.held_out["image_answer_accuracy"].values]
    found += [_tied(each) for each in aligned[-1:]]
    if stages:
        found.append(_learning(stages, recipe))
    return found


def _baseline_value(baseline: Mapping[str, Any] | None, measure: str) -> float | None:
    strict = ((baseline or {}).get("scores") or {}).get("strict") or {}
    return (strict.get(measure) or {}).get("value")


def _against_blind(entries: Sequence[Entry]) -> Finding:
    """The score, and whether it can be told apart from answering blindly."""
    question = "Better than without the picture?"
    name = headline(entries[0], "strict") if entries else None
    if name is None:
        return Finding(question, "open", "This run has not been scored on short questions yet.")
    entry = entries[0]
    where = f" on {entry.label}" if len(entries) > 1 else ""
    counts = entry.counts()
    answered = f" ({_answered(counts)})" if counts else ""
    score = cell(entry.score("strict", name))
    told = f"The strict {HEADLINES[name]}{where} is {score.text} %{answered}."
    baselines = entry.details.get("baselines") or {}
    floor = strongest_blind({key: _baseline_value(each, name) for key, each in baselines.items()})
    if floor is None:
        return Finding(question, "open", f"{told} No baseline was computed beside it.")
    value = _baseline_value(baselines[floor], name)
    lookup = (
        f"{value:.1f} % of the strongest baseline that sees no picture ({BASELINE_LABELS[floor]})"
    )
    state, said = _told_apart(baselines[floor], name, lookup)
    leak = _baseline_value(baselines.get("same_image_nearest"), name)
    if leak is not None and value is not None and leak > value:
        said += (
            f" Knowing which picture it is, without looking, gives {leak:.1f} % "
            f"({BASELINE_LABELS['same_image_nearest']})."
        )
    return Finding(question, state, f"{told} {said}")


def _choices_against_blind(entry: Entry) -> Finding:
    """Chosen options beside guessing, and beside the options' likelihood without the picture."""
    question = "Better than without the picture?"
    scored = [each for each in ("likelihood", "generation_strict") if each in entry.scores]
    labels = {"text_only_baseline": "the most likely option without it", "guessing": "guessing"}
    known = {name: entry.score(name, "accuracy").value for name in labels}
    floors = {name: value for name, value in known.items() if value is not None}
    score = entry.score(scored[0], "accuracy") if scored else Score(value=None)
    if score.value is None or not floors:
        return Finding(question, "open", "Nothing was scored beside which it could stand.")
    floor = max(floors, key=lambda name: floors[name])
    shown = cell(score)
    told = f"The accuracy of chosen options is {shown.text} %, {labels[floor]} gives "
    told += f"{floors[floor]:.1f} %"
    return _beside(question, told, score, floors[floor])


def _beside(question: str, told: str, score: Score, floor: float, wanted: int = 1) -> Finding:
    """A score beside a floor that has no interval; `wanted` is -1 where it should be below."""
    if score.interval is None:
        return Finding(question, "open", f"{told}; too few images to tell the two apart.")
    bounds = cell(score).bounds
    side = _side([bound - floor for bound in score.interval])
    if side == 0:
        told = f"{told}, which is within the 95 % interval {bounds}."
        return Finding(question, "bad", f"{told} The two cannot be told apart.")
    where = "above" if side > 0 else "below"
    told = f"{told}. All of the 95 % interval {bounds} is {where} that."
    return Finding(question, "good" if side == wanted else "bad", told)


_OF_REPORTS = {"finding_f1": "F1 of findings", "mean_rouge_l": "ROUGE-L"}
"""Measures that can stand for reports: of findings, or of words where the list has none of them."""


def _reports_against_blind(entry: Entry) -> Finding:
    """Reports beside those that are written without a look."""
    question = "Better than without the picture?"
    scores = entry.scores.get(reports.VARIANT, {})
    baselines = entry.details.get("baselines") or {}
    for name, label in _OF_REPORTS.items():
        floors = {
            key: value
            for key, each in baselines.items()
            if (value := each["scores"][reports.VARIANT][name]["value"]) is not None
        }
        if name in scores and scores[name].value is not None and floors:
            floor = max(floors, key=lambda key: floors[key])
            told = f"The {label} of the reports is {cell(scores[name]).text} %, the "
            told += f"{reports.BASELINE_LABELS[floor]} gives {floors[floor]:.1f} %"
            return _beside(question, told, scores[name], floors[floor])
    return Finding(question, "open", "Nothing was scored beside which the reports could stand.")


def _contradicts(entry: Entry) -> Finding:
    """How often a report denies what its reference states, or the other way round."""
    question = "Does it contradict the reference?"
    score = entry.score(reports.VARIANT, "contradictions")
    other = (entry.details.get("baselines") or {}).get("another_report") or {}
    floor = ((other.get("scores") or {}).get(reports.VARIANT) or {}).get("contradictions") or {}
    if score.value is None:
        return Finding(question, "open", "No finding of the list is decided by both.")
    told = f"Of the findings that both decide, {cell(score).text} % are stated by one and denied "
    told += "by the other, by rules"
    if floor.get("value") is None:
        return Finding(question, "open", f"{told}. Nothing stands beside it.")
    told += f"; with the reference of another picture {floor['value']:.1f} % are"
    return _beside(question, told, score, floor["value"], wanted=-1)


def _told_apart(
    baseline: Mapping[str, Any], name: str, lookup: str
) -> tuple[Literal["good", "bad", "open"], str]:
    """Above, below or not to be told apart; no verdict that missing answers could turn."""
    score = (baseline.get("difference") or {}).get(name) or {}
    bounds = score.get("interval")
    if bounds is None:
        return "open", f"It stands beside the {lookup}; too few images to tell the two apart."
    difference = cell(score)
    size = f"difference {difference.signed} points, 95 % interval {difference.bounds}"
    sides = {_side(bounds)}
    if "lowest" in baseline:
        edges = [(baseline[edge].get(name) or {}).get("interval") for edge in ("lowest", "highest")]
        sides |= {_side(each) for each in edges if each is not None}
    if len(sides) > 1:
        return "open", (
            f"No verdict against the {lookup}: the missing answers could turn it ({size} over the "
            "answered questions)."
        )
    side = sides.pop()
    if side == 0:
        return "bad", f"It cannot be told apart from the {lookup}; {size}."
    above = "above" if side > 0 else "below"
    return "good" if side > 0 else "bad", (
        f"It is {above} the {lookup}, by more than chance on these questions; {size}."
    )


def _side(bounds: Sequence[float]) -> int:
    """1 above 0, -1 below, 0 for an interval that holds it."""
    return 1 if bounds[0] > 0 else -1 if bounds[1] < 0 else 0


def _answered(counts: Mapping[str, int]) -> str:
    answered = counts["questions"] - counts["missing"]
    rest = [f"{counts[name]} {name}" for name in ("missing", "empty", "unparsed") if counts[name]]
    return ", ".join([f"{answered} of {counts['questions']} questions answered", *rest])


def _missing(run: Path, entries: Sequence[Entry]) -> Finding:
    """Answers that are not there, and files that are not those that were scored."""
    told = []
    for entry in entries:
        counts = entry.counts()
        if counts and counts["missing"]:
            told.append(
                f"Without a usable answer: {counts['missing']} of {counts['questions']} questions "
                f"of {entry.label} ({entry.task}); they score 0."
            )
        told += [
            f"The answers {file} are not there; their scores cannot be checked."
            for asked, file in entry.answers.items()
            if not answers_file(run, entry, asked).is_file()
        ]
        told += changed_answers(run, entry)
    question = "What is missing?"
    if told:
        return Finding(question, "bad", " ".join(told))
    unknown = [each for each in entries if not each.counts() and each.answers]
    if not entries or unknown:
        return Finding(question, "open", "How many questions were answered was not counted.")
    return Finding(
        question, "good", "Nothing of what was asked: every question has an answer that was scored."
    )


def changed_answers(run: Path, entry: Entry) -> list[str]:
    """Says so where the answers in a run are not those that its stored scores are of."""
    told = []
    again = f"Score again: exgra-med evaluate {entry.task} {run.name}."
    for asked, file in entry.answers.items():
        path, known = answers_file(run, entry, asked), entry.sha256(asked)
        if not path.is_file():
            continue
        if known and file_sha256(path) != known:
            told.append(
                f"The answers {file} of {run.name} were changed after they were scored: the stored "
                f"scores are not of them. {again}"
            )
        elif not known and (before := _predictions_scored(entry)) is not None:
            # Scored by a version that kept no digest: at least their number has to be the same.
            now = len(read_predictions(path).predictions)
            if now != before:
                told.append(
                    f"There were {before} answers in {file} of {run.name} when they were scored, "
                    f"and there are {now} now: the stored scores are not of them. {again}"
                )
    return told


def _predictions_scored(entry: Entry) -> int | None:
    strict = (entry.details.get("scorers") or {}).get("strict") or {}
    return (strict.get("pairing") or {}).get("predictions")


def _strict(entry: Entry, name: str) -> Any:
    """What the strict scorer tells beside its scores."""
    return ((entry.details.get("scorers") or {}).get("strict") or {}).get(name)


def _looks(entry: Entry, entries: Sequence[Entry], run: Path) -> Finding:
    """What the right picture is worth, where it was measured; and whether answers follow it."""
    question = "Does it look at the picture?"
    lost, changes = _lost_without(entry, entries), _changes(entry)
    if lost is not None:
        state, told = lost
        return Finding(question, state, f"{told}{changes[1]}")
    ask = f"“exgra-med evaluate reliance {run.name}” asks the same questions with other pictures."
    if changes[0] == "bad":
        return Finding(question, "bad", f"Hardly:{changes[1]}")
    return Finding(question, "open", f"Not measured. {ask}{changes[1]}")


def _lost_without(
    entry: Entry, entries: Sequence[Entry]
) -> tuple[Literal["good", "bad", "open"], str] | None:
    """What of the score is lost with other pictures; None where that was not measured."""
    same = [each for each in entries if each.task == "reliance" and each.label == entry.label]
    name = headline(entry, "strict")
    if not same or name is None or same[0].score("shuffled", name).value is None:
        return None
    lost = {kind: same[0].score(kind, name) for kind in ("shuffled", "blank", "noise")}
    shuffled = cell(lost["shuffled"])
    if lost["shuffled"].interval is None:
        return "open", "Too few images to tell; see the part on reliance below."
    size = (
        f"with the picture of another question the strict {HEADLINES[name]} changes by "
        f"{cell(_negative(lost['shuffled'])).signed} points (what is lost: 95 % interval "
        f"{shuffled.bounds})"
    )
    side = _side(lost["shuffled"].interval)
    if side > 0:
        return "good", f"Yes: {size}."
    told = f"Not shown: {size}."
    if side < 0:
        told = f"No: it is better with a wrong picture; {size}."
    notices = [kind for kind in ("blank", "noise") if (b := lost[kind].interval) and _side(b) > 0]
    if side == 0 and notices:
        shown = {"blank": "a grey picture", "noise": "noise"}
        told += (
            f" It does lose with {' and '.join(shown[kind] for kind in notices)}: it notices that "
            "there is a picture, not what is on it."
        )
    return "bad", told


_SELDOM = 50.0
"""Percent of pairs with two right answers. Who gives one answer to most of them hardly looks."""


def _changes(entry: Entry) -> tuple[Literal["bad", "open"], str]:
    """Whether the same question gets another answer of another picture, as one more sentence."""
    same = _strict(entry, "same_questions")
    if same is None:
        return "open", ""
    score = cell(same["changed"])
    inside = f" (95 % interval {score.bounds})" if score.bounds else ""
    told = (
        f" Asked the same of two pictures with different right answers, it answers differently "
        f"in {score.text} %{inside}; a model that never looks has 0 %."
    )
    is_seldom = score.high is not None and score.high < _SELDOM
    return "bad" if is_seldom else "open", told


_RARE = 5.0
"""Percent of absent findings: a claim in twenty is the border between seldom and often."""


def _invents(entries: Sequence[Entry]) -> list[Finding]:
    """Whether it claims findings that are not there; nothing where too few pictures were asked.

    Questions made for it come before those that a data set happens to have.
    """
    asked = [(each, found) for each in entries if (found := _strict(each, "existence"))]
    asked = [pair for pair in asked if pair[1]["all"]["scores"]["false_claims"]["interval"]]
    if not asked:
        return []
    entry, found = max(asked, key=lambda pair: len(pair[1]) > 1)
    part = found["all"]
    scores = part["scores"]
    false, true, apart = (cell(scores[k]) for k in ("false_claims", "true_claims", "told_apart"))
    told = f"On {entry.label}, it claims {false.text} % of {part['num_absent']} findings that are "
    told += "not there"
    told += f" (95 % interval {false.bounds})"
    if part["num_present"]:
        told += f", and {true.text} % of {part['num_present']} that are"
    worst = cell((found.get("adversarial") or {}).get("scores", {}).get("false_claims"))
    if worst.value is not None:
        told += f"; of absent ones that could well be there, {worst.text} %"
    question = "Does it invent findings?"
    if apart.low is not None and apart.low <= 0:
        told += (
            ". That it claims present ones more often cannot be shown: it does not tell them apart"
        )
        return [Finding(question, "bad", f"{told}.")]
    low, high = scores["false_claims"]["interval"]
    state = "good" if high < _RARE else "bad" if low > _RARE else "open"
    return [Finding(question, state, f"{told}.")]


def _negative(score: Score) -> Score:
    return Score(value=None if score.value is None else -score.value)


def _collapse(entry: Entry) -> Finding:
    question = "Is it collapsed?"
    strict = (entry.details.get("scorers") or {}).get("strict") or {}
    spread = strict.get("answer_spread")
    if spread is None:
        return Finding(
            question, "open", "Not counted when it was scored; “exgra-med evaluate vqa” counts it."
        )
    return Finding(
        question,
        "bad"
        if collapsed(spread)
        else "open"
        if spread["all"]["answered"] < FEWEST_ANSWERS
        else "good",
        spread_sentence(spread),
    )


def _tied(stage: StageCurves) -> Finding:
    """Whether a picture finds its answer by bare embeddings, above the level of unrelated views."""
    question = "Are picture and answer tied?"
    values = stage.held_out["image_answer_accuracy"].values
    floors = stage.held_out["image_answer_unrelated"].values
    before, after = (f"{100 * each:.0f} %" for each in (values[0], values[-1]))
    nodes = f" of {stage.num_nodes} held-out records" if stage.num_nodes else ""
    way = f"{before} → {after}" if len(values) > 1 else after
    told = (
        f"In the bare embeddings {way}{nodes} find their own partner, image ↔ answer "
        f"(stage {stage.name})"
    )
    known = [each for each in (*floors[-1:], stage.chance) if each is not None]
    if not known:
        return Finding(question, "open", f"{told}. What unrelated views reach was not measured.")
    floor = max(known)
    level = "unrelated views" if floors else "chance"
    told += f"; {level} reach{'' if floors else 'es'} {100 * floor:.0f} %"
    trials = stage.num_nodes
    if trials is None:
        return Finding(question, "open", f"{told}. How many records that is was not kept.")
    # Records as independent trials: both directions of a node are counted as one.
    low, _ = wilson(round(values[-1] * trials), trials) or (0.0, 1.0)
    if low > floor:
        return Finding(question, "good", f"{told}. That is above the floor.")
    return Finding(question, "bad", f"{told}. That is not surely above the floor.")


_FLAT, _CLEAR = 0.01, 0.05
"""Shares of a loss: within the first it neither rises nor falls; a rise above the second needs no
second measurement. Prechelt (1998), "Early stopping - but when?", stops at 5 % in the same way."""
_NOISE = 2.0
"""How many standard deviations a loss may differ from its lowest value by chance."""


def _learning(stages: Sequence[StageCurves], recipe: Mapping[str, Any]) -> Finding:
    """What the held-out loss says at the end of each stage."""
    question = "Still learning, or overfitting?"
    told, states = [], []
    for stage in stages:
        curve = stage.held_out["language_loss"]
        if len(curve.values) < 2:
            continue
        state, sentence = _end_of(curve)
        told.append(f"{stage.name}: {sentence}")
        states.append(state)
    if not told:
        held_out = (recipe.get("data") or {}).get("held_out_split")
        how = (
            "Set evaluate_every_steps in a stage"
            if held_out
            else "Name a held_out_split in the recipe's data"
        )
        return Finding(question, "open", f"Not measured: no loss on held-out records. {how}.")
    state = "bad" if "bad" in states else states[-1]
    return Finding(question, state, f"Loss on held-out records. {' '.join(told)}")


def _end_of(curve: Curve) -> tuple[Literal["good", "bad", "open"], str]:
    values, steps = curve.values, curve.steps
    lowest, last = min(values), values[-1]
    place = values.index(lowest)
    near = lowest + max(_FLAT * abs(lowest), _NOISE * _jitter(values))
    if last > near:
        way = f"from {lowest:.3f} at step {steps[place]:g} to {last:.3f} at the end"
        if last <= lowest * (1 + _CLEAR) and values[-2] <= near:
            return "open", f"one measurement that rises, {way}, is no trend yet."
        rises = f"it rises by {100 * (last / lowest - 1):.0f} %, {way}:"
        if place:
            return "bad", f"{rises} overfitting."
        return "bad", f"{rises} this stage has not learned, or overfits from its start."
    if len(values) == 2:
        fell = values[0] > last + near - lowest
        change = "it fell" if fell else "it hardly changed,"
        return "open", (
            f"{change} from {values[0]:.3f} to {last:.3f}; two measurements do not show "
            "where it goes."
        )
    if values[-2] > last + near - lowest:
        return "open", (
            f"it still falls, from {values[-2]:.3f} at step {steps[-2]:g} to {last:.3f} at the "
            "end: more steps may help."
        )
    noise = f", within its ups and downs since the lowest, {lowest:.3f} at step {steps[place]:g}"
    return "good", f"it has levelled off at {last:.3f}{noise if last > lowest else ''}."


def _jitter(values: Sequence[float]) -> float:
    """Standard deviation of a curve about its own trend, from second differences; their median
    lets no single jump decide. 0 below five values, which show none."""
    if len(values) < 5:
        return 0.0
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    # Of independent noise a second difference has 1 + 4 + 1 times the variance; 0.6745 is the
    # median of |z| of a normal z.
    return median(bends) / 0.6745 / 6**0.5


def _alignment_block(stage: StageCurves) -> list[Block]:
    """One row a pair of views, bare embeddings first; nothing where none was measured."""
    rows = []
    for name, label in LEVELS.items():
        values = stage.held_out[f"{name}_accuracy"].values
        if not values:
            continue
        floors = stage.held_out[f"{name}_unrelated"].values
        chance = [stage.chance] if stage.chance is not None else []
        cells = [
            f"{100 * each[-1]:.0f}" if each else "not measured"
            for each in (values[:1], values, floors, chance)
        ]
        small = "" if name == "matching" else "bare embeddings"
        rows.append(Row(label, cells, small, is_first=name == "image_answer"))
    if not rows:
        return []
    columns = ("At the start, %", "At the end, %", "Unrelated views, %", "Chance, %")
    nodes = f"{stage.num_nodes} held-out records. " if stage.num_nodes else ""
    about = (
        f"{nodes}How many find their own partner. Unrelated views are those of different records, "
        "at the end: what does not exceed them was found by the ruler and not in the embeddings. "
        "The barycenter contains each view, so that views find themselves in it."
    )
    title = f"{stage.name}: what finds its partner"
    return [Block(title, Table([Column(each) for each in columns], rows, "Pair"), about)]


def limits(entries: Sequence[Entry], is_toy: bool) -> list[str]:
    """Sentences of the section "what this does not show"; every run gets its own list."""
    vqa = [each for each in entries if each.task == "vqa"]
    sentences = []
    if is_toy:
        sentences.append(
            "The model is a toy: it was built from sizes in the recipe with random weights and "
            "started from no pretrained checkpoint. Its scores show that the path works, and say "
            "nothing about ExGra-Med at full size."
        )
    sentences += [sentence for entry in vqa for sentence in _about_the_numbers(entry)]
    if any(each.task == reports.NAME for each in entries):
        sentences.append(
            "Most of a report is what all reports say, so BLEU and ROUGE-L are high without a look "
            "at the picture, and hardly fall where a finding is denied that is there. The rules "
            "that read findings know a short list, in English, and no place, size or side."
        )
    if any("same_image_nearest" in (each.details.get("baselines") or {}) for each in vqa):
        sentences.append(
            "Images of the test questions also occur in the data set's own training split, so for "
            "a model that learned from it the score does not show how it does on new patients; the "
            f"baseline “{BASELINE_LABELS['same_image_nearest']}” is what that alone is worth."
        )
    if any(not each.details.get("baselines") for each in vqa):
        sentences.append("No baseline was computed, so the score lacks its best comparison.")
    if vqa and not any(each.task == "reliance" for each in entries):
        sentences.append(
            "Whether the model looks at the image is not shown: the same questions with blank, "
            "noise or shuffled images were not asked."
        )
    sentences += [
        "One run with one seed: how much another seed would change the score is not in the "
        "intervals, which cover the choice of images only.",
        "The legacy score repeats published rules, defects included; compare it only with numbers "
        "made by the same rules, the same split and the same denominators.",
        "It is no clinical evidence: short answers about teaching-file images do not show that "
        "a model is safe or useful for any patient.",
    ]
    return sentences


def _about_the_numbers(entry: Entry) -> list[str]:
    bounds = entry.score("strict", "average").interval
    if not bounds:
        return []
    half = (bounds[1] - bounds[0]) / 2
    # Two independent runs: their difference has the error of both.
    visible = smallest_difference(half / 1.96 * 2**0.5)
    scored = (entry.details.get("scorers") or {}).get("strict") or {}
    return [
        f"With {scored.get('num_open')} open and {scored.get('num_closed')} closed questions about "
        f"{scored.get('num_images')} images of {entry.label}, two separate models must differ by "
        f"about {visible:.0f} points of the average before this test would find it four times in "
        "five; comparing them question by question (exgra-med evaluate compare) can see less."
    ]


def _part(
    run: Path, recipe: dict[str, Any], entry: Entry, task: Task, name: str, data_folder: str | None
) -> Part:
    table = entry_table(entry, task)
    notes = list(task.notes(entry))
    if adapted := entry.engine.get("adapted"):
        notes.append(adapted_sentence(adapted, entry.engine["model"]))
    notes += basis_sentences(entry)
    block = Block(f"{task.title}: {entry.label}", table, task.about, notes)
    nav, further, details = (
        f"{task.title}, {entry.dataset}",
        task.further(entry),
        task.details(entry),
    )
    part = Part(name, nav, block, further, details)
    if entry.task not in ("vqa", reports.NAME):
        return part
    # A report without pictures is still a report.
    try:
        file = answers_file(run, entry)
        if not file.is_file():
            return replace(part, examples_problem="This run has no stored answers.")
        answers = stored_answers(run, entry)
        questions, images = answered_questions(run, entry, data_folder)
        if entry.task == reports.NAME:
            questions = [each for each in questions if reports.is_report(each)]
        pairing = pair(answers, questions)
    except (DataError, RunError, ScoreError) as error:
        problem = f"The questions are not at hand: {_within(run, error.message)}"
        return replace(part, examples_problem=problem)
    number = max(0, int((recipe.get("evaluation") or {}).get("num_report_images", 12)))
    seed = int(recipe.get("seed") or 0)
    if entry.task == "vqa":
        return replace(part, examples=pick_examples(pairing, images, number, seed))
    rows = list(range(len(questions)))
    random.Random(seed).shuffle(rows)
    texts = reports.report_texts(pairing)
    drawn = spread(rows, questions, number)
    return replace(part, reports=[report_card(questions[i], texts[i], images) for i in drawn])


def _score_tiles(entries: Sequence[Entry]) -> list[Tile]:
    tiles = []
    for entry in entries:
        for scorer in ("strict", "legacy"):
            if name := headline(entry, scorer):
                score = cell(entry.score(scorer, name))
                detail = f"95 % interval {score.bounds}" if score.bounds else "no interval"
                if counts := entry.counts():
                    detail += f"; {_answered(counts)}"
                label = "score" if name == "average" else HEADLINES[name]
                tiles.append(Tile(f"{scorer} {label}", f"{score.text} %", detail))
    return tiles


def _provenance(
    run: Path, recipe: dict[str, Any], record: dict[str, Any], entries: Sequence[Entry]
) -> list[tuple[str, str]]:
    rows = [("recipe", str(recipe.get("name") or run.name)), ("seed", str(recipe.get("seed", 0)))]
    if recipe.get("description"):
        rows.insert(1, ("the recipe's own words", str(recipe["description"])))
    for entry in entries:
        rows += _entry_provenance(run, entry)
    return rows + _flat({key: value for key, value in record.items() if key != "recipe"}, "")


def _entry_provenance(run: Path, entry: Entry) -> list[tuple[str, str]]:
    about = f"{entry.task}, {entry.label}"
    rows = []
    if entry.answers:
        file = answers_file(run, entry, next(iter(entry.answers)))
        rows += _flat(_whole(partial(read_document, facts_path(file)), {}, []), about)
    if entry.data_fingerprint:
        rows.append((f"{about}: sha256 of the data's manifest", entry.data_fingerprint))
    scored = (entry.details.get("scorers") or {}).get("strict") or {}
    if scored:
        versions = f"{scored.get('scorer_version')}, {scored.get('normaliser_version')}"
        bootstrap = scored.get("bootstrap") or {}
        rows += [
            (f"{about}: strict scorer, normaliser", versions),
            (
                f"{about}: intervals",
                f"95 %, {bootstrap.get('samples')} resamples of {scored.get('num_images')} images, "
                f"seed {bootstrap.get('seed')}",
            ),
        ]
    return rows


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
    """Nested facts as rows `a: b`, so that a record of any shape can be shown."""
    if isinstance(value, dict):
        return [
            row
            for key, item in value.items()
            for row in _flat(item, (f"{name}: " if name else "") + str(key).replace("_", " "))
        ]
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    return [(name, "–" if value is None else str(value))]


# Curves are inline SVG that takes its colours from the page, so light and dark both work: colours
# are drawn as these and then replaced by CSS variables of the page.
INK, GRID, ACCENT, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {
    INK: "var(--muted)",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}
_MAX_POINTS = 400
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "exgra-med",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture: `svg` is safe to put into a page as it is."""

    title: str
    note: str
    svg: str


def training_figures(stages: list[StageCurves]) -> list[Figure]:
    """Loss curves of every stage, and matching accuracies where they were measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return [_figure(stage, measure) for stage in stages for measure in CURVES if stage.has(measure)]


def _figure(stage: StageCurves, measure: str) -> Figure:
    plt, label = pyplot(), CURVES[measure]
    train, held_out = stage.train[measure], stage.held_out[measure]
    in_percent = measure.endswith("accuracy")
    chance = stage.chance if in_percent else None
    scale = 100.0 if in_percent else 1.0
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.0, 2.75), layout="constrained")
        if train.values:
            raw, smooth = _thinned(train), _smoothed(train)
            name = "training, with noise" if in_percent else "training"
            axes.plot(raw.steps, _times(raw, scale), color=ACCENT, alpha=0.28, linewidth=1)
            axes.plot(smooth.steps, _times(smooth, scale), color=ACCENT, linewidth=1.9, label=name)
        if held_out.values:
            name = "held out, without noise" if in_percent else "held out"
            points = {"marker": "o", "markersize": 4, "color": SECOND, "linewidth": 1.3}
            axes.plot(held_out.steps, _times(held_out, scale), label=name, **points)
        if chance is not None:
            axes.axhline(100 * chance, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"chance {100 * chance:.3g} %",
                (1, 100 * chance),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8.5,
            )
        floors = stage.held_out.get(measure.replace("_accuracy", "_unrelated"))
        if in_percent and floors is not None and floors.values:
            style = {"color": INK, "linewidth": 1.3, "linestyle": (0, (1, 1.5))}
            axes.plot(floors.steps, _times(floors, scale), label="unrelated views", **style)
        if in_percent:
            axes.set_ylim(-3, 103)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.set_xlabel("optimizer step")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1)
        svg = inline_svg(figure, f"{stage.name}-{measure}", label=f"{stage.name}: {label}")
        plt.close(figure)
    return Figure(f"{stage.name}: {label}", _note(train, held_out, in_percent), svg)


def _note(train: Curve, held_out: Curve, in_percent: bool) -> str:
    curve, where = (held_out, "held out") if len(held_out.values) > 1 else (train, "in training")
    ends = (curve.values[0], curve.values[-1])
    first, last = (f"{100 * end:.0f} %" if in_percent else f"{end:.3f}" for end in ends)
    return f"{first} at the start, {last} at the end ({where})"


def _times(curve: Curve, scale: float) -> list[float]:
    return [value * scale for value in curve.values]


def _thinned(curve: Curve) -> Curve:
    size = -(-len(curve.values) // _MAX_POINTS)
    if size <= 1:
        return curve
    thin = Curve()
    for start in range(0, len(curve.values), size):
        part = slice(start, start + size)
        steps, values = curve.steps[part], curve.values[part]
        thin.add(sum(steps) / len(steps), sum(values) / len(values))
    return thin


def _smoothed(curve: Curve) -> Curve:
    """Centred running mean over a fifteenth of the curve: follows it, without a start-up lag."""
    half = len(curve.values) // 30
    smooth = Curve()
    for index, step in enumerate(curve.steps):
        window = curve.values[max(0, index - half) : index + half + 1]
        smooth.add(step, sum(window) / len(window))
    return _thinned(smooth)


_DECIMALS = re.compile(r"(\d+\.\d\d)\d+")


def inline_svg(
    figure: Any, name: str, variables: Mapping[str, str] | None = None, label: str = ""
) -> str:
    """A figure, drawn under `STYLE`, as SVG for a page, which gives its colours, size and font.

    No other figure of the page may have its name. `variables`: further colours, and what the page
    calls them; `label`: what it shows, for those who do not see it; its name else.
    """
    stream = StringIO()
    figure.savefig(
        stream,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in (_VARIABLES | dict(variables or {})).items():
        svg = svg.replace(colour, variable)
    # Several pictures share one page, so their ids must not meet.
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Size, namespaces and font are the page's business.
    (box,) = re.findall(r"<svg [^>]*?viewBox=\"([^\"]*)\"", svg)
    head = f'<svg viewBox="{box}" role="img" aria-label="{escape(label or name, quote=True)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    # Of places alone: what is written between the tags stays as it is.
    return re.sub(r"<[^>]*>", lambda tag: _DECIMALS.sub(r"\1", tag[0]), svg).strip()


def pyplot() -> Any:
    """matplotlib, drawing into files.

    Raises:
        MissingExtraError: it is not installed.
    """
    import_extra("matplotlib", "The report", "report").use("svg")
    return import_extra("matplotlib.pyplot", "The report", "report")


_TEMPLATES = Path(__file__).parent / "templates"


def template_environment(escape: bool, *folders: Path) -> Any:
    """A jinja2 environment over the report's templates; `folders` are looked into first.

    For HTML `escape` turns markup in values into text.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "The report", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment


def template_text(name: str) -> str:
    """A file beside the templates, as it is."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def plain(text: Any) -> str:
    """Text for a Markdown table or line: one line, with nothing that Markdown would act on."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!~" else char for char in flat)


def write_report(run: Path, data_folder: str | None = None) -> Path:
    """Write `report.html` and `scores.csv` of a run; what is not whole in it is said on the page,
    and on standard error.

    The page needs no network, no other file and no script to be read; gives its path. A page that
    says all of this and more (a copy of a run without its answers was reported on) stays.

    Raises:
        RunError: the folder is no run.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    content = gather(run, data_folder)
    for problem in content.problems:
        remark(f"Note: {problem}")
    if _says_less(run, content):
        remark(
            "Note: report.html was kept. It has scores or answers that are not in the folder any "
            "more; remove it to write it without them."
        )
        return run / PAGE
    html = render_html(content)
    write_text(run / SCORES, scores_csv(content.entries))
    write_text(run / PAGE, html)
    return run / PAGE


PAGE, SCORES = "report.html", "scores.csv"


def _says_less(run: Path, content: Content) -> bool:
    """Whether there is a page that has every score of this one, and scores or answers besides."""
    if not ((run / PAGE).is_file() and (run / SCORES).is_file()):
        return False
    stored, page = (
        (run / name).read_text(encoding="utf-8", errors="replace") for name in (SCORES, PAGE)
    )
    before, now = set(stored.splitlines()), set(scores_csv(content.entries).splitlines())
    has_answers = any(part.examples or part.reports for part in content.parts)
    return now < before or (now == before and not has_answers and '<article class="card' in page)


def render_html(content: Content) -> str:
    """The page. Whatever a model or a data set says is shown as text, never as markup."""
    template = template_environment(escape=True).get_template("report.html.j2")
    figures = training_figures(content.stages)
    return template.render(report=content, figures=figures, css=PAGE_CSS)

"""How scores are shown: what a task says of itself, and tables of text made from that.

One form serves the report, the web page, model cards, documentation and the terminal. A table is
built from an entry of `results.json`, so a new measure, task or engine needs nothing here.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from typing import Any, Literal

from exgra_med.evaluation.answers import counts_sentence, file_sentence
from exgra_med.evaluation.measures import Measure, measures
from exgra_med.evaluation.results import Entry, Score


@dataclass(frozen=True, slots=True)
class Cell:
    """A score with its interval; `value` is None where there is nothing to count."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = "%"

    @property
    def text(self) -> str:
        """`52.3`, or a dash."""
        return "–" if self.value is None else self._number(self.value)

    @property
    def signed(self) -> str:
        """`+5.1`, `−0.4` or a dash."""
        return "–" if self.value is None else self._number(self.value, "+")

    @property
    def bounds(self) -> str:
        """`45.9 to 58.8`, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"{self._number(self.low)} to {self._number(self.high)}"

    def _number(self, value: float, sign: str = "") -> str:
        """One decimal (three without a unit) with a true minus; what rounds to zero has no sign."""
        digits = 1 if self.unit == "%" else 3
        rounded = round(value, digits) or 0.0
        return f"{rounded:{sign if rounded else ''}.{digits}f}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of numbers."""

    title: str
    scale: bool = False
    """Whether its values are also drawn between 0 and 100."""
    signed: bool = False
    """Whether its values are differences."""
    is_text: bool = False
    """Whether it holds sentences, which are broken into lines."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a label and a cell (or a text) for each column."""

    label: str
    cells: Sequence[Cell | str]
    small: str = ""
    """Below the label."""
    is_first: bool = False
    """Whether it stands out."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below columns."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    head: str = ""
    """Above the labels."""


@dataclass(frozen=True, slots=True)
class Block:
    """A table with what is said about it."""

    title: str
    table: Table
    under: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """How the scores of a task are shown."""

    name: str
    """As in `results.json`."""
    title: str
    """Heading of its part of a report."""
    about: str
    """A sentence or two below the heading: what the numbers mean."""
    measures: Callable[[], list[Measure]]
    """What is measured, in the order of the table."""
    variants: Mapping[str, str]
    """Variant -> label, in the order of the table; others are shown by their own name."""
    rows: Literal["measures", "variants"]
    """What a row of the table is; the other is a column."""
    differences: bool = False
    """Whether measures that comparisons show are differences here: with a sign, and no place
    between 0 and 100."""
    notes: Callable[[Entry], list[str]]
    """Sentences that stand below the table of an entry."""
    further: Callable[[Entry], list[Block]] = lambda _: []
    """What stands beside the scores of an entry, such as baselines."""
    details: Callable[[Entry], list[Block]] = lambda _: []
    """The same scores for parts of an entry, and what else only some readers want."""


_TASKS = {
    "vqa": "exgra_med.evaluation.tasks.vqa",
    "reliance": "exgra_med.evaluation.tasks.reliance",
    "multiple-choice": "exgra_med.evaluation.tasks.multiple_choice",
    "chat": "exgra_med.evaluation.tasks.chat",
    "reports": "exgra_med.evaluation.tasks.reports",
}


def tasks() -> dict[str, Task]:
    """Every task by name, in the order of a report."""
    modules: dict[str, Any] = {name: import_module(module) for name, module in _TASKS.items()}
    return {name: module.TASK for name, module in modules.items()}


def bounded(value: float | None, bounds: Sequence[float] | None, unit: str = "%") -> Cell:
    """A value with its interval, where there is one."""
    low, high = bounds or (None, None)
    return Cell(value, low, high, unit)


def cell(score: Score | Mapping[str, Any] | None, unit: str = "%") -> Cell:
    """A score of an entry, or of its details."""
    if score is None:
        return Cell(None, unit=unit)
    if isinstance(score, Score):
        score = score.model_dump(mode="json")
    return bounded(score["value"], score.get("interval"), unit)


def entry_table(entry: Entry, task: Task) -> Table:
    """The scores of one entry."""
    if task.rows == "variants":
        return _variant_table([entry], task)
    variants = _variants(entry, task)
    known = _known(task.measures(), entry.scores.values())
    rows = []
    for place, measure in enumerate(known):
        cells = [cell(entry.scores[each].get(measure.name), measure.unit) for each in variants]
        if len(variants) == 2:
            one, other = (each.value for each in cells)
            cells.append(Cell(None if one is None or other is None else other - one))
        small = measure.label if measure.mean_of else ""
        counts = [
            scores[measure.name].count for scores in entry.scores.values() if measure.name in scores
        ]
        rows.append(Row(_title(measure), [*cells, _shown(counts[0])], small, is_first=place == 0))
    columns = [
        Column(f"{_upper(task.variants.get(variant, variant))}, %", scale=place == 0)
        for place, variant in enumerate(variants)
    ]
    if len(variants) == 2:
        columns.append(Column("Difference", signed=True))
    return Table([*columns, Column("Questions")], rows, "Measure")


def _variants(entry: Entry, task: Task) -> list[str]:
    """In the order of the task; what it does not know comes after that."""
    return [each for each in dict.fromkeys((*task.variants, *entry.scores)) if each in entry.scores]


def _variant_table(entries: Sequence[Entry], task: Task) -> Table:
    """A row for each variant; of several entries it begins with the data set."""
    known = _known(task.measures(), [each for entry in entries for each in entry.scores.values()])
    rows = [
        Row(
            ("" if len(entries) == 1 else f"{entry.label}: ") + task.variants.get(variant, variant),
            [cell(entry.scores[variant].get(each.name), each.unit) for each in known]
            + [_shown(_first_count(entry.scores[variant]))],
        )
        for entry in entries
        for variant in _variants(entry, task)
    ]
    columns = [
        Column(
            _title(each),
            scale=place == 0 and not task.differences,
            signed=task.differences and "compare" in each.shown,
        )
        for place, each in enumerate(known)
    ]
    return Table([*columns, Column("Questions")], rows)


def overview_table(entries: Sequence[Entry]) -> Table:
    """The strict scores of several VQA entries, one a row."""
    chosen = measures("compare")
    rows = [
        Row(
            each.label,
            [cell(each.score("strict", measure.name), measure.unit) for measure in chosen]
            + [cell(each.score("legacy", chosen[0].name))]
            + [_shown(each.score("strict", chosen[0].name).count)],
            is_first=place == 0,
        )
        for place, each in enumerate(entries)
    ]
    return Table([*compared_columns(chosen), Column("Questions")], rows, "Data set")


def group_table(groups: Mapping[str, Mapping[str, Any]], chosen: Sequence[Measure]) -> Table:
    """Scores of parts of an entry: group -> measure -> score."""
    known = _known(chosen, groups.values())
    rows = [
        Row(
            group,
            [cell(scores.get(each.name), each.unit) for each in known]
            + [" + ".join(_shown((scores.get(each.name) or {}).get("count")) for each in known)],
        )
        for group, scores in groups.items()
    ]
    return Table([*(Column(_title(each), scale=True) for each in known), Column("Questions")], rows)


def scores_csv(entries: Iterable[Entry]) -> str:
    """Every score of every entry, one a line, for spreadsheets."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    scored = ("dataset", "split", "task", "variant", "measure", "value", "low", "high", "questions")
    behind = ("asked", "answered", "missing", "empty", "unparsed", "answers", "sha256")
    writer.writerow([*scored, *behind])
    for entry in entries:
        named: dict[str, Mapping[str, Any]] = dict(entry.scores)
        for name, baseline in (entry.details.get("baselines") or {}).items():
            for scorer, scores in baseline["scores"].items():
                named[f"baseline {name}, {scorer}"] = scores
        strict = (entry.details.get("scorers") or {}).get("strict") or {}
        for name, part in (strict.get("existence") or {}).items():
            named[f"strict, existence, {name}"] = part["scores"]
        if same := strict.get("same_questions"):
            named["strict, same questions"] = {"changed": same["changed"]}
        for judge, found in (entry.details.get("judges") or {}).items():
            for groups in (found.get("groups") or {}).values():
                named |= {f"{judge}, {group}": scores for group, scores in groups.items()}
        for variant, scores in named.items():
            # A baseline answers every question itself, and a reliance has a file for each variant.
            is_baseline = variant.startswith("baseline ")
            basis = [None] * len(behind) if is_baseline else basis_of(entry, variant)
            for measure, score in scores.items():
                score = Score.model_validate(score)
                low, high = score.interval or (None, None)
                about = [entry.dataset, entry.split, entry.task, variant, measure]
                writer.writerow([*about, score.value, low, high, score.count, *basis])
    return stream.getvalue()


def basis_of(entry: Entry, variant: str) -> list[Any]:
    """`asked, answered, missing, empty, unparsed, answers, sha256` behind a variant's scores; None
    for what the version that scored it did not keep, and where no answers stand behind it."""
    file = _file_behind(entry, variant)
    counts = None if file is None else entry.counts(variant)
    numbers: list[Any] = [None] * 5
    # Likelihoods of options are no answers, and nothing of them is empty or unparsed.
    if counts and not variant.startswith("likelihood"):
        rest = [counts[name] for name in ("missing", "empty", "unparsed")]
        numbers = [counts["questions"], counts["questions"] - counts["missing"], *rest]
    return [*numbers, entry.answers.get(file or ""), entry.sha256(file or "")]


def _file_behind(entry: Entry, variant: str) -> str | None:
    """What a variant was asked, as `answers` has it: named as the variant begins, or the only one
    of an entry whose variants are ways to score it."""
    named = [name for name in entry.answers if variant.startswith(name)]
    return named[0] if named else "questions" if "questions" in entry.answers else None


def basis_sentences(entry: Entry) -> list[str]:
    """Which files of answers stand behind the scores of an entry, with their digests."""
    several = len(entry.answers) > 1
    return [
        (f"{_upper(asked)}. " if several else "") + file_sentence(file, entry.sha256(asked))
        for asked, file in entry.answers.items()
    ]


def score_rows(
    scores: Mapping[str, Any], chosen: Sequence[Measure] | None = None
) -> list[tuple[str, str, str, str]]:
    """Rows (measure, value, interval, questions) of one set of scores, for the terminal.

    `chosen`: the measures of the task; those of short questions where absent.
    """
    rows = []
    for measure in _known(measures() if chosen is None else chosen, [scores]):
        shown = cell(scores[measure.name], measure.unit)
        if shown.value is not None:
            count = _shown(scores[measure.name]["count"])
            rows.append((_title(measure), shown.text, shown.bounds or "–", count))
    return rows


def terminal_table(entries: Sequence[Entry], task: Task) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows of entries of one task, as text for the terminal."""
    about = entries[0].label
    if len(entries) == 1:
        shown = entry_table(entries[0], task)
    else:
        about = f"{len(entries)} data sets"
        is_vqa = "strict" in task.variants
        shown = overview_table(entries) if is_vqa else _variant_table(entries, task)
    columns = [shown.head, *(column.title for column in shown.columns)]
    columns.insert(2, "95 % interval")
    rows = []
    for row in shown.rows:
        texts = [row.label]
        for column, each in zip(shown.columns, row.cells, strict=True):
            is_cell = isinstance(each, Cell)
            texts.append((each.signed if column.signed else each.text) if is_cell else each)
        first = row.cells[0]
        texts.insert(2, (first.bounds or "–") if isinstance(first, Cell) else "–")
        rows.append(texts)
    return f"{task.title}: {about}", columns, rows


def comparison_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a result of `compare`, for the terminal."""
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        difference = bounded(row["difference"], row["interval"], row["unit"])
        both = [Cell(row[run], unit=row["unit"]).text for run in ("first", "second")]
        tested = (difference.signed, difference.bounds or "–", f"{row['p_holm']:.3f}")
        rows.append((row["label"], *both, *tested, row["conclusion"]))
    return rows


def behind_sentences(result: Mapping[str, Any]) -> list[str]:
    """What stands behind the numbers of each run of a result of `compare`."""
    return [
        f"{each['name']}, {counts_sentence(each)}"
        + (f" {file_sentence(each['file'], each['sha256'])}" if each["file"] else "")
        for each in result["basis"]
    ]


MOST_DIFFERING = 12


def differing_sentences(result: Mapping[str, Any]) -> list[str]:
    """What differs between the runs of a result of `compare`, a sentence each; or that nothing."""
    found = result["differing"]
    if not found:
        # Of bare files of answers there is neither recipe nor record.
        known = "their recipes, in their training data or in how their answers were made"
        return [f"No difference is known in {known}."]
    lines = [
        f"{each['path']}: {_value(each['first'])} in {result['runs'][0]}, "
        f"{_value(each['second'])} in {result['runs'][1]}"
        for each in found[:MOST_DIFFERING]
    ]
    more = len(found) - MOST_DIFFERING
    return [*lines, f"{more} more differences are in --json"] if more > 0 else lines


_MOST_DISAGREEMENTS = 10


def disagreement_sentences(result: Mapping[str, Any]) -> list[str]:
    """The questions on which the runs of a result of `compare` disagree, the first ones in full."""
    found, alike = result["disagreements"], result["num_other_words"]
    number = result["num_compared"]
    rest = f"On {alike} of {number} questions their answers differ and score the same."
    behind = [rest] if alike else []
    if not found:
        return [f"They score differently on none of {number} questions.", *behind]
    one, other = result["runs"]
    lines = [f"They score differently on {len(found)} of {number} questions:"]
    for each in found[:_MOST_DISAGREEMENTS]:
        sides = ", ".join(
            f"{name} “{_value(each[side])}” ({100 * each[f'{side}_score']:.0f} %)"
            for name, side in ((one, "first"), (other, "second"))
        )
        pictures = f" ({', '.join(each['images'])})" if each["images"] else ""
        asked = f"{each['id']}{pictures}: {each['question']} “{_value(each['reference'])}”"
        lines.append(f"  {asked}; {sides}")
    more = len(found) - _MOST_DISAGREEMENTS
    return [*lines, *([f"  {more} more are in --json"] if more > 0 else []), *behind]


# A result of `explain`: every published number of one file of answers.

IN_OUR_WORDS = "asked in our words, not the published ones"
"""Of a number that a judge decides."""
_MARK = " *"
"""Behind the name of such a number."""


def protocol_table(result: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and rows of the main numbers that are stated for the data set and could be computed,
    and of every one that meets the claim. `wording_sentences` say what a mark means."""
    claim = result["claim"]
    columns = ["number", "percent", "95 % interval", "questions"]
    if claim:
        columns.append(f"is it {claim['text']}?")
    rows = []
    for each in result["numbers"]:
        if not each["is_stated"] or each["value"] is None:
            continue
        if not each["is_main"] and not each["meets_claim"]:
            continue
        shown = bounded(each["value"], each["interval"], "%")
        name = each["name"] + (_MARK if each["words"] == "own" else "")
        row = [name, shown.text, shown.bounds or "–", str(each["count"])]
        if claim:
            low, high = each["interval"] or (each["value"], each["value"])
            inside = "in the interval" if low <= claim["percent"] <= high else ""
            row.append("yes" if each["meets_claim"] else inside)
        rows.append(tuple(row))
    return columns, rows


def wording_sentences(result: Mapping[str, Any]) -> list[str]:
    """Whose words the judges were asked in; nothing where none was asked."""
    names: dict[str, list[str]] = {}
    for each in result["numbers"]:
        if each["is_stated"] and each["words"]:
            names.setdefault(each["words"], []).append(each["name"])
    lines = []
    if names.pop("own", None):
        lines.append(f"{_MARK.strip()} {_upper(IN_OUR_WORDS)} (--judge-request).")
    return lines + [
        f"{', '.join(found)}: asked in the words of the file with SHA-256 {words}."
        for words, found in names.items()
    ]


def lacking_sentences(result: Mapping[str, Any]) -> list[str]:
    """Which stated numbers could not be computed, and why; a sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for each in result["numbers"]:
        if each["is_stated"] and each["value"] is None:
            reasons.setdefault(each["missing"], []).append(each["name"])
    return [
        f"Not computed: {', '.join(names)}. Reason: {reason}." for reason, names in reasons.items()
    ]


def difference_table(
    result: Mapping[str, Any], causes: Sequence[str]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and rows of what lies between the first number and each of the others, in points."""
    found = result["differences"]
    own = [step["cause"] for each in found for step in each["steps"]]
    known = [cause for cause in causes if cause in own]
    known += [cause for cause in dict.fromkeys(own) if cause not in known]
    rows: list[tuple[str, ...]] = []
    for each in found:
        points: dict[str, float] = {}
        for step in each["steps"]:
            points[step["cause"]] = points.get(step["cause"], 0.0) + step["points"]
        cells = [Cell(points.get(cause)).signed for cause in known]
        rows.append((each["second"], Cell(each["value"]).signed, *cells))
    return ["number", "difference", *known], rows


_MOST_EXPLAINED = 8


def step_sentences(difference: Mapping[str, Any]) -> list[str]:
    """The steps between two numbers, each with its first questions in full."""
    first, second = difference["first"], difference["second"]
    lines = [f"From {first} to {second}: {Cell(difference['value']).signed} points."]
    if not difference["steps"]:
        return [*lines, "No question counts differently in them."]
    for step in difference["steps"]:
        asked = step["questions"]
        lines.append(
            f"{_upper(step['cause'])}: {Cell(step['points']).signed} points, {len(asked)} questions"
        )
        lines.append(f"  {first}: {step['first']}")
        lines.append(f"  {second}: {step['second']}")
        for each in asked[:_MOST_EXPLAINED]:
            hidden = f" ({', '.join(each['words'])})" if each["words"] else ""
            lines.append(
                f"    {each['id']}: {each['question']} “{_value(each['reference'])}”; said "
                f"“{_value(each['answer'])}”, {each['sign']}{hidden}: {_counted(each['before'])} "
                f"-> {_counted(each['after'])}"
            )
        more = len(asked) - _MOST_EXPLAINED
        lines += [f"    {more} more are in --json"] if more > 0 else []
    return lines


def _counted(value: float | None) -> str:
    return "not counted" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def _value(value: Any) -> str:
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def compared_columns(chosen: Sequence[Measure]) -> list[Column]:
    """Columns of a table that shows the strict measures of comparisons, and the legacy average."""
    columns = [
        Column(f"Strict {_title(each).lower()}" if place == 0 else _title(each), scale=place == 0)
        for place, each in enumerate(chosen)
    ]
    return [*columns, Column(f"Legacy {chosen[0].name.replace('_', ' ')}")]


def _known(chosen: Sequence[Measure], scored: Iterable[Mapping[str, Any]]) -> list[Measure]:
    """The measures that have a value somewhere; of a package that is gone, by their bare names."""
    values: dict[str, bool] = {}
    for scores in scored:
        for name, score in scores.items():
            value = score.value if isinstance(score, Score) else score["value"]
            values[name] = values.get(name, False) or value is not None
    named = {each.name for each in chosen} | {each.name for each in measures()}
    gone = [Measure(name, name.replace("_", " "), "all") for name in values if name not in named]
    return [each for each in (*chosen, *gone) if values.get(each.name)]


def _first_count(scores: Mapping[str, Score]) -> int | None:
    return next((each.count for each in scores.values() if each.count is not None), None)


def _title(measure: Measure) -> str:
    """Short, for the head of a column."""
    return _upper(measure.name.replace("_", " ") if measure.mean_of else measure.label)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shown(count: int | None) -> str:
    return "–" if count is None else str(count)

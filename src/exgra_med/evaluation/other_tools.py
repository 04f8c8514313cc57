"""Files of answers that other tools wrote, recognised by what they hold.

    VLMEvalKit   a table (.xlsx, .tsv, .csv) or a JSON list: `index, question, answer, prediction`
    lmms-eval    `*_samples_*.jsonl`: `doc_id, target, input, filtered_resps` (earlier with `doc`),
                 and at first one JSON object a task, with the rows under `logs`
    MedEvalKit   `results.json`: a list of `question, answer, response`, without ids
    LLaVA-Med    `question_id, prompt, text`, which `answers.py` reads as it reads our own

Of each row is kept what the model said, and what the row says of the question: `question_matching`
finds out which one it is. Neither the name of a file nor its ending says anything here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from exgra_med.data.sources.tables import ZIP, read_any_table
from exgra_med.data.sources.values import plain_text
from exgra_med.errors import DataError
from exgra_med.evaluation.answers import Asked, Prediction, PredictionFile

# What a column is, under the names that these tools and their neighbours give it.
_SAID = (
    "prediction", "response", "model_answer", "model_response", "model_output", "predicted_answer",
    "pred", "predict", "output", "generated_text", "generated_answer", "text",
)  # fmt: skip
_QUESTION = ("question",)
_PROMPT = ("prompt", "input", "query")
_REFERENCE = ("answer", "target", "gt_answer", "ground_truth", "reference", "label")
_PICTURE = ("image_path", "img_name", "image_name", "image", "images", "image_file")
_ID = ("id", "question_id", "qid", "index", "doc_id")
_LISTS = ("logs", "samples", "results", "predictions", "answers", "outputs", "data")
"""Where an object that is a whole file has its rows."""
_LONGEST_PICTURE_NAME = 1024
"""What is longer is a picture in base64, which names nothing."""
NO_ANSWER = "Failed to obtain answer"
"""VLMEvalKit writes this, with more behind it, where the model could not be asked."""
_ROWS = "A file of answers has one row a question, with what the model said."


def read_other(path: Path, value: Any) -> PredictionFile:
    """Answers from the decoded JSON of a whole file, whatever tool wrote it.

    Args:
        path: the file, for messages.
        value: a list of rows, or an object around one.

    Raises:
        DataError: there are no answers in it; says what is there.
    """
    rows = value if isinstance(value, list) else _unwrapped(value, path)
    return _answers((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def read_other_lines(lines: Iterable[tuple[str, Any]]) -> PredictionFile:
    """Answers from JSON Lines: where each stands, and its row."""
    return _answers(lines)


def read_other_table(path: Path) -> PredictionFile:
    """Answers from an Excel file, or from text with separators.

    Raises:
        DataError: it is no table, or no column holds what a model said.
        MissingExtraError: it is an Excel file, and what reads it is not installed.
    """
    try:
        rows = [*read_any_table(path, (*_ID, *_QUESTION, *_REFERENCE, *_SAID))]
    except DataError as error:
        if "--sheet" not in error.hint:
            raise
        raise DataError(
            error.message, "Save the sheet with the answers as a file of its own."
        ) from error
    if not rows:
        raise DataError(f"{path}: a table without rows.", _ROWS)
    return _answers(rows)


def is_table(start: bytes) -> bool:
    """Whether a file that begins so is an Excel file, or a table whose head names our columns.

    >>> is_table(b'"index"\\t"question"\\t"prediction"\\n'), is_table(b"nonsense\\n")
    (True, False)
    """
    if start.startswith(ZIP):
        return True
    line = start.partition(b"\n")[0].decode("utf-8", "replace")
    names = {name.strip(" '\"\r").lower() for name in re.split(r"[,;\t|]", line)}
    return len(names) > 1 and not names.isdisjoint((*_SAID, *_QUESTION))


def _answers(rows: Iterable[tuple[str, Any]]) -> PredictionFile:
    predictions: list[Prediction] = []
    oddities: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    for number, (where, row) in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{where}: not an object.", _ROWS)
        row = {str(name).strip().lower(): value for name, value in row.items()}
        forms[_form(row)] += 1
        found = _prediction(row, where, number, oddities)
        if found is not None:
            predictions.append(found)
    return PredictionFile(predictions, oddities, forms.most_common(1)[0][0] if forms else "")


def _form(row: Mapping[str, Any]) -> str:
    """The tool whose columns these are; "another tool" where it is none that is known."""
    if "doc_id" in row:
        return "lmms-eval"
    if "index" in row and "prediction" in row:
        return "VLMEvalKit"
    if "response" in row and "answer" in row:
        return "MedEvalKit"
    if "question_id" in row and "prompt" in row:
        return "LLaVA-Med"
    return "another tool"


def _prediction(
    row: Mapping[str, Any], where: str, number: int, oddities: Counter[str]
) -> Prediction | None:
    document = row.get("doc")
    inner = [row, document if isinstance(document, dict) else {}]
    # lmms-eval puts what a task's rule found into the metrics, ids and references among it.
    inner += [each for each in row.values() if isinstance(each, dict) and each is not document]
    said = _said(row, where)
    if said is None:
        oddities["answer_is_null"] += 1
    text = plain_text(said, f"{where}: the answer")
    if text.startswith(NO_ANSWER):
        oddities["tool_got_no_answer"] += 1
        return None
    oddities["prediction_not_text"] += not isinstance(said, str | None)
    names = [name for each in inner for name in _names(each)]
    asked = Asked(
        question=_first(inner, _QUESTION),
        answer=_first(inner, _REFERENCE),
        images=_pictures(inner),
        names=tuple(dict.fromkeys(names)),
    )
    name = names[0] if names else f"row {number + 1}"
    return Prediction(name, text, prompt=_first(inner, _PROMPT), asked=asked)


def _said(row: Mapping[str, Any], where: str) -> Any:
    """What the model said in a row; None where the field is there and empty."""
    if "filtered_resps" in row or "resps" in row:
        return _one(row.get("filtered_resps", row.get("resps")), where)
    known = [name for name in _SAID if name in row]
    # Beside its own column, `text` is the question, as in LLaVA-Med's files of questions.
    known = [name for name in known if name != "text" or len(known) == 1]
    if len(known) > 1:
        raise DataError(
            f"{where}: both {known[0]!r} and {known[1]!r} may be what the model said.",
            "Keep one of them.",
        )
    if known:
        return row[known[0]]
    shown = ", ".join(map(repr, list(row)[:6]))
    if any(name in row for name in _QUESTION) and any(name in row for name in _REFERENCE):
        raise DataError(
            f"{where}: a question with its reference answer ({shown}), and nothing that a model "
            "said.",
            "Give the file of answers first, then the reference.",
        )
    raise DataError(
        f"{where}: no column is known to hold what a model said ({shown}).",
        f"Call it `prediction`. Known are {', '.join(_SAID)}.",
    )


def _one(value: Any, where: str) -> Any:
    """The one reply in lists around it, as lmms-eval writes them."""
    while isinstance(value, list):
        texts = [each for each in value if each is not None]
        inner = [part for each in texts for part in (each if isinstance(each, list) else [each])]
        if any(isinstance(part, bool) for part in inner):
            # A pair of a log-likelihood, and whether greedy decoding would have written it.
            raise DataError(
                f"{where}: likelihoods of options, and no answer in words.",
                "Run the task with generate_until.",
            )
        if len({str(each) for each in texts}) > 1:
            raise DataError(
                f"{where}: {len(texts)} different replies to one question.",
                "Keep one reply a question.",
            )
        value = texts[0] if texts else ""
    return value


def _names(row: Mapping[str, Any]) -> list[str]:
    found = []
    for key in _ID:
        value = row.get(key)
        if isinstance(value, float) and value == int(value):
            value = int(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            found.append(str(value).strip())
    return found


def _first(rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> str | None:
    """The first text, or number, under one of the names."""
    for row in rows:
        for name in names:
            value = row.get(name)
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                text = plain_text(value, name)
                if text:
                    return text
    return None


def _pictures(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    for row in rows:
        for key in _PICTURE:
            value = row.get(key)
            if isinstance(value, str) and value.startswith("["):
                # A list in a cell of a table.
                names = value.strip("[] ").split(",")
                value = [name.strip(" '\"") for name in names]
            names = value if isinstance(value, list) else [value]
            texts = [each.strip() for each in names if isinstance(each, str) and each.strip()]
            if texts and all(len(each) <= _LONGEST_PICTURE_NAME for each in texts):
                return tuple(texts)
    return ()


def _unwrapped(value: Any, path: Path) -> list[Any]:
    """The rows in an object that is a whole file."""
    if not isinstance(value, dict):
        raise DataError(f"{path}: neither a list nor an object.", _ROWS)
    shown = ", ".join(map(repr, list(value)[:6])) or "nothing"
    if "results" in value and isinstance(value["results"], dict) and "samples" not in value:
        raise DataError(
            f"{path}: lmms-eval's scores ({', '.join(list(value['results'])[:3])}), not answers.",
            "The answers are in the files `*_samples_*.jsonl` beside it (--log_samples).",
        )
    if "total metrics" in value:
        raise DataError(
            f"{path}: MedEvalKit's scores, not answers.",
            "The answers are in `results.json` beside it.",
        )
    samples = value.get("samples")
    if isinstance(samples, dict):
        if len(samples) != 1:
            raise DataError(
                f"{path}: answers to several tasks: {', '.join(list(samples)[:6])}.",
                "Put the rows of one task into a file of their own.",
            )
        (samples,) = samples.values()
        value = {"samples": samples}
    for name in _LISTS:
        rows = value.get(name)
        if name == "data" and isinstance(value.get("columns"), list) and isinstance(rows, list):
            return [dict(zip(value["columns"], row, strict=False)) for row in rows]
        if isinstance(rows, list) and rows and all(isinstance(each, dict) for each in rows):
            return rows
    inner = list(value.values())
    if inner and all(isinstance(each, dict) for each in inner):
        if any(name in value for name in _SAID):
            # As pandas writes a table with to_json(): column -> row -> value.
            rows = {row: None for each in inner for row in each}
            return [{name: each.get(row) for name, each in value.items()} for row in rows]
        return [{"id": name} | each for name, each in value.items()]
    if inner and all(isinstance(each, list) for each in inner):
        if any(name in value for name in _SAID) and len({len(each) for each in inner}) == 1:
            return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
    elif inner and all(isinstance(each, str) for each in inner) and len(inner) > 1:
        return [{"id": name, "prediction": said} for name, said in value.items()]
    raise DataError(f"{path}: one object with {shown}, and no rows with answers in it.", _ROWS)

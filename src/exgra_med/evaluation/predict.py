"""Records -> answers on disk: batched by length, resumable to the single answer, any engine.

An engine is a function from a batch of records to as many answers; `model_answerer` makes one of a
model of this project, others plug in the same way.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exgra_med.data.chat_template import user_text
from exgra_med.data.images import ImageFolder
from exgra_med.data.json_files import read_json
from exgra_med.data.record import Record
from exgra_med.errors import DataError, RunError
from exgra_med.evaluation.predictions import Prediction, PredictionWriter, read_predictions
from exgra_med.evaluation.sharding import join_parts, launched_processes
from exgra_med.files import write_text
from exgra_med.recipe.schema import EvaluationSettings

if TYPE_CHECKING:
    from PIL import Image

    from exgra_med.model.bundle import Bundle


class Answer(Protocol):
    """What an engine says about one question."""

    @property
    def text(self) -> str:
        """The answer, cleaned of the end marker."""

    @property
    def num_tokens(self) -> int:
        """New tokens it took."""

    @property
    def finish_reason(self) -> str:
        """`stop`, or `length` where the token limit ended it."""


Answerer = Callable[[Sequence[Record]], Sequence[Answer | None]]
"""One answer a record; None where none could be had, which leaves the question open."""
Progress = Callable[[int, int], None]


def answer_records(
    answer: Answerer,
    records: Sequence[Record],
    out: Path,
    batch_size: int,
    about: dict[str, Any],
    progress: Progress | None = None,
) -> int:
    """Answer every record that has no answer on disk yet; see `complete`.

    Args:
        answer: the engine.
        records: questions to answer, ids unique.
        out: JSON Lines file; a file from an earlier, unfinished call is continued.
        batch_size: records asked at once.
        about: facts that decide the answers.
        progress: called with (answered, all).

    Returns:
        Answers that were made now.
    """

    def predictions(batch: Sequence[Record]) -> list[Prediction]:
        return [
            Prediction(
                id=record.id,
                text=each.text,
                finish_reason=each.finish_reason,
                prompt=shown_question(record),
                num_tokens=each.num_tokens,
            )
            for record, each in zip(batch, answer(batch), strict=True)
            if each is not None
        ]

    return complete(predictions, records, out, batch_size, about, progress)


def complete(
    make: Callable[[Sequence[Record]], list[Prediction]],
    records: Sequence[Record],
    out: Path,
    batch_size: int,
    about: dict[str, Any],
    progress: Progress | None = None,
) -> int:
    """Make every prediction that is not on disk yet.

    Records of similar length share a batch. Each batch is on disk before the next one begins. Under
    `accelerate launch` the processes share the work; see `sharding`.

    Args:
        make: predictions of a batch of records, at most one each.
        records: what to predict for, ids unique.
        out: JSON Lines file; a file from an earlier, unfinished call is continued.
        batch_size: records of one batch.
        about: JSON-ready facts that decide the predictions (checkpoint, template, decoding, data);
            kept beside `out`, and a file made under other facts is refused.
        progress: called with (done, all).

    Returns:
        Predictions that this process made now.

    Raises:
        RunError: `out` holds predictions made under other facts.
        DataError: two records have the same id.
        WriteError: the disk is full; whole lines are kept.
    """
    ids = [record.id for record in records]
    if len(set(ids)) < len(ids):
        raise DataError(f"{out.name}: record ids repeat.", "Every question needs its own id.")
    processes = launched_processes()
    if processes.is_first:
        _same_facts(out, about)
        join_parts(out)
    processes.wait()
    stored = read_predictions(out).predictions if out.exists() else []
    done = {each.id for each in stored}
    pending = [record for record in records if record.id not in done]
    # An image is hundreds of tokens: with and without do not share a batch where it can be helped.
    pending.sort(key=lambda record: (len(record.images), len(shown_question(record))))
    own = pending[processes.index :: processes.count]
    num_done = len(records) - len(pending)
    if progress:
        progress(num_done, len(records))
    with PredictionWriter(processes.part(out)) as writer:
        for start in range(0, len(own), batch_size):
            batch = own[start : start + batch_size]
            writer.append(make(batch))
            num_done += len(batch) * processes.count
            if progress:
                progress(min(num_done, len(records)), len(records))
    processes.wait()
    if processes.is_first:
        join_parts(out)
    processes.wait()
    return len(own)


def shown_question(record: Record) -> str:
    """The question as the model reads it, options included, image tokens left out."""
    return user_text(record.question, 0, record.meta.get("options"))


def model_answerer(
    bundle: "Bundle", image_folder: ImageFolder, template: str, max_new_tokens: int
) -> Answerer:
    """Greedy answers of a model of this project.

    Args:
        bundle: model and processor, on the device that answers.
        image_folder: where the records' images lie.
        template: name of the chat template, the one of training.
        max_new_tokens: longest answer in tokens.
    """
    from exgra_med.data.encode import encode_prompt
    from exgra_med.model.generate import generate

    def answer(records: Sequence[Record]) -> Sequence[Answer]:
        prompts = [
            encode_prompt(
                bundle.tokenizer,
                record.turns[:1],
                template,
                bundle.num_image_tokens,
                len(record.images),
                record.meta.get("options"),
            )
            for record in records
        ]
        opened: dict[str, Image.Image] = {}
        for record in records:
            for name in record.images:
                if name not in opened:
                    opened[name] = image_folder.open(name, record.id)
        images = [[opened[name] for name in record.images] for record in records]
        return generate(bundle, prompts, images, max_new_tokens)

    return answer


def predict(
    bundle: "Bundle",
    records: Sequence[Record],
    image_folder: ImageFolder,
    settings: EvaluationSettings,
    out: Path,
    *,
    template: str = "exgra",
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Answer records greedily with a model of this project; see `answer_records`.

    Args:
        bundle: model and processor, in evaluation mode on the device that answers.
        records: questions to answer.
        image_folder: where their images lie.
        settings: batch size and longest answer.
        out: JSON Lines file of answers.
        template: name of the chat template, the one of training.
        about: further facts that decide the answers, such as hashes of checkpoint and data.
        progress: called with (answered, all).

    Returns:
        Answers that were made now.
    """
    facts = {
        "template": template,
        "decoding": "greedy",
        "max_new_tokens": settings.max_new_tokens,
        **(about or {}),
    }
    answer = model_answerer(bundle, image_folder, template, settings.max_new_tokens)
    return answer_records(answer, records, out, settings.batch_size, facts, progress)


def facts_path(out: Path) -> Path:
    """The file beside an answer file that says how its answers were made."""
    return out.with_suffix(".about.json")


def stored_template(out: Path) -> str | None:
    """The chat template that stored answers were asked with; None where a server chose it."""
    facts = facts_path(out)
    return read_json(facts).get("template") if facts.is_file() else None


def _same_facts(out: Path, about: dict[str, Any]) -> None:
    path = facts_path(out)
    if out.exists() and out.stat().st_size:
        if not path.exists():
            raise RunError(
                f"{out}: there are answers, but nothing says how they were made.",
                "Score them as they are, or remove them to answer again.",
            )
        earlier = read_json(path)
        differing = sorted(
            key for key in earlier.keys() | about.keys() if earlier.get(key) != about.get(key)
        )
        if differing:
            raise RunError(
                f"{out}: its answers were made with another {', '.join(differing)}.",
                "Use another run folder, or remove the file to answer again.",
            )
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(about, ensure_ascii=False, indent=2) + "\n")

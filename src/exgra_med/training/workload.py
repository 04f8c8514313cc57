"""How much text and how many images a stage sees: counted where the data is there, else assumed."""

from dataclasses import dataclass

from exgra_med.data.chat import IMAGE_BLOCK, conversation_segments
from exgra_med.data.conversation import choose_conversations, with_extended_answers
from exgra_med.data.encode import alignment_text
from exgra_med.data.prepared import open_prepared
from exgra_med.data.record import Record
from exgra_med.errors import DataError
from exgra_med.recipe.schema import Recipe

CHARACTERS_PER_TOKEN = 3.5
"""Assumed: medical English under LLaMA's tokenizer."""
NUM_SAMPLED = 500
"""Records whose length is looked at; they are spread over the whole split."""


@dataclass(frozen=True)
class Workload:
    """Records of a stage, and the mean tokens of one: conversation, and the texts of its graphs."""

    num_records: int
    conversation: float
    """Of all sequences that a record gives."""
    alignment: float
    images: float
    share_cut: float
    """Share of the records whose conversation is longer than `text.max_length`."""
    counted: bool
    """Whether the data was there; otherwise all of it is an assumption."""


ASSUMED = {
    # name of the folder: records, conversation, answer + extended answer
    "llava-med-alignment": (500_000, 370, 180),
    "llava-med-instruct": (60_000, 640, 640),
    "vqa-rad": (1_797, 330, 60),
    "slake": (4_919, 330, 60),
    "pathvqa": (19_755, 330, 60),
}
"""Published or prepared counts; lengths are guesses."""


def measure_workload(recipe: Recipe, name: str, num_image_tokens: int) -> Workload:
    """Look at the data of a stage.

    Args:
        recipe: the recipe.
        name: its stage.
        num_image_tokens: visual tokens of one image.

    Raises:
        DataError: the data is not there, and nothing is known about a folder of that name.
    """
    settings, stage = recipe.stage_data(name), recipe.stages[name]
    alignment = stage.alignment
    aligned = alignment is not None and alignment.weight > 0
    with_extended = alignment is not None and alignment.views == "all"
    try:
        prepared = open_prepared(settings.folder)
    except DataError:
        known = ASSUMED.get(settings.folder.rstrip("/").rpartition("/")[2])
        if known is None:
            raise
        count, conversation, alignment = known
        records = max(1, round(count * settings.fraction))
        return Workload(records, conversation, alignment * aligned, 1.0, 0.0, counted=False)
    records = choose_conversations(
        list(prepared.iterate(settings.split)),
        settings.questions_per_record,
        settings.fraction,
        settings.subset_seed,
    )
    if not records:
        raise DataError(f"{settings.folder}: the split {settings.split!r} has no record.")
    sampled = records[:: max(1, len(records) // NUM_SAMPLED)]
    longest = recipe.text.max_length
    told = [each for record in sampled for each in _conversations(record, stage.answers)]
    lengths = [_conversation_tokens(each, recipe.text.template, num_image_tokens) for each in told]
    texts = [
        min(2 * longest, _alignment_tokens(each, with_extended)) if aligned else 0.0
        for each in sampled
    ]
    return Workload(
        len(records),
        sum(min(longest, length) for length in lengths) / len(sampled),
        sum(texts) / len(sampled),
        sum(len(each.images) for each in told) / len(sampled),
        sum(length > longest for length in lengths) / len(told),
        counted=True,
    )


def _conversations(record: Record, answers: str) -> list[Record]:
    """The conversations that a record gives, see `StageSettings.answers`."""
    if answers == "original":
        return [record]
    longer = with_extended_answers(record)
    return [longer] if answers == "extended" else [record, longer]


def _conversation_tokens(record: Record, template: str, num_image_tokens: int) -> float:
    text = "".join(segment.text for segment in conversation_segments(record, template))
    characters = len(text.replace(IMAGE_BLOCK, ""))
    return 1 + characters / CHARACTERS_PER_TOKEN + len(record.images) * (num_image_tokens + 2)


def _alignment_tokens(record: Record, with_extended: bool) -> float:
    texts = [alignment_text(record.answers)]
    texts += [alignment_text(record.extended or [])] if with_extended else []
    return sum(1 + len(text) / CHARACTERS_PER_TOKEN for text in texts)

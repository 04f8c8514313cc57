"""Mean log-likelihood a token of each option as the answer, with the model that is evaluated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, Turn

if TYPE_CHECKING:
    from exgra_med.model.bundle import Bundle


def option_scores(
    bundle: "Bundle", record: Record, images: ImageFolder, template: str, max_length: int
) -> list[float]:
    """Score every option of a record as its answer.

    The answer's end marker counts too, so an option is not preferred for being the beginning of
    another. All options go through the model in one batch.

    Returns:
        Mean log-likelihood a token (natural logarithm), one an option.
    """
    from exgra_med.recipe.schema import TextSettings

    record = record.first_exchange()
    text = TextSettings(template=template, max_length=max_length)
    opened = [images.open(name, record.id) for name in record.images]
    options = [str(option) for option in record.meta["options"]]
    return last_answer_scores(
        bundle, [bundle.conversation(_answered(record, each), opened, text) for each in options]
    )


def last_answer_scores(bundle: "Bundle", conversations: Sequence[Any]) -> list[float]:
    """Score the last answer of each conversation, in one batch.

    Args:
        bundle: the model.
        conversations: from `Bundle.conversation`, all with images or all without.

    Returns:
        Mean log-likelihood a token (natural logarithm), the end marker's included.
    """
    import torch

    from exgra_med.model.batch import IGNORED, Layout, TrainingExample, to_device

    examples = [
        TrainingExample(str(number), [told], False, [], [])
        for number, told in enumerate(conversations)
    ]
    batch = to_device(bundle.collate(examples, Layout(packed=False)), bundle.model.device)
    with torch.inference_mode():
        _, (states,) = bundle.encode(batch)
        wanted = batch["calls"][0]["targets"]
        places = wanted != IGNORED
        for row in places:
            # An answer is one run of places; whatever stands before the last run is earlier.
            numbers = row.nonzero()[:, 0]
            begins = numbers[1:][numbers.diff() > 1]
            row[: begins[-1] if len(begins) else 0] = False
        logits = bundle.logits(states[places]).float()
        chosen = logits.log_softmax(-1).gather(1, wanted[places].unsqueeze(1)).squeeze(1)
        sums = chosen.new_zeros(len(examples)).index_add(0, places.nonzero()[:, 0], chosen)
        return (sums / places.sum(1)).tolist()


def _answered(record: Record, option: str) -> Record:
    # The options are scored, not shown: the question stands alone in front of each of them.
    meta: dict[str, object] = {key: value for key, value in record.meta.items() if key != "options"}
    return record.model_copy(
        update={
            "turns": [record.turns[0], Turn(role="assistant", text=option)],
            "meta": meta,
        }
    )

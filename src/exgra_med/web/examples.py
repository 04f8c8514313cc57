"""Questions to begin with, about pictures of the bundled samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from exgra_med.data.records import Record, open_prepared
from exgra_med.evaluation.report.page import jpeg
from exgra_med.web.chat_models import ChatModel

_NUMBER = 4
_THUMBNAIL_PIXELS = 120
_SMALL_ANSWERS = ("12615", "11980", "12697")
"""Kinds of question that `small` answers well: plane, modality, size."""
_SMALL_FAILS = "12312"
"""Where an abnormality is; of the eight such questions of the sample it answers none."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Questions about pictures of one bundled sample."""

    data: str
    credit: str
    """Whose pictures these are, and under which licence."""
    records: list[Record]
    notes: list[str]
    """A sentence for each, or none."""

    def picture(self, number: int, max_pixels: int) -> Image.Image:
        """The picture of one of them."""
        record = self.records[number]
        return open_prepared(self.data).image_folder(max_pixels).open(record.images[0], record.id)

    def html(self, max_pixels: int) -> str:
        """Buttons with a thumbnail and a question each; `data-example` is the number."""
        buttons = [
            f'<button type="button" class="example" data-example="{number}">'
            f'<img alt="" src="data:image/jpeg;base64,'
            f'{jpeg(self.picture(number, max_pixels), _THUMBNAIL_PIXELS)}">'
            f"<span>{escape(record.question)}"
            f"{f'<small>{escape(note)}</small>' if note else ''}</span></button>"
            for number, (record, note) in enumerate(zip(self.records, self.notes, strict=True))
        ]
        return (
            '<p class="hint">Or begin with an example:</p>'
            f'<div class="examples">{"".join(buttons)}</div>'
            f'<p class="credit">{escape(self.credit)}</p>'
        )


def examples_for(models: Sequence[ChatModel]) -> Examples:
    """What the models can be asked first: `small` its kind of question, any other of VQA-RAD."""
    return _of_slake() if any(model.kind == "small" for model in models) else _of_vqa_rad()


def _of_vqa_rad() -> Examples:
    """The first questions of the test split, one an image."""
    data = "bundled:vqa-rad-sample"
    by_image: dict[str, Record] = {}
    for record in open_prepared(data).records("test"):
        by_image.setdefault(record.images[0], record)
    records = list(by_image.values())[:_NUMBER]
    return Examples(data, "Pictures and questions: VQA-RAD, CC0.", records, [""] * len(records))


def _of_slake() -> Examples:
    data = "bundled:slake-sample"
    by_id = {each.meta["published_id"]: each for each in open_prepared(data).records("test")}
    records = [by_id[each] for each in (*_SMALL_ANSWERS, _SMALL_FAILS)]
    notes = [f"SLAKE says: {each.answer}." for each in records]
    notes[-1] = f"small is known to fail here. {notes[-1]}"
    credit = (
        "Pictures and questions: SLAKE 1.0 (Liu et al., ISBI 2021), CC BY 4.0, scaled. The X-rays "
        "are from NIH ChestX-ray8, the MRI from the Medical Segmentation Decathlon, CC BY-SA 4.0."
    )
    return Examples(data, credit, records, notes)

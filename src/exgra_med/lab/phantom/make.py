"""The phantom world as a data set: nothing is read, everything is drawn from a seed."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.data.existence import Truth, existence_questions
from exgra_med.data.prepare import prepare
from exgra_med.data.records import Prepared, Record, Turn
from exgra_med.data.sources.source import Collected, ImageBytes, PrepareOptions, Source
from exgra_med.errors import DataError
from exgra_med.lab.phantom.draw import draw_scene, png_bytes
from exgra_med.lab.phantom.questions import FAMILIES, YES_NO, Asked, Questioner
from exgra_med.lab.phantom.scene import Scene, held_out_pairs, sample_scene
from exgra_med.lab.phantom.text import caption
from exgra_med.terminal import ProgressCallback

NAME = "phantom"
_CAPTION_REQUESTS = ("Describe this image.", "What does this image show?", "Give the findings.")


@dataclass(frozen=True)
class PhantomSettings:
    """How much of the world is made.

    Args:
        seed: of the world; another seed is another world with the same held-out pairs.
        num_images: images of `train`; other numbers name their split.
        num_finetune: a small set apart from `train`: a downstream task.
        num_vision: images of `vision`, each with its caption and no question.
        num_language: scenes of `language`: described in words, not drawn.
        num_existence: images of `existence`: is a lesion or device there that is, or is not?
        questions_per_image: questions about an image, fewer where a scene does not allow as many.
        image_pixels: side of the square images.
    """

    seed: int = 0
    num_images: int = 1000
    num_finetune: int = 0
    num_validation: int = 200
    num_test: int = 500
    num_test_composition: int = 300
    num_vision: int = 1000
    num_language: int = 1000
    num_existence: int = 0
    questions_per_image: int = 5
    image_pixels: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = {"questions_per_image": 1, "image_pixels": 32}.get(name, 0)
            if value < least:
                raise DataError(f"phantom: {name} is {value}, it must be at least {least}.")

    @property
    def num_scenes(self) -> dict[str, int]:
        """Split -> how many scenes it has; splits of none are not made."""
        return {
            "train" if name == "num_images" else name.removeprefix("num_"): number
            for name, number in vars(self).items()
            if name.startswith("num_") and number
        }


def parse_settings(seed: int, texts: Mapping[str, str]) -> PhantomSettings:
    """Settings from the texts of a command line.

    Raises:
        DataError: an unknown name, or not a whole number.
    """
    known = [field.name for field in dataclasses.fields(PhantomSettings) if field.name != "seed"]
    values = {}
    for name, text in texts.items():
        if name not in known:
            raise DataError(f"phantom has no setting {name!r}.", f"Known: {', '.join(known)}.")
        if not text.isdecimal() or len(text) > 18:
            raise DataError(f"phantom: {name}={text!r} is not a whole number.")
        values[name] = int(text)
    return PhantomSettings(seed=seed, **values)


def make_phantom(
    folder: Path,
    settings: PhantomSettings,
    *,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Prepared:
    """Make a prepared folder with the phantom world; the same settings give the same bytes.

    Raises:
        DataError: `folder` holds something else.
        WriteError: the disk is full.
    """
    texts = {name: str(value) for name, value in vars(settings).items() if name != "seed"}
    seed = settings.seed
    return prepare(
        NAME, None, folder, seed=seed, settings=texts, overwrite=overwrite, progress=progress
    )


@dataclass(frozen=True)
class PhantomImages(ImageBytes):
    """Pictures that are drawn when they are read."""

    settings: PhantomSettings

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The PNG of a scene."""
        split, _, number = name.removesuffix(".png").partition("/")
        scene = sample_scene(self.settings.seed, split, int(number))
        return png_bytes(draw_scene(scene, self.settings.image_pixels))


def split_records(settings: PhantomSettings, split: str) -> Iterator[Record]:
    """The records of a split, scene by scene.

    `vision` has one caption an image; `language` has questions behind a description and no image;
    `existence` asks for kinds of lesions and devices, half of which are not there; every other
    split has questions about images.
    """
    if split == "existence":
        yield from _existence_records(settings)
        return
    questioner = Questioner(settings.seed, split, settings.questions_per_image)
    seen: set[str] = set()
    for number in range(settings.num_scenes[split]):
        scene = sample_scene(settings.seed, split, number)
        if split == "vision":
            request = _CAPTION_REQUESTS[number % len(_CAPTION_REQUESTS)]
            yield _record(scene, str(number), request, caption(scene, number), {})
            continue
        for position, asked in enumerate(questioner.ask(scene)):
            record = _question_record(scene, position, asked)
            # Two scenes without a lesion can be alike in words; pictures are never alike.
            if record.image or record.question not in seen:
                seen.add(record.question)
                yield record


def _existence_records(settings: PhantomSettings) -> Iterator[Record]:
    """Questions after findings of every scene, which decides what is there before it is drawn."""
    number = settings.num_scenes["existence"]
    scenes = [sample_scene(settings.seed, "existence", each) for each in range(number)]
    truths = {}
    for scene in scenes:
        devices = [scene.device.kind] if scene.device else []
        there = frozenset([*(lesion.kind for lesion in scene.lesions), *devices])
        truths[image_name(scene)] = Truth(image_name(scene), there, scene.region)
    of_image = dict(zip(truths, scenes, strict=True))
    for asked in existence_questions(list(truths.values()), settings.seed):
        scene, finding = of_image[asked.truth.image], asked.finding
        article = "an" if finding[0] in "aeiou" else "a"
        meta = {"finding": finding, "existence": list(asked.kinds), "options": list(YES_NO)}
        answer = "yes" if asked.is_there else "no"
        question = f"Is there {article} {finding} in this image?"
        name = f"{scene.number}-{finding}"
        yield _record(scene, name, question, answer, meta, answer_type="CLOSED")


def image_name(scene: Scene) -> str:
    """A scene's picture, relative to the image folder."""
    return f"{scene.split}/{scene.number:06d}.png"


def _question_record(scene: Scene, position: int, asked: Asked) -> Record:
    family, candidate = FAMILIES[asked.family], asked.candidate
    question = asked.text
    if scene.split == "language":
        question = f"{caption(scene, scene.number + position)} {question}"
    meta: dict[str, Any] = {"question_type": asked.family}
    if candidate.organ:
        meta["organ"] = candidate.organ
    if candidate.lesion:
        meta["pair"] = "/".join(candidate.lesion.pair)
        meta["composition"] = candidate.lesion.pair in held_out_pairs()
    if family.answer_type == "CLOSED":
        meta["options"] = list(family.answers)
    more = {"extended": [asked.extended], "answer_type": family.answer_type}
    return _record(scene, f"{scene.number}-{position}", question, candidate.answer, meta, **more)


def _record(
    scene: Scene, number: str, question: str, answer: str, meta: dict[str, Any], **more: Any
) -> Record:
    about = {
        "split": scene.split,
        "scene": scene.number,
        "modality": scene.modality,
        "region": scene.region,
    }
    return Record(
        id=f"{NAME}/{scene.split}/{number}",
        image=None if scene.split == "language" else image_name(scene),
        turns=[Turn(role="user", text=question), Turn(role="assistant", text=answer)],
        meta=about | meta,
        **more,
    )


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Make the world that the settings ask for; there are no files to read.

    Records are made while they are read, and so are the pictures.

    Raises:
        DataError: an unknown setting.
    """
    settings = parse_settings(options.seed, options.settings)
    splits = {split: split_records(settings, split) for split in settings.num_scenes}
    notes = {
        "settings": vars(settings).copy(),
        "held_out_pairs": sorted("/".join(pair) for pair in held_out_pairs()),
    }
    return Collected(splits, PhantomImages(settings), [], notes=notes)


SOURCE = Source(
    name=NAME,
    title="drawn pictures of known truth, any number: --option num_images=2000, no --source",
    licence="CC0 1.0, made by this program",
    variants={"world": "test as train; test_composition with organ-lesion pairs never trained"},
    collect=collect,
    needs_files=False,
)

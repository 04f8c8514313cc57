"""Base models made from a prepared folder: an image tower, then a language model.

vision/, language/    folders for `model.parts`
parts.yaml            what they were made of
work/                 log and resumable checkpoints of both
"""

from pathlib import Path

from exgra_med import files, reading
from exgra_med.data.records import Prepared, open_prepared
from exgra_med.errors import RunError
from exgra_med.lab.base_models.settings import PartsSettings
from exgra_med.lab.base_models.vision import train_vision
from exgra_med.model.assemble import save_language_model
from exgra_med.model.native import load_native
from exgra_med.reading import write_yaml
from exgra_med.recipe.run_folder import start_run
from exgra_med.recipe.schema import Architecture, DataSettings, ModelSettings, Recipe
from exgra_med.terminal import Reporter
from exgra_med.training.stages import train_run


def make_parts(
    settings: PartsSettings, data_folder: str | Path, out: Path, reporter: Reporter
) -> None:
    """Make what is not made yet; called again, it goes on where it was.

    Raises:
        RunError: `out` holds parts made of something else.
        ExgraMedError: a fault of data or training; what was saved stays.
    """
    prepared = open_prepared(data_folder)
    language, vision = out / "language", out / "vision"
    _claim(out, settings, prepared)
    if not vision.is_dir():
        part, work = settings.vision, out / "work" / "vision"
        work.mkdir(parents=True, exist_ok=True)
        records, images = prepared.records(part.split), prepared.image_folder(part.max_pixels)
        train_vision(part, records, images, work, vision, settings.seed, reporter)
    if not language.is_dir():
        run = start_run(out / "work" / "language", language_recipe(settings, data_folder), True)
        save_language_model(load_native(train_run(run, reporter)), language)


def language_recipe(settings: PartsSettings, data_folder: str | Path) -> Recipe:
    """The ordinary run that makes the language model; its vision tower is never used."""
    part = settings.language
    architecture = Architecture(
        vision=settings.vision.architecture, language=part.architecture, tokenizer=part.tokenizer
    )
    data = DataSettings(folder=str(data_folder), split=part.split, held_out_split=None)
    return Recipe(
        name="parts/language",
        seed=settings.seed,
        model=ModelSettings(architecture=architecture),
        data=data,
        text=part.text,
        stages={"language": part.training.model_copy(update={"data": data})},
    )


def _claim(out: Path, settings: PartsSettings, prepared: Prepared) -> None:
    """Write down what is made here, or check that it is the same as before."""
    told = settings.model_dump(mode="json") | {"data_fingerprint": prepared.fingerprint}
    text, path = write_yaml(told), out / "parts.yaml"
    if path.is_file():
        if reading.read_text(path, RunError) != text:
            raise RunError(
                f"{out} holds parts made with other settings or other data.",
                "Choose another folder, or delete that one.",
            )
        return
    if not files.is_unused(out):
        raise RunError(f"{out} has files in it, but no parts.", "Choose another folder.")
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)

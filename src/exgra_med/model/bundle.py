"""A model with its processor, and how both are saved and loaded."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoProcessor,
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from exgra_med.data.chat_template import IMAGE_END, IMAGE_PATCH, IMAGE_START
from exgra_med.errors import CheckpointError
from exgra_med.files import expand_home, new_folder, write_text
from exgra_med.model.other_folders import as_something_else, lfs_pointer
from exgra_med.model.published import VISION, published_checkpoint
from exgra_med.model.vlm import ExgraConfig, ExgraForConditionalGeneration
from exgra_med.recipe.run_folder import last_checkpoint_of

CONFIG = "config.json"
"""A checkpoint folder is recognised by this file before anything is loaded."""


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when everything is written.

    Raises:
        CheckpointError: `folder` holds something that is not a checkpoint.
        DiskFullError: nothing more fits; what was there before is still there.
    """
    if folder.exists() and not (folder / CONFIG).is_file() and any(folder.iterdir()):
        raise CheckpointError(
            f"{folder} has files in it, but is no checkpoint.", "Choose another folder."
        )
    with new_folder(folder) as fresh:
        yield fresh


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        problem = CheckpointError(f"{path.parent} has no {path.name}.")
        if path.name == CONFIG:
            problem.hint = "Name a checkpoint folder, or a finished run."
            problem = as_something_else(path.parent) or problem
        raise problem from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def is_original_layout(config: dict[str, Any]) -> bool:
    """Whether a `config.json` is the original's, which stock transformers silently misreads."""
    return "text_config" not in config and str(config.get("model_type", "")).startswith("llava")


def local_folder(source: str | Path) -> Path:
    """The folder of a checkpoint; of a run it is its last one, and a hub name is downloaded.

    Raises:
        CheckpointError: there is no such folder, or the hub does not have it.
        RunError: the run has not finished.
    """
    path = expand_home(source)
    if path.is_dir():
        return last_checkpoint_of(path)
    if path.exists():
        problem = CheckpointError(f"{source} is a file; a checkpoint is a folder.")
        raise as_something_else(path) or problem
    published = published_checkpoint(str(source))
    if published is not None:
        raise CheckpointError(
            f"{published.hub_name} is published in the original's layout.",
            f"Convert it first: exgra-med checkpoint import {published.name} --vision {VISION} "
            f"--out checkpoints/{published.name}",
        )
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise CheckpointError(f"There is no folder {source}.")
    from exgra_med.model.hub import download_checkpoint

    return download_checkpoint(str(source))


NATIVE_KEYS = ("connector", "connector_split", "connector_first_layer")
STOCK = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}


@dataclass
class Bundle:
    """A model and the processor that prepares its inputs."""

    model: ExgraForConditionalGeneration
    processor: LlavaProcessor

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Text to ids."""
        return self.processor.tokenizer  # type: ignore

    @property
    def image_processor(self) -> CLIPImageProcessorPil:
        """Images to pixel values."""
        return self.processor.image_processor  # type: ignore

    @property
    def num_image_tokens(self) -> int:
        """Visual tokens of one image."""
        return self.model.config.image_seq_length

    @property
    def context_length(self) -> int:
        """Most tokens that the language model can read, images and answer included."""
        return self.model.config.text_config.max_position_embeddings  # type: ignore

    @property
    def pad_token_id(self) -> int:
        """Id of `[PAD]`."""
        return self.tokenizer.pad_token_id  # type: ignore

    @property
    def image_token_id(self) -> int:
        """Id of `<im_patch>`, the placeholder of one visual token."""
        return self._id(IMAGE_PATCH)

    @property
    def image_start_id(self) -> int:
        """Id of `<im_start>`."""
        return self._id(IMAGE_START)

    @property
    def image_end_id(self) -> int:
        """Id of `<im_end>`."""
        return self._id(IMAGE_END)

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)  # type: ignore


def pixel_values(
    bundle: Bundle, images: Sequence[Image.Image], aspect: Literal["square", "pad"] = "square"
) -> Tensor:
    """Preprocess images as the original does: RGB, resize, centre crop, normalise.

    There is at least one image, of any mode and size. The aspect `square` crops the longer side, as
    in the training of all published checkpoints; `pad` first pads the image to a square with the
    mean colour. Returns [N, 3, H, W] float32.
    """
    rgb = [image.convert("RGB") for image in images]
    if aspect == "pad":
        rgb = [pad_to_square(image, bundle.image_processor.image_mean) for image in rgb]
    return bundle.image_processor(rgb, return_tensors="pt")["pixel_values"]


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The image, padded to a square with the colour `mean` (one fraction of 255 a channel)."""
    side = max(image.size)
    colour = tuple(int(channel * 255) for channel in mean)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def save_bundle(
    bundle: Bundle, folder: Path, write_beside: Callable[[Path], None] | None = None
) -> None:
    """Save model and processor as one folder, whole or not at all; a checkpoint is replaced.

    With `connector: none` the folder is a stock LLaVA checkpoint. `write_beside` writes further
    files of the caller into it before it replaces the old one.

    Raises:
        CheckpointError: the folder holds something else.
        DiskFullError: nothing more fits; what was there before is still there.
    """
    with replace_folder(Path(folder)) as fresh:
        write_bundle(bundle, fresh)
        if write_beside is not None:
            write_beside(fresh)


def write_bundle(bundle: Bundle, fresh: Path) -> None:
    """Write model and processor into an empty folder."""
    with quiet():
        bundle.model.save_pretrained(fresh)
        save_processor(bundle.processor, fresh)
    config = read_json_object(fresh / CONFIG)
    if config["connector"] == "none":
        config = {key: config[key] for key in config if key not in NATIVE_KEYS} | STOCK
        write_json(fresh / CONFIG, config)


def save_processor(processor: LlavaProcessor | PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a processor or tokenizer so that reloading gives the same ids everywhere.

    transformers rebuilds some tokenizer classes on loading; the plain class is read as it is.
    """
    processor.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    write_json(path, read_json_object(path) | {"tokenizer_class": "PreTrainedTokenizerFast"})


def load_bundle(
    folder_or_name: str | Path,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    device: str = "cpu",
) -> Bundle:
    """Load a checkpoint of this project, or a stock LLaVA export of it.

    Args:
        folder_or_name: a local folder (of a run: its last checkpoint) or a hub name.
        dtype: type of the weights; `auto` keeps the stored one.
        device: where they go.

    Raises:
        CheckpointError: the folder is missing, in the original's layout or damaged, or its weights
            have missing, unexpected, misshapen or non-finite tensors, each of which is named.
    """
    folder = local_folder(folder_or_name)
    config = read_config(folder)
    try:
        with quiet():
            loaded: Any = ExgraForConditionalGeneration.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # collected and refused below, all at once
            )
            processor: Any = AutoProcessor.from_pretrained(folder)
            # How answers are generated is said by whoever asks, not by the folder.
            loaded[0].generation_config = GenerationConfig.from_model_config(config)
            # Where torchvision is installed, transformers would take its resampler.
            processor.image_processor = pillow_image_processor(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(folder, error) from error
    model, report = loaded
    problems = key_problems(report)
    problems += [
        f"not finite: {name}"
        for name, weight in model.state_dict().items()
        if not bool(torch.isfinite(weight).all())
    ]
    refuse(folder, problems)
    return Bundle(model.to(device).eval(), processor)


def _not_loaded(folder: Path, error: Exception) -> CheckpointError:
    weights = any(folder.glob("model.safetensors*"))
    if not weights and any(folder.glob("pytorch_model.bin*")):
        return CheckpointError(
            f"{folder} has its weights as pytorch_model.bin alone, which may hold code.",
            "Save the model as safetensors with transformers' save_pretrained.",
        )
    shards = folder.glob("model*.safetensors")
    problem = lfs_pointer(shards) if weights else as_something_else(folder)
    return problem or CheckpointError(
        f"{folder} cannot be loaded: {str(error).splitlines()[0]}",
        "The folder may be incomplete; copy or download it again.",
    )


def load_tokenizer(folder_or_name: str | Path) -> tuple[Any, int]:
    """Tokenizer and number of visual tokens of one image; the weights are not read.

    Raises:
        CheckpointError: the folder is missing, in the original's layout or damaged.
    """
    folder = local_folder(folder_or_name)
    config = read_config(folder)
    try:
        with quiet():
            processor: Any = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} has no processor that can be loaded: {str(error).splitlines()[0]}",
            "The folder may be incomplete; copy or download it again.",
        ) from error
    return processor.tokenizer, config.image_seq_length


def pillow_image_processor(folder: Path) -> Any:
    """The image processor of a checkpoint, always the one that resizes with Pillow.

    Raises:
        CheckpointError: the folder does not describe one that transformers has.
    """
    settings = read_json_object(folder / "processor_config.json").get("image_processor")
    settings = settings or read_json_object(folder / "preprocessor_config.json")
    kind = str(settings.pop("image_processor_type", "")).removesuffix("Pil").removesuffix("Fast")
    if not hasattr(transformers, f"{kind}Pil"):
        raise CheckpointError(f"{folder} has an image processor of unknown type {kind!r}.")
    return getattr(transformers, f"{kind}Pil")(**settings)


def read_config(folder: Path) -> ExgraConfig:
    """The native configuration of a checkpoint folder; stock LLaVA is `connector: none`.

    Raises:
        CheckpointError: the folder has the original's layout, or another model in it.
    """
    config = read_json_object(folder / CONFIG)
    if is_original_layout(config):
        names = ("model.safetensors*", "pytorch_model.bin*")
        has_weights = any(next(folder.glob(name), None) for name in names)
        other = None if has_weights else as_something_else(folder)
        raise other or CheckpointError(
            f"{folder} is a checkpoint in the original's layout.",
            f"Convert it first: exgra-med checkpoint import {folder} "
            "--vision openai/clip-vit-large-patch14 --out DIR",
        )
    if config.get("model_type") not in (ExgraConfig.model_type, "llava"):
        raise CheckpointError(
            f"{folder} holds a model of type {config.get('model_type')!r}, not LLaVA."
        )
    return ExgraConfig.from_dict(config | {"model_type": ExgraConfig.model_type})


def key_problems(report: dict[str, Any]) -> list[str]:
    """One line for each key that is missing, unexpected or of the wrong shape."""
    problems = [f"missing: {key}" for key in sorted(report["missing_keys"])]
    problems += [f"unexpected: {key}" for key in sorted(report["unexpected_keys"])]
    problems += [
        f"wrong shape: {key} is {list(found)}, not {list(expected)}"
        for key, found, expected in sorted(report["mismatched_keys"])
    ]
    return problems


def refuse(folder: Path, problems: list[str]) -> None:
    """Raise a CheckpointError that names every problem, if there are any."""
    if problems:
        raise CheckpointError(
            f"The weights in {folder} do not fit the model:\n  " + "\n  ".join(problems),
            "Check that configuration and weights belong together.",
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and warnings of transformers; our own errors say more."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

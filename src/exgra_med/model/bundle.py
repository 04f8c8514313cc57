"""A model with its processor: how both are saved, loaded, and checked before they are loaded."""

import json
import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
)
from transformers.utils import logging

from exgra_med.data.chat_template import IMAGE_PATCH
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, Turn
from exgra_med.errors import CheckpointError, CommandError, ExgraMedError, MissingExtraError
from exgra_med.files import expand_home, is_file, is_folder, new_folder, write_text
from exgra_med.model.other_folders import as_something_else, lfs_pointer
from exgra_med.model.published import published_checkpoint
from exgra_med.model.short_attention import NAME as SHORT_ROWS
from exgra_med.plugins import Registry
from exgra_med.reading import read_object, short, stray
from exgra_med.recipe.run_folder import check_checkpoint, last_checkpoint_of
from exgra_med.recipe.schema import TextSettings
from exgra_med.terminal import waiting_for

if TYPE_CHECKING:
    from exgra_med.model.native import ExgraConfig

CONFIG, _ADAPTER = "config.json", "adapter_config.json"
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
    if not path.exists():
        problem = CheckpointError(f"{path.parent} has no {path.name}.")
        if path.name == CONFIG:
            problem.hint = "Name a checkpoint folder, or a finished run."
            problem = as_something_else(path.parent) or problem
        raise problem
    return read_object(path, CheckpointError)


# What a folder says is checked before anything is built. The weights decide how large a model may
# be, and never the configuration: it is a few lines of text that anybody can write.

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
ATTENTION += (SHORT_ROWS,)
"""Ways to attend that a configuration may name; transformers takes another name for a repository of
the hub, from which it loads code."""
EXPERTS = ("eager", "batched_mm", "grouped_mm")
"""The same for mixtures of experts."""
_CHOICES = {"attn_implementation": ATTENTION, "experts_implementation": EXPERTS}
_SHARDS = "model.safetensors.index.json"
PROCESSOR_FILES = (
    "processor_config.json, preprocessor_config.json, tokenizer_config.json, tokenizer.json"
)
"""For sentences; which of them is at fault, transformers does not say."""
_SIZE = re.compile("num_|^n_|layer|depth|block|expert|head|label|size|dim|_seq|tokens$")
"""Names of settings by which a model is built, or a text is filled with image tokens."""
_NO_SIZE = re.compile("max|window|theta|token_id|token_index|pixels|edge|shard")
_FEW = 2**20
"""What such a setting may be in any case: some configurations hold sizes that no tensor has."""
_MOST_LAYERS = 1000
"""Where there are no weights, as when a run is planned."""
LARGEST_SIDE, MOST_PIXELS = 2**12, 2**25
"""Of a prepared picture: pixels of a side, and in all where a processor counts these."""
Shapes = dict[str, tuple[tuple[int, ...], str]]
"""Name of a tensor -> its shape and type."""


def indexed_files(index: Path) -> list[Path]:
    """The files with the shards of a model, which lie beside the index that names them.

    Raises:
        CheckpointError: the index names none, one that is not there, or one outside of its folder.
    """
    names = read_json_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} names no files: `weight_map` is no object with names.")
    for name in names.values():
        if problem := stray(name, parts=1):
            what = f"{index} names files outside its folder"
            raise CheckpointError(f"{what}: {short(name)} {problem}.")
    files = [index.parent / name for name in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{index.parent} lacks the weight files {missing}.")
    return files


def stored_shapes(files: Iterable[Path]) -> Shapes:
    """What the headers of safetensors files say; the library checks them against the files' sizes.

    Raises:
        CheckpointError: a file is damaged.
    """
    shapes: Shapes = {}
    for path in files:
        try:
            with safe_open(path, "pt") as stream:
                for name in stream.keys():  # noqa: SIM118 - not a dict
                    piece = stream.get_slice(name)
                    shapes[name] = tuple(piece.get_shape()), piece.get_dtype()
        except (OSError, SafetensorError, ValueError) as error:
            raise lfs_pointer([path]) or CheckpointError(
                f"{path} is damaged and cannot be loaded: {_line(error)}.", "Copy it again."
            ) from error
    return shapes


def folder_shapes(folder: Path) -> Shapes:
    """The tensors of a checkpoint folder; none where it has no safetensors, as when a run is
    planned by the settings of a model alone, which its index is one of.

    Raises:
        CheckpointError: a file is damaged, missing, or outside of the folder.
    """
    if (folder / _SHARDS).is_file() and any(folder.glob("*.safetensors")):
        return stored_shapes(indexed_files(folder / _SHARDS))
    whole = folder / "model.safetensors"
    return stored_shapes([whole]) if whole.is_file() else {}


def check_settings(folder: Path, shapes: Shapes) -> dict[str, Any]:
    """The configuration of a folder, with no setting that its weights cannot mean, no code of the
    hub, and no adapter that would be put onto the weights in silence.

    Raises:
        CheckpointError: it is not such a folder.
    """
    if (folder / _ADAPTER).is_file() and (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has an adapter ({_ADAPTER}) beside its weights, and nothing says whether it "
            "is to be put onto them.",
            "Merge it with peft's merge_and_unload(), or move the files of the adapter away.",
        )
    config = read_json_object(folder / CONFIG)
    sizes = [side for shape, _ in shapes.values() for side in shape]
    most = max(_FEW, len(shapes), *sizes)
    _check_values(config, "", folder / CONFIG, most, len(shapes) or _MOST_LAYERS)
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            _check_values(read_json_object(folder / name), "", folder / name, most, most)
    return config


def _check_values(value: Any, at: str, file: Path, most: int, deepest: int) -> None:
    # A number in a list has the name of the list.
    named = isinstance(value, dict)
    for key, each in value.items() if named else enumerate(value):
        here = (f"{at}.{key}" if at else str(key)) if named else at
        name = here.rpartition(".")[2]
        plain = name.removeprefix("_").removesuffix("_internal")
        if plain in _CHOICES and named:
            _check_choice(each, here, file, _CHOICES[plain])
        elif name == "transformers_weights":
            raise CheckpointError(f"{file}: `{here}` names other weights than the folder's own.")
        elif isinstance(each, dict | list):
            _check_values(each, here, file, most, deepest)
        elif isinstance(each, int | float) and _SIZE.search(name) and not _NO_SIZE.search(name):
            # Every layer has a tensor.
            limit = deepest if re.search("layers$|^depth", name) else most
            if abs(each) > limit:
                raise CheckpointError(
                    f"{file}: `{here}` is {short(each)}, and the weights allow {limit} at most.",
                    "Check that configuration and weights belong together.",
                )


def _check_choice(value: Any, at: str, file: Path, known: tuple[str, ...]) -> None:
    for each in value.values() if isinstance(value, dict) else [value]:
        if isinstance(each, dict):
            _check_choice(each, at, file, known)
        elif each is not None and each not in known:
            raise CheckpointError(
                f"{file}: `{at}` is {short(each)}, not one of {', '.join(known)}.",
                "Nothing is loaded from the hub to attend; remove the setting.",
            )


@contextmanager
def bounded(shapes: Shapes, where: Path | str) -> Iterator[None]:
    """Stop transformers as soon as the model that it builds has far more than the weights.

    Raises:
        CheckpointError: it has.
    """
    thread, seen = threading.get_ident(), set()
    # Weights that are stored as one may become several, a whole number may hold several quantised
    # ones, and tensors that are no weights follow from settings. Without weights, what no computer
    # holds.
    most = 8 * len(shapes) + 10_000 if shapes else 100_000
    held = sum((16 if kind[0] in "IU" else 2) * math.prod(one) for one, kind in shapes.values())
    room = held + 2**26 if shapes else 2**42
    elements = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal elements
        if tensor is None or threading.get_ident() != thread or (id(module), name) in seen:
            return
        seen.add((id(module), name))
        elements += tensor.numel()
        if len(seen) > most or elements > room:
            raise CheckpointError(
                f"{where}: the configuration describes a model far larger than its weights "
                f"({len(shapes)} tensors).",
                "Check that configuration and weights belong together.",
            )

    handles = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def described(folder: Path, problem: str, kind: str = "This kind of model") -> Iterator[None]:
    """Turn whatever transformers makes of odd settings into one sentence: it believes their types.

    Args:
        problem: what is said of the folder, with the names of the files that hold the settings.
        kind: what may need a package, for the sentence.

    Raises:
        CheckpointError: instead, or there is not enough memory.
        MissingExtraError: a package is not installed.
    """
    try:
        with quiet():
            yield
    except ExgraMedError:
        raise
    except ImportError as error:
        raise _without_package(kind, error) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise CheckpointError(
            f"{folder}: there is not enough memory for it here ({_line(error)}).",
            "End other programs, or take a smaller model.",
        ) from error
    except Exception as error:
        # An image processor whose package is missing is a ValueError, unlike all others.
        if "could be imported" in str(error):
            raise _without_package(kind, error) from error
        raise CheckpointError(
            f"{folder} {problem}: {_line(error)}.",
            "The folder may be incomplete; copy or download it again.",
        ) from error


def _line(error: Exception) -> str:
    """The kind and the first line of an error of a library."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:300].rstrip(".")


def any_config(folder: Path) -> Any:
    """The configuration of a model of transformers, read by its own class.

    Raises:
        CheckpointError: it is none, or `check_settings` refuses it.
    """
    kind = check_settings(folder, folder_shapes(folder)).get("model_type")
    problem = f"holds a model of type {short(kind)}, which transformers cannot read here ({CONFIG})"
    with described(folder, problem):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def shown_architectures(config: dict[str, Any]) -> str | None:
    """The classes that a `config.json` names, in one line; none where it names none."""
    named = config.get("architectures")
    return ", ".join(map(str, named)) or None if isinstance(named, list) else None


def is_original_layout(config: dict[str, Any]) -> bool:
    """Whether a `config.json` is the original's, which stock transformers silently misreads."""
    return "text_config" not in config and str(config.get("model_type", "")).startswith("llava")


def local_folder(source: str | Path, weights: bool = True) -> Path:
    """The folder of a checkpoint; of a run it is its last one, and a hub name is downloaded, with
    its weights or without. `small` and the names of its two parts are made in the user's cache.

    Raises:
        CheckpointError: there is no such folder, or the hub does not have it.
        RunError: the run has not finished.
    """
    path = expand_home(source)
    if is_folder(path):
        return last_checkpoint_of(path)
    if is_file(path):
        problem = CheckpointError(f"{source} is a file; a checkpoint is a folder.")
        raise as_something_else(path) or problem
    published = published_checkpoint(str(source))
    if published is not None:
        layout = "the original's layout" if published.is_importable else "a layout of its own"
        raise CheckpointError(f"{published.where} is published in {layout}.", published.how_to_use)
    if "/" not in str(source):
        from exgra_med.model.small_model import cached_model

        if (known := cached_model(str(source))) is not None:
            return known
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise CheckpointError(f"There is no folder {source}.")
    from exgra_med.model.hub import download_checkpoint, download_settings

    return download_checkpoint(str(source)) if weights else download_settings(str(source))


class Bundle(ABC):
    """A model with its processor, and everything that the rest of this project asks of the two.

    Training, evaluation, chat and page know a model by these methods alone. There are two
    implementations: `model.native.NativeBundle` for this project's own LLaVA, and
    `model.any_model.AnyBundle` for every other image-text-to-text model of transformers.

    Shapes: R rows of L tokens, K image vectors, D width of the language model, V vocabulary.
    """

    model: Any
    processor: Any

    @property
    def tokenizer(self) -> Any:
        """Text to ids."""
        return self.processor.tokenizer

    @property
    def pad_token_id(self) -> int:
        """Id of the padding token."""
        return self.tokenizer.pad_token_id

    @property
    def width(self) -> int:
        """Width D of the language model."""
        return self.model.config.get_text_config().hidden_size

    @property
    def context_length(self) -> int:
        """Most tokens that the language model can read, images and answer included."""
        config = self.model.config.get_text_config()
        # A few language models have no longest text of their own.
        return getattr(config, "max_position_embeddings", None) or self.tokenizer.model_max_length

    # Asking -------------------------------------------------------------------------------------

    @abstractmethod
    def prompt(
        self,
        turns: Sequence[Turn],
        num_images: int = 0,
        options: Sequence[str] | None = None,
        template: str = "exgra",
    ) -> Any:
        """What the model is given so that it answers the last of the turns.

        Args:
            turns: alternating, the first and the last by the user.
            num_images: images of these turns.
            options: the answers the first question allows, where it is closed.
            template: chat template of a native model; any other model has its own.

        Raises:
            DataError: the last turn is not the user's, the placeholders do not fit the images, or
                the model has no such template.
        """

    @abstractmethod
    def num_tokens(self, prompt: Any, images: Sequence[Image.Image]) -> int:
        """Tokens of a prompt with its images."""

    @abstractmethod
    def generation_inputs(
        self, prompts: Sequence[Any], images: Sequence[Sequence[Image.Image]]
    ) -> tuple[dict[str, Any], int]:
        """What `model.generate` takes for a batch of prompts, padded on the left, and how many
        tokens of its output are the prompts themselves.

        Raises:
            DataError: a prompt does not fit its images, or is too long for the model.
        """

    @property
    @abstractmethod
    def stop_ids(self) -> list[int]:
        """Ids of the tokens that end an answer."""

    def has_ended(self, ids: list[int]) -> bool:
        """Whether an answer ends with its newest token."""
        return ids[-1] in self.stop_ids

    @abstractmethod
    def answer_text(self, ids: list[int]) -> str:
        """The text of an answer, stripped."""

    @abstractmethod
    def safe_text(self, ids: list[int]) -> str | None:
        """What of an unfinished answer will not change any more; none where that is not known."""

    # Training -----------------------------------------------------------------------------------

    @abstractmethod
    def conversation(
        self,
        record: Record,
        images: Sequence[Image.Image],
        text: TextSettings,
        train_on_prompts: bool = False,
    ) -> Any:
        """What is learnt of a record: its answers and their ends, or with `train_on_prompts` all
        of its text.

        Raises:
            DataError: its images do not fit into `text.max_length` tokens.
            TrainingError: nothing of it would be learnt.
        """

    @abstractmethod
    def learnt(self, conversation: Any, record: Record, text: TextSettings) -> tuple[str, str]:
        """What of a conversation is learnt, decoded from its labels; and the answers with their
        ends, as they were written. The first is the second, or its beginning."""

    @abstractmethod
    def check_images_fit(self, record: Record, images: ImageFolder, text: TextSettings) -> None:
        """Refuse a record whose images would be cut at `text.max_length` tokens.

        Raises:
            DataError: they would be.
        """

    @abstractmethod
    def image_tokens(self, record: Record, images: ImageFolder) -> int:
        """Tokens of the images of a record."""

    @abstractmethod
    def text_ids(self, text: str, max_length: int) -> list[int]:
        """A text alone, cut after `max_length` tokens: what graphs of texts are made from."""

    @abstractmethod
    def collate(self, examples: Sequence[Any], layout: Any) -> dict[str, Any]:
        """A micro-batch; see `model.batch.Batch`."""

    @abstractmethod
    def encode(
        self, batch: dict[str, Any], every_call_learns: bool = False
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Run a batch through the model.

        Args:
            batch: from `collate`.
            every_call_learns: give every call of the language model a backward pass, as sharded
                weights need.

        Returns:
            Image vectors [K, D] float32 or none, whose nodes are `batch["node_of_image"]`; and the
            last hidden states [R, L, D] of every call.
        """

    @abstractmethod
    def empty_call(self, batch: dict[str, Any]) -> Tensor:
        """Last hidden states of a call that has nothing to learn, for processes that have fewer
        calls than others."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] last hidden states -> [..., V] logits."""
        return self.model.get_output_embeddings()(hidden)

    @abstractmethod
    def part(self, name: str) -> list[nn.Parameter]:
        """The parameters of `vision` (the tower), `connector` or `language`; each is in one."""

    @property
    @abstractmethod
    def marker_ids(self) -> list[int]:
        """Ids of the markers around an image, which `image_tokens` trains; none where a model has
        no such markers of ours."""

    @property
    @abstractmethod
    def tower(self) -> nn.Module:
        """The vision tower."""

    @abstractmethod
    def image_features(self, image: Image.Image) -> list[Tensor]:
        """What a frozen tower makes of a picture, of which everything that depends on the picture
        follows: tensors whose first dimension counts the rows of this picture.

        A stand-in that carries them (`model.feature_cache`) may be given in a conversation in the
        place of the picture.

        Raises:
            RecipeError: the tower is not run once for a picture, or nothing of what it returns
                reaches the language model.
        """

    # Beside -------------------------------------------------------------------------------------

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write model and processor into an empty folder."""


def save_bundle(
    bundle: Bundle, folder: Path, write_beside: Callable[[Path], None] | None = None
) -> None:
    """Save model and processor as one folder, whole or not at all; a checkpoint is replaced.

    `write_beside` writes further files of the caller into it before it replaces the old one.

    Raises:
        CheckpointError: the folder holds something else.
        DiskFullError: nothing more fits; what was there before is still there.
    """
    with replace_folder(Path(folder)) as fresh:
        bundle.write(fresh)
        if write_beside is not None:
            write_beside(fresh)


def save_processor(processor: Any, folder: Path) -> None:
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
    """Load a checkpoint: of this project, a stock export of it, or any other image-text-to-text
    model of transformers.

    Args:
        folder_or_name: a local folder (of a run: its last checkpoint) or a hub name.
        dtype: type of the weights; `auto` keeps the stored one.
        device: where they go.

    Raises:
        CheckpointError: the folder is missing, in the original's layout or damaged, its weights
            have missing, unexpected, misshapen or non-finite tensors, each of which is named, or
            the model is of a kind that cannot be used here.
        DamagedFileError: the folder has the SHA-256 of its files, and one is not what was written.
        MissingExtraError: its processor needs a package that is not installed.
    """
    folder = local_folder(folder_or_name)
    with waiting_for(f"Loading the model {folder_or_name}"):
        check_checkpoint(folder)
        return _load(folder, dtype, device)


def choose_device(wanted: str = "auto") -> str:
    """A device of this machine by its name in torch; `auto` is the accelerator, else the CPU.

    Raises:
        CommandError: there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = None if accelerator is None else accelerator.type
    if wanted == "auto":
        return kind or "cpu"
    count = 0 if kind is None else torch.accelerator.device_count()
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is not None and (
        device == torch.device("cpu") or (device.type == kind and (device.index or 0) < count)
    ):
        return wanted
    here = ["auto", "cpu", *([] if kind is None else [kind])]
    here += [f"{kind}:{number}" for number in range(count)]
    raise CommandError(f"There is no device {wanted!r} here.", f"Known: {', '.join(here)}.")


def device_sentence(device: str) -> str:
    """What a verb says first: where it computes."""
    if device == "cpu":
        count = torch.get_num_threads()
        return f"Device: cpu, {count} {'thread' if count == 1 else 'threads'}."
    kind = torch.device(device).type
    name = f" ({torch.cuda.get_device_name(device)})" if kind == "cuda" else ""
    return f"Device: {device}{name}."


def _load(folder: Path, dtype: torch.dtype | Literal["auto"], device: str) -> Bundle:
    if is_native(folder):
        from exgra_med.model.native import load_native

        return load_native(folder, dtype, device)
    from exgra_med.model.any_model import AnyBundle
    from exgra_med.model.probe import measured

    files = [folder / name for name in ("model.safetensors", "model.safetensors.index.json")]
    if not any(each.is_file() for each in files):
        raise _not_loaded(folder, OSError("it has no model.safetensors"))
    # First what is small: a processor that cannot be had here is found in a second.
    find_model_plugins()
    config, processor = any_config(folder), load_processor(folder)
    model = from_pretrained(AutoModelForImageTextToText, folder, config, dtype)
    with described(folder, f"cannot be used ({CONFIG}, {PROCESSOR_FILES})"):
        bundle = AnyBundle(model.to(device).eval(), processor)
        bundle.facts = measured(bundle, folder)
    return bundle


def is_native(folder: Path) -> bool:
    """Whether a checkpoint is of this project's own model, as itself or as a stock export.

    Raises:
        CheckpointError: the folder has the original's layout, or no configuration.
    """
    config = read_json_object(folder / CONFIG)
    _refuse_original(folder, config)
    kind = config.get("model_type")
    if kind != "llava":
        return kind == "exgra_llava"
    # A stock LLaVA of this project reads its images at `<im_patch>`; no other knows that token.
    said = folder / "processor_config.json"
    token = read_json_object(said).get("image_token") if said.is_file() else None
    return token in (IMAGE_PATCH, {"content": IMAGE_PATCH})


def from_pretrained(kind: Any, folder: Path, config: Any, dtype: Any) -> Any:
    """A model of transformers, of which every tensor was in the folder.

    Raises:
        CheckpointError: it cannot be loaded, or tensors are missing, unexpected or misshapen.
    """
    shapes = folder_shapes(folder)
    check_settings(folder, shapes)
    if not shapes:
        raise _not_loaded(folder, OSError("it has no model.safetensors"))
    options = {} if config is None else {"config": config}
    with described(folder, f"cannot be loaded by its {CONFIG}"), bounded(shapes, folder / CONFIG):
        model, report = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # collected and refused below, all at once
            trust_remote_code=False,
            local_files_only=True,
            **options,
        )
    problems = key_problems(report)
    problems += [
        f"not finite: {name}"
        for name, weight in model.state_dict().items()
        if not bool(torch.isfinite(weight).all())
    ]
    refuse(folder, problems)
    return model


def find_model_plugins() -> None:
    """Import what installed packages register with the Auto classes of transformers.

    A package names a module in the entry point group `exgra_med.models`.
    """
    for name in MODELS.names():
        MODELS.find(name)


MODELS = Registry("model", "exgra_med.models", {}, CheckpointError)


def load_processor(folder: Path) -> Any:
    """The processor of a checkpoint; a native one resizes with Pillow, whatever is installed.

    Raises:
        CheckpointError: it is missing or damaged.
        MissingExtraError: it needs a package that is not installed.
    """
    native = is_native(folder)
    if native:
        pass  # registers its processor
    else:
        find_model_plugins()
    problem = f"has no processor that can be loaded ({PROCESSOR_FILES})"
    with described(folder, problem, "The processor of this model"):
        processor: Any = AutoProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    if native:
        # Where torchvision is installed, transformers would take its resampler.
        processor.image_processor = pillow_image_processor(folder)
    elif not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise CheckpointError(
            f"{folder} has no processor for texts with images (a {type(processor).__name__}).",
            "Copy processor_config.json and its like from the model it comes from.",
        )
    check_pictures(processor.image_processor, folder)
    return processor


def check_pictures(image_processor: Any, folder: Path) -> None:
    """Refuse a processor that makes pictures as large as no model sees them."""
    by_number = hasattr(image_processor, "merge_size") or hasattr(image_processor, "max_pixels")
    limit = MOST_PIXELS if by_number else LARGEST_SIDE
    for name, value in image_processor.to_dict().items():
        if not re.search("size|pixels|edge|resolution", name):
            continue
        for side in value.values() if isinstance(value, dict) else [value]:
            if isinstance(side, int | float) and abs(side) > limit:
                raise CheckpointError(
                    f"{folder}: the processor (processor_config.json, preprocessor_config.json) "
                    f"makes pictures of {short(side)} pixels by `{name}`, and {limit} is most.",
                    "Copy the file from where the model was published.",
                )


def _without_package(what: str, error: Exception) -> ExgraMedError:
    """The error for what transformers cannot import: of the extra, or of this model alone."""
    if any(find_spec(module) is None for module in ("torchvision", "num2words")):
        return MissingExtraError(what, "vlm")
    reason = str(error).strip().splitlines()[0].partition(" Check out")[0]
    return CheckpointError(
        f"{what} needs a package that is not installed or does not work: {reason}",
        "Install that package.",
    )


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
    if not is_native(folder):
        raise CheckpointError(
            f"{folder} holds another model than this project's own, whose tokens can be counted "
            "only with its images.",
            "Leave it out; training counts them, and refuses a record whose images do not fit.",
        )
    return load_processor(folder).tokenizer, read_config(folder).image_seq_length


def pillow_image_processor(folder: Path) -> Any:
    """The image processor of a checkpoint, always the one that resizes with Pillow.

    Raises:
        CheckpointError: the folder does not describe one that transformers has.
    """
    file = folder / "processor_config.json"
    settings = read_json_object(file).get("image_processor")
    if not settings:
        file = folder / "preprocessor_config.json"
        settings = read_json_object(file)
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file}: `image_processor` is no object.")
    kind = str(settings.pop("image_processor_type", "")).removesuffix("Pil").removesuffix("Fast")
    if not kind.endswith("ImageProcessor") or not hasattr(transformers, f"{kind}Pil"):
        raise CheckpointError(f"{folder} has an image processor of unknown type {short(kind)}.")
    with described(folder, f"has a {file.name} that cannot be used"):
        return getattr(transformers, f"{kind}Pil")(**settings)


def _refuse_original(folder: Path, config: dict[str, Any]) -> None:
    if not is_original_layout(config):
        return
    names = ("model.safetensors*", "pytorch_model.bin*")
    has_weights = any(next(folder.glob(name), None) for name in names)
    other = None if has_weights else as_something_else(folder)
    raise other or CheckpointError(
        f"{folder} is a checkpoint in the original's layout.",
        f"Convert it first: exgra-med checkpoint import {folder} "
        "--vision openai/clip-vit-large-patch14 --out DIR",
    )


def read_config(folder: Path) -> "ExgraConfig":
    """The configuration of a native checkpoint; a stock export is `connector: none`.

    Raises:
        CheckpointError: the folder has the original's layout, or another model in it.
    """
    from exgra_med.model.native import ExgraConfig

    config = read_json_object(folder / CONFIG)
    _refuse_original(folder, config)
    if config.get("model_type") not in (ExgraConfig.model_type, "llava"):
        raise CheckpointError(
            f"{folder} holds a model of type {config.get('model_type')!r}, and this is only for "
            "this project's own model."
        )
    check_settings(folder, folder_shapes(folder))
    with described(folder, f"has a {CONFIG} that cannot be used"):
        found = ExgraConfig.from_dict(config | {"model_type": ExgraConfig.model_type})
        _check_image_tokens(found, folder)
    return found


def _check_image_tokens(config: "ExgraConfig", folder: Path) -> None:
    vision: Any = config.vision_config
    made = (vision.image_size // vision.patch_size) ** 2
    keeps_first = config.vision_feature_select_strategy == "full"
    if config.image_seq_length not in (made, made + keeps_first):
        raise CheckpointError(
            f"{folder / CONFIG}: `image_seq_length` is {short(config.image_seq_length)}, and the "
            f"vision tower makes {made} tokens of a picture."
        )


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

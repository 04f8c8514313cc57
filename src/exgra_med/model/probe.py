"""What is measured on a model when it is loaded, instead of known from a table of names.

Three small pictures and a few short texts go through the model, a dozen times at most. Each figure
decides a way (packed or padded rows, which head) or refuses the model in one sentence. Figures are
kept in the user's cache, under a hash of configuration, processor and tensor shapes.

All differences are relative: largest difference over largest value.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor

from exgra_med.data.records import Turn
from exgra_med.digests import read_document, write_document
from exgra_med.errors import CheckpointError, DamagedFileError, DataError
from exgra_med.files import PROBES, cache_folder
from exgra_med.model.any_model import POSITIONS, AnyBundle, Facts, only_full_attention
from exgra_med.model.batch import Layout, TrainingExample, to_device
from exgra_med.model.chat_text import PROCESSOR_ERRORS, Told
from exgra_med.reading import decode_json

VERSION = 3
"""Of the figures; another one measures anew."""
_TALKS = (
    ("Which organ is shown?", "The left lung.", 1),
    ("Are both of one kind?", "No, they differ in size.", 2),
    ("What is a fracture?", "A broken bone.", 0),
)
_SIZES = ((60, 60), (60, 130), (130, 60))
COMPLETE = "See that model, processor, tokenizer and chat template of the folder are complete."
_APART = Layout(packed=False)
_NOTHING = Facts(0.0, 0.0, 0.0, None, None, 0.0, 0.0)


def measured(bundle: AnyBundle, folder: Path | None = None) -> Facts:
    """The facts of a model, from the cache where the folder was measured before.

    Raises:
        CheckpointError: the model cannot be trained or asked here, with the reason.
    """
    place = None if folder is None else _cache_file(folder, bundle.model.dtype)
    facts = None if place is None else _read(place)
    if facts is None:
        facts = probe(bundle)
        if place is not None:
            _keep(place, facts)
    _refuse(bundle, facts)
    return facts


def known_facts(folder: Path) -> dict[str, Facts]:
    """What was measured on a folder before, by the name of the type of its weights."""
    types = (torch.float32, torch.bfloat16, torch.float16)
    found = {str(each).removeprefix("torch."): _read(_cache_file(folder, each)) for each in types}
    return {name: facts for name, facts in found.items() if facts is not None}


@torch.no_grad()
def probe(bundle: AnyBundle) -> Facts:
    """Measure a model, which is in evaluation mode.

    Raises:
        CheckpointError: images do not enter the language model among its text, or the processor
            does not take what its own chat template writes.
    """
    bundle.facts = _NOTHING
    decoder, kind = bundle.model.get_decoder(), bundle.model.config.model_type
    if any(module is decoder for module in bundle.tower.modules()):
        raise CheckpointError(
            f"A {kind} does not say which part of it is the vision tower, so nothing says what a "
            "stage may train.",
            "Start from another model; please report this one.",
        )
    told = _told(bundle)
    own = type(bundle.processor).__name__
    with _told_in_a_sentence(f"The {own} does not take what its own chat template writes"):
        batch = _batch(bundle, told)
    _check_placeholders(bundle, batch, told)
    with _told_in_a_sentence(f"A {kind} does not take images among its text, and is not supported"):
        vectors, states = bundle.encode(batch)
    assert vectors is not None
    inputs = batch["calls"][0]["inputs"]
    return Facts(
        leak=_leak(bundle, inputs, states[0]),
        batch_difference=_batch_difference(bundle, told, vectors, batch["node_of_image"]),
        head_difference=_head_difference(bundle, inputs, states[0]),
        **_packing(bundle, told),
        **_sharing(bundle, told),
    )


@contextmanager
def _told_in_a_sentence(what: str) -> Iterator[None]:
    """Whatever a processor or model raises, its user can only be told what it is."""
    try:
        yield
    except DataError as error:
        raise CheckpointError(error.message, COMPLETE) from error
    except (*PROCESSOR_ERRORS, AttributeError) as error:
        raise CheckpointError(
            f"{what}: {str(error).splitlines()[0]}",
            COMPLETE,
        ) from error


def _told(bundle: AnyBundle) -> list[Told]:
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for width, height in _SIZES:
        noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
        pictures.append(Image.fromarray(noise.numpy()))
    told = []
    for question, answer, count in _TALKS:
        turns = [Turn(role="user", text=question), Turn(role="assistant", text=answer)]
        own, pictures = pictures[:count], pictures[count:]
        told += bundle.chat.tell(turns, own)
    return told


def _batch(
    bundle: AnyBundle,
    told: Sequence[Told],
    layout: Layout = _APART,
    images_of_nodes: bool = True,
) -> dict[str, Any]:
    text = [5] if images_of_nodes else []
    examples = [
        TrainingExample(str(n), [[t]], bool(t.images), text, []) for n, t in enumerate(told)
    ]
    batch = bundle.collate(examples, layout)
    # The texts of the graphs are no part of what is measured.
    texts = sum(not bool((call["targets"] >= 0).any()) for call in batch["calls"])
    batch |= {"calls": batch["calls"][: len(batch["calls"]) - texts]}
    return to_device(batch, bundle.model.device)


def _check_placeholders(bundle: AnyBundle, batch: dict[str, Any], told: Sequence[Told]) -> None:
    ids = batch["calls"][0]["input_ids"]
    found = (ids == bundle.image_token_id).any(1).tolist()
    if found != [bool(each.images) for each in told]:
        raise CheckpointError(
            f"The processor of a {bundle.model.config.model_type} writes no image tokens into the "
            "text, so nothing says where an image is; such models are not supported.",
            "Start from a model that puts image tokens among the text.",
        )


def _leak(bundle: AnyBundle, inputs: dict[str, Any], states: Tensor) -> float:
    """How much another last token changes the states before it."""
    ids, mask = inputs["input_ids"].clone(), inputs["attention_mask"]
    last = mask.sum(1) - 1
    # Any other token of text: the nearest before it that differs and is no placeholder.
    for row, place in enumerate(last.tolist()):
        taken = (int(ids[row, place]), bundle.image_token_id)
        ids[row, place] = [token for token in ids[row, :place].tolist() if token not in taken][-1]
    changed, _ = bundle.states(inputs | {"input_ids": ids})
    before = torch.arange(ids.shape[1], device=ids.device) < last.unsqueeze(1)
    return _difference(changed[before], states[before])


def _batch_difference(
    bundle: AnyBundle, told: Sequence[Told], vectors: Tensor, nodes: Tensor
) -> float:
    worst = 0.0
    with_image = [each for each in told if each.images]
    for number, each in enumerate(with_image):
        alone, _ = bundle.encode(_batch(bundle, [each]))
        assert alone is not None
        own = vectors[nodes == number]
        worst = max(worst, _difference(alone.mean(0), own.mean(0)))
    return worst


def _head_difference(bundle: AnyBundle, inputs: dict[str, Any], states: Tensor) -> float:
    kept = inputs["attention_mask"].bool()
    known = {name: bundle._as_weights(value) for name, value in inputs.items()}
    theirs = bundle.model(**known).logits[kept]
    return _difference(bundle.model.get_output_embeddings()(states)[kept], theirs)


def _packing(bundle: AnyBundle, told: Sequence[Told]) -> dict[str, Any]:
    """The ways in which rows may hold several sequences, and the differences that were found."""
    found: dict[str, Any] = {}
    for kind in ("text", "image"):
        found |= {f"{kind}_packing": None, f"{kind}_difference": float("inf")}
        own = [each for each in told if bool(each.images) == (kind == "image")]
        own = own if len(own) > 1 else [own[0], *bundle.chat.tell(_ANOTHER, [])]
        apart = _supervised(bundle, _batch(bundle, own))
        for way in POSITIONS:
            if way == "rope" and not hasattr(bundle.model.base_model, "get_rope_index"):
                continue
            bundle.facts = replace(_NOTHING, text_packing=way, image_packing=way)
            try:
                joined = _supervised(bundle, _batch(bundle, own, Layout(tokens_per_row=4096)))
            except (*PROCESSOR_ERRORS, DataError):
                # A model may refuse such rows outright, which is an answer too.
                continue
            finally:
                bundle.facts = _NOTHING
            difference = _difference(joined, apart)
            found[f"{kind}_difference"] = min(found[f"{kind}_difference"], difference)
            # In half precision rounding is as large as what is looked for.
            if difference <= bundle.tolerance / 10 and bundle.model.dtype == torch.float32:
                found[f"{kind}_packing"] = way
                break
    return found


def _sharing(bundle: AnyBundle, told: Sequence[Told]) -> dict[str, Any]:
    """Whether two texts about one image may share its tokens, and the difference that was found."""
    images = told[0].images
    pair = [
        replace(each, shows=("same",)) for each in (told[0], *bundle.chat.tell(_ANOTHER, images))
    ]
    difference = float("inf")
    # The mask that hides one text from the other knows no window and no other kind of layer.
    if not only_full_attention(bundle.model.config.get_text_config()):
        return {"shares_images": False, "sharing_difference": difference}
    apart = _supervised(bundle, _batch(bundle, pair, images_of_nodes=False))
    bundle.facts = replace(_NOTHING, image_packing="plain", shares_images=True)
    try:
        batch = _batch(bundle, pair, Layout(tokens_per_row=4096), images_of_nodes=False)
        shared = sum(call["inputs"].get("attention_mask") is not None for call in batch["calls"])
        if shared:
            difference = _difference(_supervised(bundle, batch), apart)
    except (*PROCESSOR_ERRORS, DataError):
        pass  # a model may refuse such a mask outright, which is an answer too
    finally:
        bundle.facts = _NOTHING
    exact = difference <= bundle.tolerance / 10 and bundle.model.dtype == torch.float32
    return {"shares_images": exact, "sharing_difference": difference}


_ANOTHER = [
    Turn(role="user", text="Is the heart enlarged in this picture?"),
    Turn(role="assistant", text="Yes, clearly, on both sides."),
]


def _supervised(bundle: AnyBundle, batch: dict[str, Any]) -> Tensor:
    """Hidden states of the supervised positions, in the order of the samples."""
    _, states = bundle.encode(batch)
    return torch.cat(
        [h[call["targets"] >= 0] for h, call in zip(states, batch["calls"], strict=True)]
    )


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference over largest value; infinite where one of them is not finite."""
    if one.shape != other.shape or not bool(
        torch.isfinite(one).all() & torch.isfinite(other).all()
    ):
        return float("inf")
    scale = max(float(other.abs().max()), 1e-30)
    return float((one.float() - other.float()).abs().max()) / scale


def _refuse(bundle: AnyBundle, facts: Facts) -> None:
    problem = refusal(bundle.model.config.model_type, facts, bundle.tolerance)
    if problem is not None:
        raise problem


def refusal(kind: str, facts: Facts, limit: float) -> CheckpointError | None:
    """Why a model of a kind with such facts cannot be used here; `limit` is what rounding may
    make."""
    if not facts.leak <= limit:
        return CheckpointError(
            f"A {kind} lets its question see its answer (what comes later changes what stands "
            f"before by {facts.leak:.0e}), so answers would leak into training; such models are "
            "not supported.",
            "Start from a model with causal attention.",
        )
    if not facts.batch_difference <= limit:
        return CheckpointError(
            f"A {kind} gives an image another vector in a batch than alone (by "
            f"{facts.batch_difference:.0e}), so results would depend on the batch.",
            "Start from another model; please report this one.",
        )
    return None


def _cache_file(folder: Path, dtype: torch.dtype) -> Path:
    """Where the facts of a folder are kept."""
    digest = hashlib.sha256()
    about = [VERSION, torch.__version__, transformers.__version__, str(dtype)]
    digest.update(json.dumps(about).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".model", ".txt"):
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix == ".safetensors":
            digest.update(path.name.encode() + _header(path))
    return cache_folder() / PROBES / f"{digest.hexdigest()[:32]}.json"


def _header(path: Path) -> bytes:
    """Names, types and shapes of the tensors of a safetensors file."""
    with path.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little"))


def _read(place: Path) -> Facts | None:
    try:
        text = read_document(place)["facts"]
        # What was not measured is infinite.
        return Facts(**decode_json(text, str(place), finite=False))
    except (DamagedFileError, DataError, KeyError, TypeError):
        return None  # not there, of another version, or not what was written: measured anew


def _keep(place: Path, facts: Facts) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # As a text: infinity is no value of JSON.
        write_document(place, {"facts": json.dumps(asdict(facts))})
    except OSError:
        return  # a home that cannot be written to: it is measured every time

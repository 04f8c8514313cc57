"""What a run is made from, back to base models and data sets, and the terms each brings along."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.data.prepared import open_prepared
from exgra_med.errors import DataError
from exgra_med.evaluation.run_folder import read_recipe
from exgra_med.model.published import LICENCES, published_checkpoint

NOT_STATED = "not stated"
RESEARCH_ONLY = ("research only", "CC BY-NC", "no competing use")
"""Words of a licence that forbid commercial use of what is made from it."""

BASE_MODELS = {
    "huggyllama/llama-7b": "LLaMA licence, research only",
    "openai/clip-vit-large-patch14": "MIT",
    "openai/clip-vit-large-patch14-336": "MIT",
    "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": "MIT",
    "TinyLlama/TinyLlama_v1.1": "Apache-2.0",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "Apache-2.0",
}
"""Licences that base models of the shipped recipes state on the hub."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One thing that a model was made from."""

    kind: str
    name: str
    licence: str
    fingerprint: str = ""


def lineage(run: Path) -> list[Ancestor]:
    """Everything a run was made from, nearest first; each thing once.

    Args:
        run: a run folder.

    Raises:
        RunError: the folder is no run.
    """
    found: dict[Ancestor, None] = {}
    seen: set[Path] = set()
    place: Path | None = run
    while place is not None and place.resolve() not in seen:
        seen.add(place.resolve())
        recipe = read_recipe(place)
        found |= dict.fromkeys(_data(place, recipe))
        model = recipe.get("model") or {}
        start = model.get("start")
        if start and (Path(start) / "recipe.yaml").is_file():
            place = _run_of(Path(start))
            origin = Ancestor("earlier run", str(read_recipe(place).get("name")), "as below")
            found |= {origin: None}
        else:
            found |= dict.fromkeys(_origin(model))
            place = None
    return list(found)


def forbids_commerce(ancestors: list[Ancestor]) -> bool:
    """Whether something in the chain allows research alone."""
    return any(word in each.licence for each in ancestors for word in RESEARCH_ONLY)


def _run_of(folder: Path) -> Path:
    """The run itself, also where one of its checkpoints was named: these have a recipe, too."""
    for each in (folder, *folder.parents[:3]):
        if (each / "record.json").is_file() and (each / "recipe.yaml").is_file():
            return each
    return folder


def _origin(model: dict[str, Any]) -> list[Ancestor]:
    if model.get("architecture"):
        return [Ancestor("weights", "random, from sizes in the recipe", "inherits nothing")]
    if model.get("parts"):
        parts = model["parts"]
        return [
            Ancestor(kind, _shown(parts[key]), BASE_MODELS.get(parts[key], NOT_STATED))
            for kind, key in (("language model", "language"), ("vision tower", "vision"))
        ]
    start = str(model.get("start"))
    imported = Path(start) / "import.json"
    if imported.is_file():
        facts = json.loads(imported.read_text(encoding="utf-8"))
        name = f"{facts.get('source')}, revision {facts.get('revision') or NOT_STATED}"
        return [Ancestor("imported checkpoint", name, "; ".join(facts.get("licences", LICENCES)))]
    if published_checkpoint(start):
        return [Ancestor("published checkpoint", start, "; ".join(LICENCES))]
    return [Ancestor("checkpoint", _shown(start), BASE_MODELS.get(start, NOT_STATED))]


def _data(run: Path, recipe: dict[str, Any]) -> list[Ancestor]:
    """The data of every stage: as recorded when it was read, with the licence of its manifest."""
    path = run / "record.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    used = record.get("data") or {}
    found = []
    for stage in recipe.get("stages") or {}:
        facts = used.get(stage) or {}
        folder = str(facts.get("folder") or "")
        name, licence = _dataset(folder, facts.get("fingerprint"))
        found.append(Ancestor("training data", name, licence, facts.get("fingerprint") or ""))
    return found


def _dataset(folder: str, fingerprint: str | None) -> tuple[str, str]:
    """Name and licence by the manifest, where the folder is still the one that was read."""
    try:
        prepared = open_prepared(folder)
    except DataError:
        return _shown(folder) or NOT_STATED, NOT_STATED
    if fingerprint and prepared.fingerprint != fingerprint:
        return _shown(folder), f"{NOT_STATED} (the folder has changed since)"
    manifest = prepared.manifest
    variant = f", {manifest['variant']}" if manifest.get("variant") else ""
    licence = str(manifest.get("licence") or NOT_STATED)
    # What `data prepare custom` can say about somebody's own data.
    return f"{manifest['dataset']}{variant}", NOT_STATED if licence == "yours" else licence


def _shown(place: str) -> str:
    """A hub name as it is, of a folder only its own name: paths tell about people and machines."""
    return place if place.count("/") == 1 and not Path(place).exists() else Path(place).name

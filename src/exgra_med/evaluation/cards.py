"""The model card of a run: licences, data, settings, hashes, scores with intervals, limits."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.data.records import NOT_STATED, open_prepared
from exgra_med.digests import read_document
from exgra_med.errors import DataError, RecipeError, RunError
from exgra_med.evaluation.report.page import gather, template_environment
from exgra_med.evaluation.session import read_recipe
from exgra_med.files import write_text
from exgra_med.model.bundle import shown_architectures
from exgra_med.model.published import LICENCES, NOTICE, published_checkpoint
from exgra_med.model.small_parts import ORIGIN, WEIGHTS
from exgra_med.model.verification import file_hashes
from exgra_med.reading import parse_yaml, read_object, read_text

RESEARCH_ONLY = ("research only", "-research", "cc by-nc", "cc-by-nc", "no competing use")
"""Words of a licence, in small letters, that forbid commercial use of what is made from it."""

BASE_MODELS = {
    "huggyllama/llama-7b": "LLaMA licence, research only",
    "openai/clip-vit-large-patch14": "MIT",
    "openai/clip-vit-large-patch14-336": "MIT",
    "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": "MIT",
    "TinyLlama/TinyLlama_v1.1": "Apache-2.0",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "Apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "Apache-2.0",
    "facebook/dinov2-small": "Apache-2.0",
}
"""Licences that base models of the shipped recipes, and the small parts, state on the hub."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One thing that a model was made from."""

    kind: str
    name: str
    licence: str
    fingerprint: str = ""


def lineage(run: Path) -> list[Ancestor]:
    """Everything a run was made from, back to base models and data sets; each thing once.

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
            folder = Path(start)
            # The run itself, also where one of its checkpoints was named: these have a recipe, too.
            near = (folder, *folder.parents[:3])
            files = ("record.json", "recipe.yaml")
            runs = (each for each in near if all((each / name).is_file() for name in files))
            place = next(runs, folder)
            name = str(read_recipe(place).get("name"))
            found |= {Ancestor("earlier run", name, "as below"): None}
        else:
            found |= dict.fromkeys(_origin(model))
            place = None
    return list(found)


def forbids_commerce(ancestors: list[Ancestor]) -> bool:
    """Whether something in the chain allows research alone."""
    return any(word in each.licence.lower() for each in ancestors for word in RESEARCH_ONLY)


def _origin(model: dict[str, Any]) -> list[Ancestor]:
    if model.get("architecture"):
        return [Ancestor("weights", "random, from sizes in the recipe", "inherits nothing")]
    if model.get("parts"):
        parts = model["parts"]
        roles = (("language model", "language"), ("vision tower", "vision"))
        return [each for kind, key in roles for each in _checkpoint(kind, parts[key])]
    start = str(model.get("start"))
    imported = Path(start) / "import.json"
    if imported.is_file():
        facts = read_object(imported, RunError)
        name = f"{facts.get('source')}, revision {facts.get('revision') or NOT_STATED}"
        return [Ancestor("imported checkpoint", name, "; ".join(facts.get("licences", LICENCES)))]
    if published_checkpoint(start):
        return [Ancestor("published checkpoint", start, "; ".join(LICENCES))]
    return _checkpoint("checkpoint", start)


def _checkpoint(kind: str, start: str) -> list[Ancestor]:
    """A model or a part of any family, and what its own card says that it was made from."""
    folder = _folder_of(start)
    said = _front_matter(folder / "README.md") if folder is not None else {}
    config = _json(folder / "config.json") if folder is not None else {}
    origin = _json(folder / ORIGIN) if folder is not None else {}
    architecture = shown_architectures(config)
    licence = said.get("license_name") or said.get("license") or NOT_STATED
    name = f"{_shown(start)} ({architecture})" if architecture else _shown(start)
    if origin:
        name = f"{name}, from {origin.get('source')}"
    sha256 = (origin.get("files") or {}).get(WEIGHTS, "")
    found = [Ancestor(kind, name, BASE_MODELS.get(start, str(licence)), sha256)]
    bases = said.get("base_model") or []
    for base in bases if isinstance(bases, list) else [bases]:
        found.append(Ancestor("base model", str(base), BASE_MODELS.get(str(base), NOT_STATED)))
    return found


def _folder_of(start: str) -> Path | None:
    """The folder of a checkpoint, of a hub name that in the cache; none where it is not here."""
    if Path(start).is_dir():
        return Path(start)
    if start.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(start, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def _front_matter(card: Path) -> dict[str, Any]:
    """What the head of a model card says; nothing where there is none."""
    try:
        text = read_text(card)
        values = parse_yaml(text.split("---")[1], str(card)) if text.startswith("---") else {}
    except (IndexError, DataError, RecipeError):
        return {}
    return values if isinstance(values, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except DataError:
        return {}


def _data(run: Path, recipe: dict[str, Any]) -> list[Ancestor]:
    """The data of every stage: as recorded when it was read, with the licence of its manifest."""
    path = run / "record.json"
    record = read_document(path) if path.is_file() else {}
    used = _object(record.get("data"))
    found = []
    for stage in recipe.get("stages") or {}:
        facts = _object(used.get(stage))
        folder = str(facts.get("folder") or "")
        name, licence = _dataset(folder, facts.get("fingerprint"))
        found.append(Ancestor("training data", name, licence, str(facts.get("fingerprint") or "")))
    return found


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


def write_model_card(run: Path, out: Path) -> Path:
    """Write the card of a run as Markdown with the front matter that model hubs read; gives `out`.

    A finished checkpoint is hashed, and scores are shown as far as there.

    Raises:
        RunError: the folder is no run.
        MissingExtraError: jinja2 is not installed.
        WriteError: the file cannot be written.
    """
    write_text(out, model_card(run))
    return out


def model_card(run: Path) -> str:
    """The card as text; see `write_model_card`."""
    recipe = read_recipe(run)
    ancestors = lineage(run)
    report = gather(run)
    values = {
        "report": report,
        # Paths tell about people and machines, and hashes say what was read.
        "provenance": [row for row in report.provenance if not row[0].endswith("folder")],
        "ancestors": ancestors,
        "research_only": forbids_commerce(ancestors),
        "not_stated": sorted({each.name for each in ancestors if "not stated" in each.licence}),
        "stages": [_stage(name, stage) for name, stage in (recipe.get("stages") or {}).items()],
        "hashes": _hashes(run, recipe),
        "base_models": _base_models(ancestors),
        "notice": NOTICE,
        "seed": recipe.get("seed", 0),
    }
    card = template_environment(escape=False).get_template("model-card.md.j2")
    return card.render(values)


def _base_models(ancestors: list[Ancestor]) -> list[str]:
    """Hub names among the models that a run was made from, for the head of its card."""
    models = ("checkpoint", "base model", "language model", "vision tower")
    names = [each.name.split(" ")[0] for each in ancestors if each.kind in models]
    return [name for name in dict.fromkeys(names) if name.count("/") == 1]


def _stage(name: str, stage: dict[str, Any]) -> tuple[str, str, str]:
    """Name, what is trained, and the settings that a reader asks for first."""
    alignment = stage.get("alignment")
    # Runs of version 0.1 call it `accumulation_steps`.
    accumulated = stage.get("gradient_accumulation_steps", stage.get("accumulation_steps"))
    steps = stage.get("max_steps")
    settings = [
        f"{steps} steps" if steps else f"{stage['epochs']} epochs",
        f"{stage['batch_size']} x {accumulated} records a step on one device",
        f"learning rate {stage['learning_rate']}{_of_parts(stage)}",
        str(stage["precision"]),
    ]
    if alignment:
        settings.append(f"alignment {alignment['objective']}, weight {alignment['weight']}")
    if stage.get("lora"):
        settings.append(f"LoRA rank {stage['lora']['rank']}")
    # Runs of version 0.1 call it `learn`.
    trained = stage.get("trainable") or stage.get("learn") or []
    return name, ", ".join(trained), "; ".join(settings)


def _of_parts(stage: dict[str, Any]) -> str:
    """Learning rates of single parts, behind that of the stage."""
    rates = stage.get("learning_rates") or {}
    return "".join(f", of {part} {rate}" for part, rate in rates.items())


def _hashes(run: Path, recipe: dict[str, Any]) -> dict[str, str]:
    """sha256 of the files of the last stage's checkpoint; empty where it is not there."""
    stages = list(recipe.get("stages") or {})
    final = run / "checkpoints" / stages[-1] / "final" if stages else run
    return file_hashes(final) if final.is_dir() and stages else {}


def write_data_card(folder: str | Path, out: Path) -> Path:
    """Write the card of a prepared folder as Markdown, front matter as hubs read it; gives `out`.

    Raises:
        DataError: not a prepared folder.
        MissingExtraError: jinja2 is not installed.
        WriteError: the file cannot be written.
    """
    write_text(out, data_card(folder))
    return out


def data_card(folder: str | Path) -> str:
    """The card as text; see `write_data_card`."""
    prepared = open_prepared(folder)
    manifest = prepared.manifest
    stated = str(manifest.get("licence") or "")
    # Which rows were left out may be nobody's business.
    reasons = Counter(
        str(row.get("reason", NOT_STATED)) if isinstance(row, dict) else NOT_STATED
        for row in manifest.get("dropped") or []
    )
    values = {
        "manifest": manifest,
        "fingerprint": prepared.fingerprint,
        # Earlier versions wrote "yours" for data of somebody's own.
        "licence": "" if stated in ("yours", NOT_STATED) else stated,
        "origin": manifest.get("origin", ""),
        "rows": [_split(manifest, split) for split in prepared.splits],
        "dropped": dict(reasons.most_common()),
        "notes": {
            name.replace("_", " "): note
            for name, note in (manifest.get("notes") or {}).items()
            if isinstance(note, str | int | float)
        }
        | _left_out(manifest),
        "sources": manifest.get("sources") or {},
        "made_from": (manifest.get("made_from") or {}).get("fingerprint", ""),
    }
    return template_environment(escape=False).get_template("data-card.md.j2").render(values)


def _left_out(manifest: dict[str, Any]) -> dict[str, str]:
    columns = (manifest.get("notes") or {}).get("identifiers_left_out") or {}
    return {"columns left out, may say who a person is": ", ".join(columns)} if columns else {}


def _split(manifest: dict[str, Any], split: str) -> dict[str, Any]:
    kinds = (manifest.get("counts_by_type") or {}).get(split) or {}
    return {
        "name": split,
        "count": manifest["counts"][split],
        "kinds": ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        "sha256": manifest["files"].get(f"{split}.jsonl", ""),
    }

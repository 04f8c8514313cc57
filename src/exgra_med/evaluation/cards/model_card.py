"""The model card of a run: licences, data, settings, hashes, scores with intervals, limits."""

from pathlib import Path
from typing import Any

from exgra_med.evaluation.cards.lineage import forbids_commerce, lineage
from exgra_med.evaluation.report.content import gather
from exgra_med.evaluation.report.environment import template_environment
from exgra_med.evaluation.run_folder import read_recipe
from exgra_med.files import write_text
from exgra_med.model.published import NOTICE
from exgra_med.model.verification import file_hashes


def write_model_card(run: Path, out: Path) -> Path:
    """Write the card of a run as Markdown with the front matter that model hubs read.

    Args:
        run: a run folder; a finished checkpoint is hashed, and scores are shown as far as there.
        out: the file to write.

    Returns:
        `out`.

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
        "notice": NOTICE,
        "seed": recipe.get("seed", 0),
    }
    card = template_environment(escape=False).get_template("model-card.md.j2")
    return card.render(values)


def _stage(name: str, stage: dict[str, Any]) -> tuple[str, str, str]:
    """Name, what is trained, and the settings that a reader asks for first."""
    alignment = stage.get("alignment")
    settings = [
        f"{stage.get('max_steps')} steps"
        if stage.get("max_steps")
        else f"{stage['epochs']} epochs",
        f"{stage['batch_size']} x {stage['gradient_accumulation_steps']} records a step "
        "on one device",
        f"learning rate {stage['learning_rate']}",
        str(stage["precision"]),
    ]
    if alignment:
        settings.append(f"alignment {alignment['objective']}, weight {alignment['weight']}")
    if stage.get("lora"):
        settings.append(f"LoRA rank {stage['lora']['rank']}")
    return name, ", ".join(stage["trainable"]), "; ".join(settings)


def _hashes(run: Path, recipe: dict[str, Any]) -> dict[str, str]:
    """sha256 of the files of the last stage's checkpoint; empty where it is not there."""
    stages = list(recipe.get("stages") or {})
    final = run / "checkpoints" / stages[-1] / "final" if stages else run
    return file_hashes(final) if final.is_dir() and stages else {}

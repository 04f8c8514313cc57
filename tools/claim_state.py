"""Keep what is finished of the study `real-small` in the repository, and go on from it elsewhere.

    PYTHONPATH=src python tools/claim_state.py keep runs/real-small runs/small/connector
    PYTHONPATH=src python tools/claim_state.py restore runs/real-small runs/small/connector
    PYTHONPATH=src python tools/claim_state.py publish runs/real-small

`keep` packs every finished cell (results, answers, log, recipe, versions; no weights) and the
trained connector, without which a cell cannot be repeated. `restore` unpacks them; the rest of the
model that the cells start from is made anew out of the two pretrained parts. `publish` reports what
is finished and copies numbers, table and figures to where the page of the study takes them from; it
needs the folder with the study's data as working folder.
"""

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file, save

from exgra_med.data.records import file_sha256
from exgra_med.digests import write_digests
from exgra_med.files import new_folder, write_bytes, write_text
from exgra_med.lab.studies.collect import collect
from exgra_med.lab.studies.differing import find_differing
from exgra_med.lab.studies.figures import questions_figure
from exgra_med.lab.studies.folder import is_finished, open_study
from exgra_med.lab.studies.plan import plan_study
from exgra_med.lab.studies.report import RESULTS_FILE, TABLE_FILE, write_outcome
from exgra_med.lab.studies.schema import STUDY_FILE, read_study
from exgra_med.model.any_model import AnyBundle
from exgra_med.model.bundle import save_bundle
from exgra_med.model.join import join_parts
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import last_checkpoint_of

PROJECT = Path(__file__).resolve().parents[1]
KEPT = PROJECT / "benchmarks" / "results" / "real-small-runs"
PUBLISHED = PROJECT / "benchmarks" / "results" / "studies" / "real-small"
DRAWN = PROJECT / "docs" / "figures"
FIGURES = {
    "figure.svg": "study-real-small.svg",
    "figure-differences.svg": "study-real-small-difference.svg",
}
QUESTIONS = "study-real-small-questions.svg"
MAY_BE_SHOWN = {("X-Ray", "Lung"), ("MRI", "Brain"), ("MRI", "Brain_Tissue")}
"""Of SLAKE's pictures those that may be published anew, by what their kind says of their source."""
CONNECTOR = "connector.safetensors"
WHOLE = "model.safetensors.sha256"
"""Hash of the weights of the whole model that the cells start from."""
PART = "multi_modal_projector"


def keep(study: Path, connector: Path) -> None:
    """Write what is not kept yet."""
    file = last_checkpoint_of(str(connector)) / "model.safetensors"
    weights = load_file(file)
    own = {name: value for name, value in weights.items() if PART in name}
    known = load_file(KEPT / CONNECTOR) if (KEPT / CONNECTOR).is_file() else own
    if any(not value.equal(known[name]) for name, value in own.items()):
        raise SystemExit(f"{connector} is not the connector that is kept; its cells are others.")
    KEPT.mkdir(parents=True, exist_ok=True)
    write_bytes(KEPT / CONNECTOR, save(own))
    write_text(KEPT / WHOLE, file_sha256(file) + "\n")
    (KEPT / STUDY_FILE).write_bytes((study / STUDY_FILE).read_bytes())
    known_study = read_study(study)
    for node in plan_study(known_study, study):
        out = KEPT / f"{node.id.replace('/', '__')}.tar.xz"
        if out.exists() or not is_finished(study, node, known_study):
            continue
        attempt = study / "logs" / f"{node.id.replace('/', '__')}.json"
        if json.loads(attempt.read_bytes())["state"] != "finished":
            continue  # it still removes its weights
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:xz") as archive:
            for path in (attempt, *_files(study / node.id)):
                archive.add(path, path.relative_to(study).as_posix())
        write_bytes(out, raw.getvalue())
        print(f"kept {node.id}, {len(raw.getvalue()) // 1000} kB")


def _files(cell: Path) -> Iterator[Path]:
    for path in sorted(cell.rglob("*")):
        if path.is_file() and "checkpoints" not in path.relative_to(cell).parts:
            yield path


def restore(study: Path, connector: Path) -> None:
    """Unpack what is kept into two folders, of which neither exists."""
    for folder in (study, connector):
        if folder.exists():
            raise SystemExit(f"{folder} is there. Move it away, or go on with it.")
    parts = load_recipe("small/connector").recipe.model.parts
    assert parts is not None
    bundle = AnyBundle(*join_parts(parts, seed=0))
    names = {name.removeprefix("model."): name for name in bundle.model.state_dict()}
    trained = {names[name]: value for name, value in load_file(KEPT / CONNECTOR).items()}
    bundle.model.load_state_dict(trained, strict=False)
    save_bundle(bundle, connector, write_digests)
    if file_sha256(connector / "model.safetensors") != (KEPT / WHOLE).read_text("utf-8").strip():
        raise SystemExit(
            f"{connector}: the two parts are not those that the cells were trained on."
        )
    with new_folder(study) as folder:
        (folder / STUDY_FILE).write_bytes((KEPT / STUDY_FILE).read_bytes())
        for path in sorted(KEPT.glob("*.tar.xz")):
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
            print(f"restored {path.name}")


def publish(study: Path) -> None:
    """Write the report of the study, and take its numbers, table and figures into the project."""
    results = write_outcome(study)
    PUBLISHED.mkdir(parents=True, exist_ok=True)
    for name in (STUDY_FILE, RESULTS_FILE, TABLE_FILE):
        write_bytes(PUBLISHED / name, (study / name).read_bytes())
    for name, published in FIGURES.items():
        write_bytes(DRAWN / published, (study / name).read_bytes())
    planned, nodes = open_study(study)
    differing = find_differing(
        study,
        planned,
        collect(study, planned, nodes),
        lambda question: (question.meta["modality"], question.meta["organ"]) in MAY_BE_SHOWN,
    )
    drawing = None if differing is None else questions_figure(results, differing)
    (DRAWN / QUESTIONS).unlink(missing_ok=True)  # rather none than one of older numbers
    if drawing is not None:
        write_text(DRAWN / QUESTIONS, drawing.alone)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["keep", "restore", "publish"])
    parser.add_argument("study", type=Path)
    parser.add_argument("connector", type=Path, nargs="?")
    given = parser.parse_args()
    if given.what == "publish":
        publish(given.study)
    elif given.connector is None:
        parser.error("The folder of the connector is missing.")
    else:
        {"keep": keep, "restore": restore}[given.what](given.study, given.connector)

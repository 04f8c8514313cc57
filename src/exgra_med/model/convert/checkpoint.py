"""Import and export of checkpoint folders, with provenance and recorded logits."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from exgra_med.digests import write_digests
from exgra_med.errors import CheckpointError
from exgra_med.files import new_folder
from exgra_med.model.bundle import (
    CONFIG,
    described,
    is_native,
    local_folder,
    read_json_object,
    replace_folder,
    write_json,
)
from exgra_med.model.convert.gguf import write_gguf
from exgra_med.model.convert.original import PROJECTORS, Imported, import_original
from exgra_med.model.convert.stock import write_stock
from exgra_med.model.convert.weights import read_weights
from exgra_med.model.hub import download_checkpoint
from exgra_med.model.native import load_native
from exgra_med.model.published import LICENCES, NOTICE, PROVENANCE, published_checkpoint
from exgra_med.model.verification import SOURCE, TENSORS, file_hashes, write_verification
from exgra_med.recipe.run_folder import check_checkpoint

CARD = "README.md"
EXPORTED = "export.json"
"""Marks an export and holds the hashes of the weights it was made from."""
ALIGNMENT = "alignment.safetensors"
EXPORT_FORMATS = ("hf-llava", "gguf")


def import_checkpoint(
    source: str,
    vision: str,
    out: Path,
    connector: str | None = None,
    revision: str | None = None,
    onto: Path | None = None,
    num_l: int | None = None,
) -> dict[str, Any]:
    """Convert an original checkpoint into a native folder.

    Args:
        source: a folder, a hub name, or stage 1's `mm_projector.bin`.
        vision: folder or hub name of the CLIP tower.
        connector: `none`, `dci` or `sci` where the projector's width leaves a choice.
        revision: commit of the hub to download.
        onto: native checkpoint that a projector file is put into.
        num_l: blocks in each mean of `dci` with BiomedCLIP.

    Returns:
        What was inferred and from what, as it is written to `import.json`.

    Raises:
        CheckpointError: the source is not usable; names every wrong tensor. Nothing is written.
    """
    if source.endswith("mm_projector.bin"):
        imported = _import_projector(Path(source), onto)
    else:
        if onto is not None:
            raise CheckpointError("`--onto` is for stage 1's mm_projector.bin alone.")
        published = published_checkpoint(source)
        if Path(source).is_dir() or published is None:
            folder = local_folder(source)
        elif published.folder or not published.is_importable:
            raise CheckpointError(
                f"{published.where} cannot be imported by its name.", published.how_to_use
            )
        else:
            folder = download_checkpoint(published.hub_name, revision or published.revision)
        tower = local_folder(vision)
        with described(folder, f"cannot be imported (its {CONFIG}, its tokenizer, or {tower})"):
            imported = import_original(folder, tower, connector, num_l)
    report = {
        "source": Path(source).name,
        "revision": revision,
        "vision": vision if "/" in vision and not Path(vision).exists() else Path(vision).name,
        "inferred": [asdict(each) for each in imported.inferred],
        "licences": list(LICENCES),
    }
    with replace_folder(out) as fresh:
        imported.bundle.write(fresh)
        if imported.alignment:
            save_file(
                {name: tensor.contiguous() for name, tensor in imported.alignment.items()},
                fresh / ALIGNMENT,
            )
        write_json(fresh / PROVENANCE, report)
        (fresh / CARD).write_text(_card(Path(source).name), encoding="utf-8")
        write_verification(imported.bundle, fresh)
        write_digests(fresh)
    return report


def export_checkpoint(
    source: str, out: Path, form: str = "hf-llava", llama_cpp: Path | None = None
) -> None:
    """Write a checkpoint, a folder or hub name, so that nothing of this project is needed to use
    it: `hf-llava` is a native one for plain transformers, `gguf` any other for llama.cpp.

    Args:
        llama_cpp: checkout of llama.cpp with the converter, where that is not on the PATH.

    Raises:
        CheckpointError: the source is not usable, or the format is unknown.
    """
    if form not in EXPORT_FORMATS:
        raise CheckpointError(f"There is no format {form!r}.", f"Use {', '.join(EXPORT_FORMATS)}.")
    folder = local_folder(source)
    check_checkpoint(folder)
    if form == "gguf":
        _export_gguf(folder, out, llama_cpp)
        return
    if not is_native(folder):
        raise CheckpointError(
            f"{folder} is plain transformers already (model type "
            f"{read_json_object(folder / CONFIG).get('model_type')}), so there is nothing to "
            "export.",
            "Copy the folder; `exgra-med serve` and other servers take it as it is. For llama.cpp "
            "take --format gguf.",
        )
    bundle = load_native(folder, dtype="auto")
    stored = read_weights([folder / TENSORS]) if (folder / TENSORS).is_file() else None
    with replace_folder(out) as fresh:
        write_stock(bundle, fresh)
        if (folder / PROVENANCE).is_file():
            write_json(fresh / PROVENANCE, read_json_object(folder / PROVENANCE))
        write_json(fresh / EXPORTED, {"format": form, "sha256": file_hashes(folder)})
        (fresh / CARD).write_text(_card(folder.name), encoding="utf-8")
        write_verification(bundle, fresh, stored, SOURCE)
        write_digests(fresh)


def _export_gguf(folder: Path, out: Path, llama_cpp: Path | None) -> None:
    if out.exists() and not (out / EXPORTED).is_file() and any(out.iterdir()):
        raise CheckpointError(
            f"{out} has files in it, but is no earlier export.", "Choose another folder."
        )
    with new_folder(out) as fresh:
        write_gguf(folder, fresh, llama_cpp)
        write_json(fresh / EXPORTED, {"format": "gguf", "sha256": file_hashes(folder)})
        if (folder / CARD).is_file():  # terms that the weights inherit
            shutil.copy2(folder / CARD, fresh)


def _import_projector(path: Path, onto: Path | None) -> Imported:
    """Stage 1's projector and embeddings, put into a complete native checkpoint."""
    if onto is None:
        raise CheckpointError(
            f"{path.name} holds a projector and embeddings, not a model.",
            "Name the checkpoint they belong into with --onto DIR.",
        )
    bundle = load_native(onto, dtype="auto")
    table = PROJECTORS["mlp2x_gelu"] | {"model.embed_tokens.": "model.language_model.embed_tokens."}
    weights = read_weights([path])
    state = bundle.model.state_dict()
    problems = []
    for prefix, native in table.items():
        for name in (name for name in weights if name.startswith(prefix)):
            target = native + name.removeprefix(prefix)
            if state[target].shape != weights[name].shape:
                shapes = f"{list(weights[name].shape)}, not {list(state[target].shape)}"
                problems.append(f"wrong shape: {name} is {shapes}")
            else:
                state[target].copy_(weights[name])
    problems += [f"unexpected: {name}" for name in weights if not name.startswith(tuple(table))]
    if problems:
        raise CheckpointError(f"{path} does not fit {onto}:\n  " + "\n  ".join(problems))
    return Imported(bundle, {})


def _card(name: str) -> str:
    licences = "\n".join(f"* {licence}" for licence in LICENCES)
    return f"# {name}\n\n{NOTICE}\n\nTerms this checkpoint inherits:\n\n{licences}\n"

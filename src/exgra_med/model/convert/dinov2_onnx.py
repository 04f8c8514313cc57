"""The DINOv2 inside an ONNX file -> a folder of transformers.

Source: an ONNX file is one message of protocol buffers, described in `onnx.proto` of ONNX. Read is
what that one file holds; its hash was compared before, so a file that is damaged or of another kind
never comes here.
"""

from collections.abc import Iterator
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import Dinov2Config

from exgra_med.model.bundle import write_json

BACKBONE = "backbone."
"""What the names of the tower's weights begin with."""
HEAD_WIDTH = 64
"""Of every published DINOv2."""
PREPROCESSING = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""How images are prepared for a published DINOv2."""


def write_dinov2(source: Path, folder: Path) -> None:
    """Write the tower, its configuration and how its images are prepared into an empty folder.

    Args:
        source: an ONNX file that PyTorch exported from a model with a DINOv2 as `backbone`.
        folder: becomes a `Dinov2Model`, its weights under their published names.
    """
    arrays, multiplied = read_onnx(source)
    state = {
        name.removeprefix(BACKBONE): value
        for name, value in arrays.items()
        if name.startswith(BACKBONE)
    }
    # The exporter turned each linear layer into a product with a nameless, transposed matrix.
    for node, weight in multiplied.items():
        path = node.strip("/").replace("/", ".").removesuffix(".MatMul")
        if path.startswith(BACKBONE):
            state[f"{path.removeprefix(BACKBONE)}.weight"] = np.ascontiguousarray(arrays[weight].T)
    width = state["embeddings.cls_token"].shape[-1]
    nameless = [value for name, value in arrays.items() if name.startswith("onnx::")]
    # It took them apart for towers that see another size: the class token's, and the patches'.
    positions = [each for each in nameless if each.ndim == 3 and each.shape[::2] == (1, width)]
    positions.sort(key=np.size)
    state["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    # Stands for hidden patches, which only DINOv2's own training has.
    state["embeddings.mask_token"] = np.zeros((1, width), np.float32)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    patch = state["embeddings.patch_embeddings.projection.weight"].shape[-1]
    Dinov2Config(
        architectures=["Dinov2Model"],
        hidden_size=width,
        num_hidden_layers=sum(name.endswith("layer_scale1.lambda1") for name in state),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=isqrt(positions[-1].shape[1]) * patch,
        patch_size=patch,
        dtype="float32",
    ).save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", PREPROCESSING)


def read_onnx(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The float32 arrays of an ONNX file, and for each product `MatMul` the array it is with.

    Returns:
        Name to array, and name of the node to name of the array.
    """
    (graph,) = (value for number, value in _fields(memoryview(path.read_bytes())) if number == 7)
    arrays, multiplied = {}, {}
    for number, value in _fields(graph):
        if number == 5:
            name, array = _array(value)
            arrays[name] = array
        elif number == 1:
            inputs, name, kind = _node(value)
            if kind == "MatMul":
                multiplied[name] = inputs
    # The weights stand behind the nodes.
    constant = {
        name: [each for each in inputs if each in arrays] for name, inputs in multiplied.items()
    }
    return arrays, {name: found[0] for name, found in constant.items() if found}


def _array(message: memoryview) -> tuple[str, NDArray[np.float32]]:
    """Name and content of a `TensorProto`."""
    shape, name, content = [], "", memoryview(b"")
    for number, value in _fields(message):
        if number == 1:
            shape.append(value)
        elif number == 8:
            name = bytes(value).decode()
        elif number == 9:
            content = value
    return name, np.frombuffer(content, "<f4").reshape(shape)


def _node(message: memoryview) -> tuple[list[str], str, str]:
    """Inputs, name and kind of a `NodeProto`."""
    texts: dict[int, list[str]] = {1: [], 3: [""], 4: [""]}
    for number, value in _fields(message):
        if number in texts:
            texts[number].append(bytes(value).decode())
    return texts[1], texts[3][-1], texts[4][-1]


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: a number, or the bytes of anything longer."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
        else:
            # Eight bytes, bytes with their length before them, four bytes.
            size, place = _varint(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value = message[place : place + size]
            place += size
        yield key >> 3, value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place

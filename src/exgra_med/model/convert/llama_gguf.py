"""SmolLM2 as one GGUF file -> a folder of transformers, its weights back in float32.

Source: the format is described in `docs/gguf.md` of ggml, the blocks of quantised weights in its
`ggml-quants.c`. Read is what that one file holds; its hash was compared before, so a file that is
damaged or of another kind never comes here.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_NUMBERS |= {12: "d"}
_TEXT, _ARRAY = 8, 9
_ALIGNMENT = 32
"""Bytes; the weights begin at a multiple of it, unless the file says another."""
_BLOCK = 32
"""Weights that share a scale."""
_CONTROL = 3
"""Kind of a token that is a sign of the prompt, no text."""

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Layers of a LLaMA as GGUF and as transformers name them."""


def write_smollm2(source: Path, folder: Path) -> None:
    """Write weights, configuration and tokenizer into an empty folder.

    Args:
        source: a GGUF file of a SmolLM2, in float32, Q4_1 or Q8_0.
        folder: becomes a `LlamaForCausalLM`.
    """
    facts, weights = read_gguf(source)
    heads = {
        "attn_q": facts["llama.attention.head_count"],
        "attn_k": facts["llama.attention.head_count_kv"],
    }
    state = {}
    for name, value in weights.items():
        *block, layer, _ = name.split(".")
        if layer in heads:
            value = _halves(value, heads[layer])
        path = f"model.layers.{block[1]}." if block else ""
        state[f"{path}{NAMES[layer]}.weight"] = np.ascontiguousarray(value)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    special = {
        name: facts[f"tokenizer.ggml.{key}_token_id"]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    ids = {f"{name}_token_id": value for name, value in special.items()}
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(facts["tokenizer.ggml.tokens"]),
        hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=heads["attn_q"],
        num_key_value_heads=heads["attn_k"],
        max_position_embeddings=facts["llama.context_length"],
        # Stored in single precision, which 1e-5 is not exactly.
        rms_norm_eps=float(f"{facts['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        rope_parameters={"rope_theta": facts["llama.rope.freq_base"], "rope_type": "default"},
        tie_word_embeddings="output.weight" not in weights,
        dtype="float32",
        **ids,
    ).save_pretrained(folder)
    GenerationConfig(**ids).save_pretrained(folder)
    tokens = facts["tokenizer.ggml.tokens"]
    PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(facts),
        chat_template=facts["tokenizer.chat_template"],
        model_max_length=facts["llama.context_length"],
        unk_token=tokens[facts["tokenizer.ggml.unknown_token_id"]],
        **{f"{name}_token": tokens[value] for name, value in special.items()},
    ).save_pretrained(folder)


def _halves(weight: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """A query or key projection [rows, D] with the rows of each head as transformers turns them.

    The rotary position turns pairs of rows: neighbours in GGUF, the two halves of a head here.
    """
    rows, width = weight.shape
    return weight.reshape(num_heads, -1, 2, width).swapaxes(1, 2).reshape(rows, width)


def _tokenizer(facts: dict[str, Any]) -> Tokenizer:
    """The byte-level tokenizer of SmolLM2, in which every digit is a token of its own."""
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(each.split(" ")) for each in facts["tokenizer.ggml.merges"]]
    tokenizer: Any = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, facts["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in kinds
            if kind == _CONTROL
        ]
    )
    return tokenizer


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """What a GGUF file says about its model, and its weights by name, in float32."""
    reader = _Reader(path.read_bytes())
    _, _, num_tensors, num_facts = (reader.number(code) for code in ("I", "I", "Q", "Q"))
    facts = {reader.text(): reader.value(reader.number("I")) for _ in range(num_facts)}
    found = []
    for _ in range(num_tensors):
        name = reader.text()
        # The fastest axis comes first.
        shape = [reader.number("Q") for _ in range(reader.number("I"))][::-1]
        found.append((name, shape, reader.number("I"), reader.number("Q")))
    alignment = facts.get("general.alignment", _ALIGNMENT)
    start = -(-reader.place // alignment) * alignment
    return facts, {
        name: _UNPACK[kind](reader.content, start + offset, int(np.prod(shape))).reshape(shape)
        for name, shape, kind, offset in found
    }


class _Reader:
    """Reads numbers, texts and lists from bytes, one behind the other."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def number(self, code: str) -> Any:
        """One number; the code is that of `struct`."""
        (value,) = struct.unpack_from(f"<{code}", self.content, self.place)
        self.place += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        """A length and so many bytes of UTF-8."""
        end = self.number("Q") + self.place
        value = self.content[self.place : end].decode()
        self.place = end
        return value

    def value(self, kind: int) -> Any:
        """A value of a kind of GGUF."""
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(count)]
        return self.number(_NUMBERS[kind])


def _float32(content: bytes, offset: int, count: int) -> NDArray[np.float32]:
    return np.frombuffer(content, "<f4", count, offset)


def _q8_0(content: bytes, offset: int, count: int) -> NDArray[np.float32]:
    """A scale and 32 bytes a block."""
    kind = np.dtype([("scale", "<f2"), ("steps", "i1", _BLOCK)])
    blocks = np.frombuffer(content, kind, count // _BLOCK, offset)
    return blocks["scale"].astype(np.float32)[:, None] * blocks["steps"]


def _q4_1(content: bytes, offset: int, count: int) -> NDArray[np.float32]:
    """A scale, a smallest value and 32 half bytes a block: the lower halves are the first 16."""
    kind = np.dtype([("scale", "<f2"), ("least", "<f2"), ("steps", "u1", _BLOCK // 2)])
    blocks = np.frombuffer(content, kind, count // _BLOCK, offset)
    steps = np.concatenate([blocks["steps"] & 15, blocks["steps"] >> 4], axis=1)
    scale, least = (blocks[name].astype(np.float32)[:, None] for name in ("scale", "least"))
    return scale * steps + least


_UNPACK = {0: _float32, 3: _q4_1, 8: _q8_0}
"""How the weights of a type of ggml become float32."""

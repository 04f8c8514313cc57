"""The tokenizer of an original checkpoint, and that of a language model to start from."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from exgra_med.data.chat_template import IMAGE_END, IMAGE_PATCH, IMAGE_START, PAD
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import read_json_object
from exgra_med.model.processor import add_image_tokens, llama_tokenizer
from exgra_med.reading import read_object

_VARINT, _BYTES, _FIXED = 0, 2, {1: 8, 5: 4}
"""Wire types of protocol buffers; those of fixed size with their bytes."""


def read_sentencepiece(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a SentencePiece BPE model, read without the sentencepiece library.

    `tokenizer.model` is a protocol buffer: field 1 repeats {1: piece, 2: score, 3: type}.

    Returns:
        Piece to id, and pairs of pieces, most important first.

    Raises:
        CheckpointError: the file is not a SentencePiece model.
    """
    try:
        pieces = [_piece(value) for field, value in _fields(path.read_bytes()) if field == 1]
    except (LookupError, ValueError, struct.error, TypeError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model.") from error
    # A piece is tried at every place where it could be cut.
    if not pieces or max(len(piece) for piece, _ in pieces) > 1000:
        raise CheckpointError(f"{path} is not a SentencePiece model.")
    vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
    merges = [
        (score, piece[:cut], piece[cut:])
        for piece, score in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    # The order of transformers' own conversion: among equal scores, the shortest left part first.
    merges.sort(key=lambda merge: (-merge[0], len(merge[1]), len(merge[2])))
    return vocabulary, [(left, right) for _, left, right in merges]


_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
"""Types of the pieces of a SentencePiece model."""


def sentencepiece_model(tokenizer_file: Path) -> bytes | None:
    """The inverse of `read_sentencepiece`: a `tokenizer.json` with pieces for bytes (LLaMA's,
    Gemma's) as the content of a `tokenizer.model`; none where it has no such pieces.

    SentencePiece joins the pair whose joined piece has the highest score, so a piece scores by the
    first of the merges that make it.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    tokenizer = read_json_object(tokenizer_file)
    model = tokenizer["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        return None
    added = {each["content"]: each for each in tokenizer.get("added_tokens", [])}
    ids = model["vocab"] | {token: each["id"] for token, each in added.items()}
    scores: dict[str, float] = {}
    for rank, merge in enumerate(model["merges"]):
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -rank)

    def kind(piece: str) -> int:
        if piece == model.get("unk_token"):
            return _UNKNOWN
        if re.fullmatch("<0x[0-9A-F]{2}>", piece):
            return _BYTE
        if piece in added:
            return _CONTROL if added[piece]["special"] else _USER_DEFINED
        return _NORMAL

    last = -float(len(scores))
    fields = bytearray()
    for piece in sorted(ids, key=ids.__getitem__):
        text = piece.encode()
        score = struct.pack("<f", scores.get(piece, last))
        fields += _field(1, _field(1, text) + b"\x15" + score + b"\x18" + _number(kind(piece)))
    # In the specification of the training: BPE (field 3), and pieces for bytes (field 35).
    return bytes(fields + _field(2, b"\x18\x02" + _number(35 << 3) + b"\x01"))


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """A whole number of a protocol buffer: seven bits a byte, the lowest first."""
    low = bytearray()
    while value > 127:
        low.append(value & 127 | 128)
        value >>= 7
    return bytes([*low, value])


def _piece(message: bytes | int) -> tuple[str, float]:
    if isinstance(message, int):
        raise ValueError("a piece must be a message")
    text, score = "", 0.0
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        if field == 2 and isinstance(value, bytes):
            score = struct.unpack("<f", value)[0]
    return text, score


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        else:
            length = _FIXED[kind]
        if position + length > len(message):
            raise ValueError("the message is cut short")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


ADDED = (PAD, IMAGE_PATCH, IMAGE_START, IMAGE_END)


def read_tokenizer(folder: Path, rows: int) -> PreTrainedTokenizerFast:
    """Read the tokenizer so that it encodes as the slow one of 2023 did.

    The embedding has so many rows, which must hold every token.

    Raises:
        CheckpointError: the files are missing, or the added tokens are not the original's.
    """
    config = _optional(folder / "tokenizer_config.json")
    vocabulary, merges = _pieces(folder)
    found = _added_tokens(folder, config)
    expected = {token: len(vocabulary) + i for i, token in enumerate(ADDED)}
    if {token: found.get(token) for token in ADDED} != expected:
        raise CheckpointError(
            f"The added tokens of {folder} are {found}, not {expected}.",
            "Only checkpoints trained with mm_use_im_start_end (all published ones) can be read.",
        )
    if max(expected.values()) >= rows:
        raise CheckpointError(
            f"The tokenizer of {folder} knows {max(expected.values()) + 1} tokens, but the "
            f"embedding has {rows} rows."
        )
    tokenizer = llama_tokenizer(vocabulary, merges, _token(config, "bos_token") or "<s>")
    tokenizer.model_max_length = min(int(config.get("model_max_length") or 2048), 2**31)
    return tokenizer


def read_base_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a language model, with our four tokens added.

    LLaMA's encode as the slow tokenizer of 2023 did, whatever version of the library saved them;
    byte-level ones (Llama-3, Qwen2) are taken as their `tokenizer.json` has them.

    Raises:
        CheckpointError: there is no BPE tokenizer, or it has no end-of-sequence token.
    """
    config = _optional(folder / "tokenizer_config.json")
    if _is_byte_level(folder):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            bos_token=_token(config, "bos_token"),
            eos_token=_token(config, "eos_token"),
            padding_side="left",
            clean_up_tokenization_spaces=False,
        )
        if tokenizer.eos_token_id is None:
            raise CheckpointError(f"The tokenizer of {folder} has no end-of-sequence token.")
        add_image_tokens(tokenizer)
    else:
        tokenizer = llama_tokenizer(*_pieces(folder), _token(config, "bos_token") or "<s>")
    tokenizer.model_max_length = min(int(config.get("model_max_length") or 2048), 2**31)
    return tokenizer


def _is_byte_level(folder: Path) -> bool:
    """Whether the folder has only a tokenizer without LLaMA's byte pieces."""
    path = folder / "tokenizer.json"
    if (folder / "tokenizer.model").is_file() or not path.is_file():
        return False
    model = read_json_object(path).get("model", {})
    return model.get("type") == "BPE" and not model.get("byte_fallback")


def _token(config: dict[str, Any], name: str) -> str | None:
    value = config.get(name)
    return value["content"] if isinstance(value, dict) else value


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _pieces(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    if (folder / "tokenizer.model").is_file():
        return read_sentencepiece(folder / "tokenizer.model")
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has neither tokenizer.model nor tokenizer.json.")
    model = read_json_object(path).get("model", {})
    if model.get("type") != "BPE":
        raise CheckpointError(f"{path} is not a BPE tokenizer.")
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    return model["vocab"], [(left, right) for left, right in pairs]


def _added_tokens(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    path = folder / "added_tokens.json"
    if path.is_file():
        return read_object(path, CheckpointError)
    decoder = config.get("added_tokens_decoder", {})
    return {value["content"]: int(number) for number, value in decoder.items()}

"""Pieces and merges of a SentencePiece BPE model, read without the sentencepiece library.

The file is a protocol buffer: field 1 repeats {1: piece, 2: score, 3: type}.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from exgra_med.errors import CheckpointError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_sentencepiece(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges that encode as the model does.

    Args:
        path: a `tokenizer.model` file.

    Returns:
        Piece to id, and pairs of pieces, most important first.

    Raises:
        CheckpointError: the file is not a SentencePiece model.
    """
    try:
        pieces = [_piece(value) for field, value in _fields(path.read_bytes()) if field == 1]
    except (IndexError, ValueError, struct.error, TypeError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model.") from error
    if not pieces:
        raise CheckpointError(f"{path} is not a SentencePiece model.")
    vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((score, left, right))
    # The order of transformers' own conversion: among equal scores, the shortest left part first.
    merges.sort(key=lambda merge: (-merge[0], len(merge[1]), len(merge[2])))
    return vocabulary, [(left, right) for _, left, right in merges]


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
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
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

"""Sequences of ids laid out for one call of the language model: packed, or padded one by one.

Shapes: R rows, L tokens of a row.

`input_ids` [R, L], `position_ids` [R, L] counting from 0 in every sequence, `targets` [R, L] (the
id that the position has to predict, or -100), `segment` [R, L] (which pooled text the position
belongs to, or -1), `attention_mask` [R, L] or none. Without a mask the language model tells
sequences apart by the restart of their positions, provided that it keeps no cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

IGNORED = -100
NOT_POOLED = -1


class Rows(TypedDict):
    """See the head of this file."""

    input_ids: Tensor
    position_ids: Tensor
    targets: Tensor
    segment: Tensor
    attention_mask: Tensor | None


@dataclass(frozen=True)
class Piece:
    """One sequence.

    `labels` are aligned with `ids`; the shift by one position happens here, so that no target
    leaks from one sequence into the next.
    """

    ids: list[int]
    labels: list[int] | None = None
    segment: int = NOT_POOLED

    @property
    def targets(self) -> list[int]:
        """The next id of every supervised position, none at the end."""
        if self.labels is None:
            return [IGNORED] * len(self.ids)
        return [*self.labels[1:], IGNORED]


def pack(pieces: Sequence[Piece], tokens_per_row: int, padding_id: int) -> tuple[Rows, list[int]]:
    """Lay sequences one after another in as few rows as a first fit finds, longest first.

    What is left of a row becomes a sequence of padding of its own, which nothing reads.

    Args:
        pieces: the sequences.
        tokens_per_row: length of a row; one longer sequence makes all rows as long as itself.
        padding_id: id of the padding token.

    Returns:
        The rows, and the numbers of the sequences in reading order.
    """
    length = max(tokens_per_row, *(len(piece.ids) for piece in pieces))
    rows: list[list[int]] = []
    left: list[int] = []
    for number in sorted(range(len(pieces)), key=lambda number: -len(pieces[number].ids)):
        piece = pieces[number]
        fitting = (row for row, room in enumerate(left) if room >= len(piece.ids))
        row = next(fitting, None)
        if row is None:
            row = len(rows)
            rows.append([])
            left.append(length)
        rows[row].append(number)
        left[row] -= len(piece.ids)
    longest = length - min(left)
    laid = []
    for row in rows:
        chosen = [pieces[number] for number in row]
        laid.append([*chosen, _padding(chosen, longest, padding_id)])
    return _tensors(laid, None), [number for row in rows for number in row]


def pad(pieces: Sequence[Piece], padding_id: int, pool_padding: bool) -> Rows:
    """Lay each sequence in a row of its own, padded on the right and masked.

    Args:
        pieces: the sequences.
        padding_id: id of the padding token.
        pool_padding: count padding as part of the text when it is pooled, as the original does.
    """
    longest = max(len(piece.ids) for piece in pieces)
    rows = []
    for piece in pieces:
        filler = _padding([piece], longest, padding_id)
        segment = piece.segment if pool_padding else NOT_POOLED
        rows.append([piece, Piece(filler.ids, segment=segment)])
    mask = [[1] * len(piece.ids) + [0] * len(filler.ids) for piece, filler in rows]
    laid = _tensors(rows, torch.tensor(mask))
    # Under a mask, positions run on through the padding, as they do in the original.
    laid["position_ids"] = torch.arange(longest).expand(len(rows), -1)
    return laid


def split_rows(rows: Rows, max_tokens: int | None) -> list[Rows]:
    """The same rows in several calls of at most `max_tokens`, one row at least in each."""
    count, length = rows["input_ids"].shape
    size = count if max_tokens is None else max(1, max_tokens // length)
    mask = rows["attention_mask"]
    return [
        {
            "input_ids": rows["input_ids"][start : start + size],
            "position_ids": rows["position_ids"][start : start + size],
            "targets": rows["targets"][start : start + size],
            "segment": rows["segment"][start : start + size],
            "attention_mask": None if mask is None else mask[start : start + size],
        }
        for start in range(0, count, size)
    ]


def _padding(row: Sequence[Piece], length: int, padding_id: int) -> Piece:
    return Piece([padding_id] * (length - sum(len(piece.ids) for piece in row)))


def _tensors(rows: Sequence[Sequence[Piece]], mask: Tensor | None) -> Rows:
    return {
        "input_ids": torch.tensor([[each for p in row for each in p.ids] for row in rows]),
        "position_ids": torch.tensor([[n for p in row for n in range(len(p.ids))] for row in rows]),
        "targets": torch.tensor([[each for p in row for each in p.targets] for row in rows]),
        "segment": torch.tensor([[p.segment for p in row for _ in p.ids] for row in rows]),
        "attention_mask": mask,
    }

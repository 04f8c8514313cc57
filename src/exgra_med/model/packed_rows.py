"""Right-padded rows joined into longer ones; sequences about one image may share its tokens.

A block is what stays together: one sequence, or a family of sequences that begin alike, with the
same image. Of a family the beginning stands once, then what is left of each sequence; positions go
on from the beginning in each, and a mask hides the sequences from one another. So each token sees
what it would see alone, and hidden states, loss and gradients are those of sequences apart.

Shapes: B sequences of at most L tokens; R joined rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from exgra_med.model.batch import IGNORED

Block = list[tuple[int, int, int]]
"""Number of a sequence, and the first and the last place (which is not in it) of what is taken."""
SEQUENCE, BLOCK, BEGINNING = "sequence", "block", "beginning"


def single_blocks(sizes: Sequence[int]) -> list[Block]:
    """A block for each sequence."""
    return [[(number, 0, size)] for number, size in enumerate(sizes)]


def image_blocks(
    ids: Tensor, targets: Tensor, sizes: Sequence[int], shows: Sequence[Any], placeholder: int
) -> list[Block]:
    """Blocks in which sequences with the same images share their beginning, as far as all of them
    have the same tokens there; a sequence that shares nothing is a block of its own.

    The beginning ends behind the images and before anything that is learnt.

    Args:
        ids: [B, L].
        targets: [B, L], `IGNORED` where nothing is learnt.
        sizes: tokens of each sequence.
        shows: what images a sequence has, in their order; nothing where that is not known.
        placeholder: the id of an image's tokens.
    """
    families: dict[Any, list[int]] = {}
    for number, own in enumerate(shows):
        families.setdefault(own or ("alone", number), []).append(number)
    blocks = []
    for members in families.values():
        head, *others = members
        shared = min((_alike(ids, targets, sizes, head, each) for each in others), default=0)
        if shared == 0 or (ids[head, shared : sizes[head]] == placeholder).any():
            blocks += [[(each, 0, sizes[each])] for each in members]
            continue
        tails = [(each, shared, sizes[each]) for each in others]
        blocks.append([(head, 0, shared), (head, shared, sizes[head]), *tails])
    # Images are counted in the order of the sequences that show them first.
    return sorted(blocks, key=lambda block: block[0][0])


def _alike(ids: Tensor, targets: Tensor, sizes: Sequence[int], one: int, other: int) -> int:
    """With how many equal tokens, from which nothing is learnt, two sequences begin."""
    length = min(sizes[one], sizes[other]) - 1  # something is left of each
    equal = ids[one, :length] == ids[other, :length]
    silent = (targets[one, :length] == IGNORED) & (targets[other, :length] == IGNORED)
    return int((equal & silent).cumprod(0).sum())


def joined_rows(
    columns: dict[str, Tensor], blocks: Sequence[Block], tokens_per_row: int, padding: int
) -> dict[str, Tensor]:
    """Columns [B, L] of sequences as columns [R, longest] of rows that hold blocks, in their order.

    The order stays because images follow one another in the order of the rows. What is left of a
    row becomes a sequence of padding, which nothing learns from and no image is in.

    Returns:
        The columns, and for `attention_mask` those of SEQUENCE, BLOCK and BEGINNING (1 in the part
        that a family shares).
    """
    sizes = [sum(stop - start for _, start, stop in block) for block in blocks]
    rows: list[list[int]] = [[]]
    for number, size in enumerate(sizes):
        if rows[-1] and sum(sizes[n] for n in rows[-1]) + size > tokens_per_row:
            rows.append([])
        rows[-1].append(number)
    longest = max(sum(sizes[n] for n in row) for row in rows)
    fill = {"input_ids": padding, "targets": IGNORED, "owner": -1, SEQUENCE: -1, BLOCK: -1}
    joined: dict[str, list[Tensor]] = {name: [] for name in [*columns, SEQUENCE, BLOCK, BEGINNING]}
    for row in rows:
        own = [(n, place, piece) for n in row for place, piece in enumerate(blocks[n])]
        left = longest - sum(sizes[n] for n in row)
        for name, column in columns.items():
            empty = torch.full((left,), fill.get(name, 0))
            if name.startswith("positions"):
                empty = torch.arange(left)
            pieces = [column[each, start:stop] for _, _, (each, start, stop) in own]
            joined[name].append(torch.cat([*pieces, empty.to(column.dtype)]))
        about = {
            SEQUENCE: lambda n, place, piece: piece[0],
            BLOCK: lambda n, place, piece: n,
            BEGINNING: lambda n, place, piece: int(place == 0 and len(blocks[n]) > 1),
        }
        for name, value in about.items():
            pieces = [torch.full((p[2] - p[1],), value(n, place, p)) for n, place, p in own]
            joined[name].append(torch.cat([*pieces, torch.full((left,), fill.get(name, 0))]))
    return {name: torch.stack(made) for name, made in joined.items()}


def attention_mask(rows: dict[str, Tensor]) -> Tensor:
    """[R, 1, L, L], true where a position may look: back, at its own sequence and at the beginning
    of its family."""
    sequence, block = rows[SEQUENCE], rows[BLOCK]
    own = sequence.unsqueeze(2) == sequence.unsqueeze(1)
    family = block.unsqueeze(2) == block.unsqueeze(1)
    begins = family & rows[BEGINNING].bool().unsqueeze(1)
    back = torch.ones(sequence.shape[1], sequence.shape[1], dtype=torch.bool).tril()
    return ((own | begins) & back).unsqueeze(1)


def sequence_places(rows: dict[str, Tensor], num_sequences: int) -> list[Tensor]:
    """Where the tokens of each sequence stand, its family's beginning included: numbers in the
    flattened rows, in the order of the sequence."""
    sequence, block, begins = (rows[name].flatten() for name in (SEQUENCE, BLOCK, BEGINNING))
    places = []
    for number in range(num_sequences):
        own = sequence == number
        family = (block == block[own][0]) & begins.bool()
        places.append(torch.nonzero(own | family).flatten())
    return places

"""Packed rows: nothing lost, nothing leaks, no target crosses a border."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exgra_med.model.batch import IGNORED, NOT_POOLED, TokenSequence, pack, pad

PADDING = 0


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 40))
def test_every_sequence_is_there_whole_and_in_the_order_told(lengths: list[int], room: int) -> None:
    pieces = [
        TokenSequence([number + 1] * length, [number + 1] * length, number)
        for number, length in enumerate(lengths)
    ]
    rows, order = pack(pieces, room, PADDING)
    ids, position = rows["input_ids"], rows["position_ids"]
    assert ids.shape[1] <= max(room, *lengths)
    starts = (position == 0) & (ids != PADDING)
    assert [int(each) - 1 for each in ids[starts]] == order
    for number, length in enumerate(lengths):
        at = ids == number + 1
        assert position[at].tolist() == list(range(length))
        assert rows["segment"][at].tolist() == [number] * length
        assert rows["targets"][at].tolist() == [number + 1] * (length - 1) + [IGNORED]
    assert (rows["segment"][ids == PADDING] == NOT_POOLED).all()
    assert (rows["targets"][ids == PADDING] == IGNORED).all()


def test_packing_wastes_less_than_padding() -> None:
    pieces = [TokenSequence([1] * length) for length in (90, 10, 40, 60, 50, 50)]
    packed, _ = pack(pieces, 100, PADDING)
    padded = pad(pieces, PADDING, pool_padding=False)
    assert packed["input_ids"].shape == (3, 100)
    assert padded["input_ids"].shape == (6, 90)


@pytest.mark.parametrize("pool_padding", [True, False])
def test_padding_belongs_to_the_text_only_where_the_original_is_wanted(pool_padding: bool) -> None:
    rows = pad(
        [TokenSequence([5, 6, 7], segment=0), TokenSequence([8], segment=1)], PADDING, pool_padding
    )
    assert rows["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert rows["position_ids"].tolist() == [[0, 1, 2], [0, 1, 2]]
    filler = 1 if pool_padding else NOT_POOLED
    assert rows["segment"].tolist() == [[0, 0, 0], [1, filler, filler]]
    assert torch.equal(rows["targets"], torch.full((2, 3), IGNORED))

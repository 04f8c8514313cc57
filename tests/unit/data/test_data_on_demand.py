"""Items that are set aside are those that were added, whatever was read in between."""

import errno
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_med.data import on_demand
from exgra_med.data.on_demand import Picked, SetAside
from exgra_med.errors import WriteError


class Texts(SetAside[str]):
    @staticmethod
    def _value(item: str) -> Any:
        return {"text": item}

    @staticmethod
    def _item(value: Any) -> str:
        return value["text"]


@pytest.mark.parametrize("in_memory", [1, 2**20])
@given(
    first=st.lists(st.text(max_size=5), max_size=20),
    later=st.lists(st.text(max_size=5) | st.integers(0, 50), max_size=20),
)
def test_items_set_aside_are_those_of_a_list(
    in_memory: int, first: list[str], later: list[str | int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_demand, "_IN_MEMORY", in_memory)
        patch.setattr(on_demand, "_ROWS_AT_ONCE", 3)
        aside, known = Texts(first), list(first)
        for each in later:
            if isinstance(each, str):
                aside.add(each)
                known.append(each)
            elif each < len(known):
                assert aside[each] == known[each]
        assert len(aside) == len(known) and list(aside) == known == aside[:]
        assert list(Picked(aside, range(0, len(known), 2))) == known[::2]
        # Two readings at once do not disturb one another.
        assert list(zip(aside, aside, strict=True)) == list(zip(known, known, strict=True))


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(on_demand, "SpooledTemporaryFile", lambda size: Full())
    with pytest.raises(WriteError, match="disk is full"):
        Texts(["a"])

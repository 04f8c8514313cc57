"""Sequences of a great many items, of which a few bytes each stay in memory."""

import json
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Any, TypeVar, overload

from exgra_med.files import disk_errors

Item = TypeVar("Item")

_IN_MEMORY = 2**20
"""Bytes that are kept before a file is opened for them."""
_ROWS_AT_ONCE = 256


class OnDemand(Sequence[Item]):
    """A sequence whose items are made, or read, each time that they are asked for."""

    @abstractmethod
    def _at(self, row: int) -> Item:
        """The item at 0 <= row < len(self)."""

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        found = range(len(self))[number]
        return self._at(found) if isinstance(found, int) else list(map(self._at, found))

    def __iter__(self) -> Iterator[Item]:
        return map(self._at, range(len(self)))


class Picked(OnDemand[Item]):
    """Some rows of another sequence, which are read there when they are asked for."""

    def __init__(self, items: Sequence[Item], rows: Iterable[int]) -> None:
        self.items, self.rows = items, array("q", rows)

    def __len__(self) -> int:
        return len(self.rows)

    def _at(self, row: int) -> Item:
        return self.items[self.rows[row]]


class SetAside(OnDemand[Item]):
    """Items in a nameless file of the folder for temporary files: 8 bytes an item in memory.

    Few of them need no file. They may not be read and added to by several threads.

    Args:
        items: the first ones.

    Raises:
        WriteError: the disk is full; also `add`, and whatever reads behind it.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._starts = array("q", [0])
        # It lasts as long as the items.
        self._stream = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._is_read = False
        for item in items:
            self.add(item)

    @staticmethod
    @abstractmethod
    def _value(item: Item) -> Any:
        """An item as a value of JSON."""

    @staticmethod
    @abstractmethod
    def _item(value: Any) -> Item:
        """The item again, equal to the one that was added."""

    def add(self, item: Item) -> None:
        """Put an item behind the others."""
        raw = json.dumps(self._value(item)).encode("ascii")
        with disk_errors(Path(gettempdir())):
            if self._is_read:
                self._stream.seek(self._starts[-1])
                self._is_read = False
            self._stream.write(raw)
        self._starts.append(self._starts[-1] + len(raw))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _at(self, row: int) -> Item:
        return self._item(json.loads(self._bytes(self._starts[row], self._starts[row + 1])))

    def __iter__(self) -> Iterator[Item]:
        for first in range(0, len(self), _ROWS_AT_ONCE):
            starts = self._starts[first : first + _ROWS_AT_ONCE + 1]
            begin = starts[0]
            raw = self._bytes(begin, starts[-1])
            for row in range(len(starts) - 1):
                value = json.loads(raw[starts[row] - begin : starts[row + 1] - begin])
                yield self._item(value)

    def _bytes(self, begin: int, end: int) -> bytes:
        with disk_errors(Path(gettempdir())):
            self._is_read = True
            self._stream.seek(begin)
            return self._stream.read(end - begin)

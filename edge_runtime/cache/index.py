"""Which questions have an answer on disk: 64 bits of each key in a fixed table.

A look-up in a dictionary of the same keys would take three times the memory. The answer may be a
wrong yes, once in billions of look-ups, and then costs one read in vain.
"""

from array import array
from collections.abc import Iterable
from typing import Final

FINGERPRINT_BYTES: Final = 8
_ALL: Final = 2**64 - 1


def fingerprint(key: bytes) -> int:
    """Shorten a key to a signed 64-bit number, as the file's index has it."""
    return int.from_bytes(key[:FINGERPRINT_BYTES], "little", signed=True)


class KeyIndex:
    """A set of fingerprints with room for a fixed number of them.

    Args:
        room: Most that it holds; more are not taken in.
    """

    __slots__ = ("_count", "_mask", "_room", "_table")

    def __init__(self, room: int) -> None:
        size = 1 << (2 * room - 1).bit_length()  # at most half full, so that walks are short
        self._table = array("Q", bytes(8 * size))
        self._mask = size - 1
        self._room = room
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._table[self._find(number)] != 0

    def add(self, number: int) -> bool:
        """Take a fingerprint in; whether it is there now."""
        place = self._find(number)
        if not self._table[place]:
            if self._count >= self._room:
                return False
            self._table[place] = (number & _ALL) or 1
            self._count += 1
        return True

    def add_all(self, numbers: Iterable[int]) -> None:
        """Take many in."""
        for number in numbers:
            self.add(number)

    def discard(self, number: int) -> None:
        """Take a fingerprint out, if it is there."""
        table, mask = self._table, self._mask
        gap = self._find(number)
        if not table[gap]:
            return
        self._count -= 1
        # Those behind the gap move up, unless that took them in front of where they belong.
        place = gap
        while True:
            table[gap] = 0
            while True:
                place = (place + 1) & mask
                stored = table[place]
                if not stored:
                    return
                if (place - stored) & mask >= (place - gap) & mask:
                    break
            table[gap] = stored
            gap = place

    def clear(self) -> None:
        """Take every fingerprint out."""
        self._table = array("Q", bytes(8 * len(self._table)))
        self._count = 0

    def _find(self, number: int) -> int:
        """Find the place of a fingerprint, or the empty one where it would be."""
        table, mask = self._table, self._mask
        wanted = (number & _ALL) or 1  # zero is an empty place
        place = wanted & mask
        while (stored := table[place]) and stored != wanted:
            place = (place + 1) & mask
        return place

"""The pieces of words that the encoder knows: as bytes and a hash table in 9 MB, where a dict would take 40."""

from array import array
from itertools import pairwise
from typing import Final
from zlib import crc32

BEGIN: Final = 0
END: Final = 2
UNKNOWN: Final = 3
SPECIAL: Final = range(4)
"""Pieces that stand for no text."""

_SLOT_BITS: Final = 19
_SLOTS: Final = 1 << _SLOT_BITS
_EMPTY: Final = 0


class Vocabulary:
    """Pieces by their text, and how likely each is, as a logarithm, by its number.

    Args:
        text: all pieces in a row, in UTF-8.
        offsets: where each begins, and where the last one ends; at most half as many as the table has slots.
        scores: one a piece.

    """

    def __init__(self, text: bytes, offsets: "array[int]", scores: "array[float]") -> None:
        self._text = text
        self._offsets = offsets
        self.scores = scores
        self.unknown_score = min(scores)
        self.chars_max = 0
        self._slots = array("I", bytes(4 * _SLOTS))
        for number, (start, end) in enumerate(pairwise(offsets)):
            if number not in SPECIAL and start < end:
                self._insert(number, text[start:end])

    def find(self, piece: str) -> int | None:
        """Give a piece's number."""
        wanted = piece.encode("utf-8", "surrogatepass")
        slot = crc32(wanted) % _SLOTS
        while (number := self._slots[slot]) != _EMPTY:
            if self._text[self._offsets[number] : self._offsets[number + 1]] == wanted:
                return number
            slot = (slot + 1) % _SLOTS
        return None

    def _insert(self, number: int, piece: bytes) -> None:
        slot = crc32(piece) % _SLOTS
        while self._slots[slot] != _EMPTY:
            slot = (slot + 1) % _SLOTS
        self._slots[slot] = number
        self.chars_max = max(self.chars_max, len(piece.decode()))

"""The pieces of words that the encoder knows: as hashes in order, in 6 MB, where a dict would take 40."""

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

BEGIN: Final = 0
END: Final = 2
UNKNOWN: Final = 3
SPECIAL: Final = range(4)
"""Pieces that stand for no text."""

Words: TypeAlias = npt.NDArray[np.uint64]
Spot: TypeAlias = tuple[int, int, int]
"""Where in a word a piece begins and ends, and the piece's number."""

_CHARS_AT_ONCE: Final = 4_096
"""Each takes half a kilobyte while it is looked at."""
_FILTER_BITS: Final = 21
_FILTER_SHIFT: Final = np.uint64(64 - _FILTER_BITS)
_BASE: Final = 0x100000001B3
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


class Vocabulary:
    """Pieces, found by hashes of 64 bits, and how likely each is, as a logarithm, by its number.

    Args:
        text: all pieces in a row, in UTF-8.
        offsets: where each begins, and where the last one ends.
        scores: one a piece.

    """

    def __init__(self, text: bytes, offsets: "array[int]", scores: "array[float]") -> None:
        self.scores = scores
        self.unknown_score = min(scores)
        begins = np.frombuffer(text, dtype=np.uint8) & 0xC0 != 0x80
        ends = np.concatenate(([0], np.cumsum(begins)))[np.frombuffer(offsets, dtype=np.uint32)]
        sizes = np.diff(ends)
        told = np.flatnonzero(sizes)
        self.chars_max = int(sizes[told[told >= len(SPECIAL)]].max(initial=0))
        place = np.arange(ends[-1]) - np.repeat(ends[:-1], sizes)
        hashes = np.add.reduceat(_codes(text.decode()) * _powers(int(sizes.max()))[place], ends[:-1][told])
        told, hashes = told[told >= len(SPECIAL)], hashes[told >= len(SPECIAL)]
        order = np.argsort(hashes)
        self._hashes, self._numbers = hashes[order], told[order].astype(np.uint32)
        self._likely = np.zeros(1 << _FILTER_BITS, dtype=bool)
        self._likely[_filter_slot(hashes)] = True

    def spots(self, words: Sequence[str]) -> Iterator[list[Spot]]:
        """Find all pieces in each word, in the order of where they begin and end."""
        some: list[str] = []
        chars = 0
        for word in words:
            some.append(word)
            chars += len(word)
            if chars >= _CHARS_AT_ONCE:
                yield from self._spots(some)
                some, chars = [], 0
        yield from self._spots(some)

    def _spots(self, words: Sequence[str]) -> list[list[Spot]]:
        lengths = np.array([len(word) for word in words], dtype=np.intp)
        begins = np.cumsum(lengths) - lengths
        codes = np.concatenate((_codes("".join(words)), np.zeros(self.chars_max, dtype=np.uint64)))
        everywhere, ahead = np.arange(lengths.sum())[:, None], np.arange(self.chars_max)
        hashes = np.cumsum(codes[everywhere + ahead] * _powers(self.chars_max), axis=1)
        inside = everywhere + ahead < np.repeat(begins + lengths, lengths)[:, None]
        at, size = np.nonzero(self._likely[_filter_slot(hashes)] & inside)
        wanted = hashes[at, size]
        where = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        sure = self._hashes[where] == wanted
        at, size, number = at[sure], size[sure], self._numbers[where[sure]]
        word = np.repeat(np.arange(len(words)), lengths)[at]
        start = at - begins[word]
        found: list[list[Spot]] = [[] for _ in words]
        for owner, *spot in zip(*map(np.ndarray.tolist, (word, start, start + size + 1, number)), strict=True):
            found[owner].append((spot[0], spot[1], spot[2]))
        return found


def _codes(text: str) -> Words:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64) + np.uint64(1)


@lru_cache(maxsize=4)
def _powers(count: int) -> Words:
    return np.array([pow(_BASE, number, 1 << 64) for number in range(count)], dtype=np.uint64)


def _filter_slot(hashes: Words) -> npt.NDArray[np.intp]:
    return (hashes * _MIX >> _FILTER_SHIFT).astype(np.intp)

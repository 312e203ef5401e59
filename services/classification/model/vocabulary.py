"""The pieces of words that the encoder knows: as hashes in order, in 6 MB, where a dict would take 40."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np

from services.classification.model.hashing import Hashes, Ints, Table, code_points, powers

BEGIN: Final = 0
END: Final = 2
UNKNOWN: Final = 3
SPECIAL: Final = range(4)
"""Pieces that stand for no text."""

Spot: TypeAlias = tuple[int, int, int]
"""Where in a word a piece begins and ends, and the piece's number."""

_PIECES_AT_ONCE: Final = 16_384
_CHARS_AT_ONCE: Final = 4_096
"""Each takes half a kilobyte while it is looked at."""
_FILTER_BITS: Final = 21
_BASE: Final = 0xD6E8FEB86659FD93


class Vocabulary:
    """Pieces, and how likely each is, as a logarithm, by its number. Never changed.

    They are known by hashes of 64 bits alone: of other texts one in 10^14 is taken for a piece.

    Args:
        text: all pieces in a row, in UTF-8.
        offsets: where each begins, and where the last one ends.
        scores: one a piece.

    Raises:
        ValueError: offsets are out of order, or end elsewhere than the text.

    """

    def __init__(self, text: bytes, offsets: "array[int]", scores: "array[float]") -> None:
        begins = np.frombuffer(offsets, dtype=np.uint32).astype(np.intp)
        if begins[0] or begins[-1] != len(text) or (np.diff(begins) < 0).any():
            message = "the pieces of words are not where their file says"
            raise ValueError(message)
        self.scores = scores
        self.unknown_score = min(scores)
        told = [
            _hashed(text, begins[start : start + _PIECES_AT_ONCE + 1], first=start)
            for start in range(0, len(begins) - 1, _PIECES_AT_ONCE)
        ]
        hashes, numbers, sizes = (np.concatenate(parts) for parts in zip(*told, strict=True))
        self._numbers = Table.of(hashes, numbers.astype(np.uint32), bits=_FILTER_BITS)
        self.chars_max = int(sizes.max(initial=0))

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
        hashes = np.cumsum(codes[everywhere + ahead] * powers(_BASE, self.chars_max), axis=1)
        at, size = np.nonzero(everywhere + ahead < np.repeat(begins + lengths, lengths)[:, None])
        hit, number = self._numbers.find(hashes[at, size])
        at, size = at[hit], size[hit]
        word = np.repeat(np.arange(len(words)), lengths)[at]
        start = at - begins[word]
        found: list[list[Spot]] = [[] for _ in words]
        columns = (column.tolist() for column in (word, start, start + size + 1, number))
        for owner, begin, end, piece in zip(*columns, strict=True):
            found[owner].append((begin, end, piece))
        return found


def _hashed(text: bytes, begins: Ints, *, first: int) -> tuple[Hashes, Ints, Ints]:
    """Give hashes, numbers and sizes in characters of the pieces that stand for text, numbered from `first`."""
    part = text[begins[0] : begins[-1]]
    characters = np.concatenate(([0], np.cumsum(np.frombuffer(part, dtype=np.uint8) & 0xC0 != 0x80)))
    ends = characters[begins - begins[0]]
    sizes = np.diff(ends)
    place = np.arange(ends[-1]) - np.repeat(ends[:-1], sizes)
    spelled = _codes(part.decode()) * powers(_BASE, int(sizes.max(initial=0)))[place]
    number = np.flatnonzero(sizes)
    hashes = np.add.reduceat(spelled, ends[:-1][number]) if len(number) else spelled
    told = first + number >= len(SPECIAL)
    return hashes[told], first + number[told], sizes[number[told]]


def _codes(text: str) -> Hashes:
    return code_points(text).astype(np.uint64) + np.uint64(1)

"""Hashes of 64 bits, for whole arrays at once with numpy: of runs of characters, and tables to look them up in."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Hashes: TypeAlias = npt.NDArray[np.uint64]
Ints: TypeAlias = npt.NDArray[np.intp]

MIX: Final = np.uint64(0x9E3779B97F4A7C15)
"""An odd number that spreads what differs in few bits over the upper ones."""


@dataclass(frozen=True, slots=True)
class Table:
    """Hashes in order, each with a value, and which of their upper bits occur: most others are told by those alone."""

    hashes: Hashes
    values: npt.NDArray[Any]
    present: npt.NDArray[np.bool_]
    """Indexed by as many bits of a hash as make up its length, a power of two."""

    @classmethod
    def of(cls, hashes: Hashes, values: npt.NDArray[Any], *, bits: int) -> "Table":
        """Make one that tells others by so many bits."""
        order = np.argsort(hashes)
        present = np.zeros(1 << bits, dtype=bool)
        present[_upper(hashes, bits)] = True
        return cls(hashes[order], values[order], present)

    def find(self, hashes: Hashes) -> tuple[Ints, npt.NDArray[Any]]:
        """Give the indices of those that the table holds, and their values."""
        likely = np.flatnonzero(self.present[_upper(hashes, len(self.present).bit_length() - 1)])
        where = np.minimum(np.searchsorted(self.hashes, hashes[likely]), len(self.hashes) - 1)
        sure = self.hashes[where] == hashes[likely]
        return likely[sure], self.values[where[sure]]


def _upper(hashes: Hashes, bits: int) -> Ints:
    return (hashes * MIX >> np.uint64(64 - bits)).astype(np.intp)


@lru_cache(maxsize=16)
def powers(base: int, count: int) -> Hashes:
    """Give the first powers of a number, from its zeroth on: a run of characters is hashed as a polynomial of them."""
    return np.array([pow(base, number, 1 << 64) for number in range(count)], dtype=np.uint64)


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Give a text's characters as numbers."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)

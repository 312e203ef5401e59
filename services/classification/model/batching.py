"""In which order and how fast a network learns: the same for the one at work and for its teachers."""

from collections.abc import Iterator, Sequence, Sized
from typing import Final

import numpy as np

CHUNK_BATCHES: Final = 32
"""Batches are cut out of so many batches' texts, sorted by length, so that little is filled up."""


def batches(ids: Sequence[Sized], size: int, random: np.random.Generator) -> Iterator[list[int]]:
    """Give all rows once, in batches of texts of about one length, in random order."""
    order = random.permutation(len(ids)).tolist()
    found: list[list[int]] = []
    for start in range(0, len(order), size * CHUNK_BATCHES):
        chunk = sorted(order[start : start + size * CHUNK_BATCHES], key=lambda row: len(ids[row]))
        found += [chunk[at : at + size] for at in range(0, len(chunk), size)]
    for number in random.permutation(len(found)).tolist():
        yield found[number]


def speed(number: int, steps: int, warm_up: float) -> float:
    """Give the share of the full step that a step takes, numbered from 1: it rises over `warm_up`, then falls."""
    return min(number / (warm_up * steps), (steps + 1 - number) / (steps * (1 - warm_up)))

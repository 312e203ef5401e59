"""Texts that say nearly the same in the same words: they measure memory, and so must not stand on both sides."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

SHINGLE_CHARS: Final = 5
SIMILARITY_MIN: Final = 0.7
"""Texts that share so much of all their shingles (Jaccard) are near duplicates."""


def near_duplicates(texts: Sequence[str], others: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Tell which of `texts` are equal to, or nearly, one of `others`; both in normal form."""
    numbers: dict[str, int] = {}
    held = [sorted({numbers.setdefault(s, len(numbers)) for s in _shingles(other)}) for other in others]
    sizes = np.array([len(shingles) for shingles in held], dtype=np.int64)
    flat = np.array([number for shingles in held for number in shingles], dtype=np.int64)
    owner = np.repeat(np.arange(len(held)), sizes)
    owner, ends = owner[np.argsort(flat, kind="stable")], np.cumsum(np.bincount(flat, minlength=len(numbers)))
    found = np.zeros(len(texts), dtype=bool)
    for row, text in enumerate(texts):
        shingles = _shingles(text)
        known = [numbers[s] for s in shingles if s in numbers]
        if known:
            postings = [owner[ends[n - 1] if n else 0 : ends[n]] for n in known]
            common = np.bincount(np.concatenate(postings), minlength=len(held))
            found[row] = (common / (len(shingles) + sizes - common)).max() >= SIMILARITY_MIN
    return found


def _shingles(text: str) -> set[str]:
    padded = f" {text.strip()} "
    return {padded[at : at + SHINGLE_CHARS] for at in range(max(1, len(padded) - SHINGLE_CHARS + 1))}

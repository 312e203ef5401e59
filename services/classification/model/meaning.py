"""What a text means, as numbers: the sentence vectors of the whole, of how it ends and of how it begins.

How it ends counts by itself because mixed signals are settled there, how it begins because a yes or no often stands
there.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from services.classification.model.encoder import DIMENSIONS, Vectors, encoder
from services.classification.model.features import LOOKALIKES

MEANING_COLUMNS: Final = 3 * DIMENSIONS
CLAUSE_CHARS_MIN: Final = 25
"""A shorter last or first clause is taken together with its neighbour: "thanks, Ana" settles nothing."""

_CLAUSE: Final = re.compile(r"(?<=[.!?;:\n\u2026\u3002\uff01\uff1f])\s*|(?<=,)\s+|\s+[-\u2013\u2014]\s+")
_MIXED_WORD: Final = re.compile(
    rf"\b(?=\w*[a-z])(?=\w*[{''.join(map(chr, LOOKALIKES))}])\w+\b",
)


def meanings(cleaned: Sequence[str]) -> Vectors:
    """Give the numbers of cleaned texts, (texts, 3 x 512). Texts do not influence each other."""
    parts = [part for text in cleaned for part in _parts(_latin(text))]
    distinct = {part: number for number, part in enumerate(dict.fromkeys(parts))}
    vectors = encoder().encode(list(distinct))
    return vectors[np.array([distinct[part] for part in parts], dtype=np.intp)].reshape(len(cleaned), MEANING_COLUMNS)


def _parts(text: str) -> tuple[str, str, str]:
    clauses = [clause for clause in _CLAUSE.split(text) if len(clause.strip()) > 1] or [text]
    return text, _edge(clauses, last=True), _edge(clauses, last=False)


def _edge(clauses: Sequence[str], *, last: bool) -> str:
    """Take as many clauses from the end, or from the beginning, as say something."""
    count, chars = 0, 0
    while count < len(clauses) and chars < CLAUSE_CHARS_MIN:
        chars += len(clauses[-1 - count if last else count])
        count += 1
    return " ".join(clauses[-count:] if last else clauses[:count])


def _latin(text: str) -> str:
    """Write letters that only look like Latin ones as what they look like, in words that hold Latin ones too."""
    if text.isascii():
        return text
    return _MIXED_WORD.sub(lambda word: word[0].translate(LOOKALIKES), text)

"""What a text means, as two scores: that it declines, and that a machine wrote it."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from services.classification.model.encoder import Encoder
from services.classification.model.features import LOOKALIKES

Scores = npt.NDArray[np.float64]

_MIXED_WORD: Final = re.compile(
    rf"\b(?=\w*[a-z])(?=\w*[{''.join(map(chr, LOOKALIKES))}])\w+\b",
)


def meanings(encoder: Encoder, cleaned: Sequence[str]) -> tuple[Scores, Scores]:
    """Give the log odds that each text declines, and that a machine wrote it, (texts,) each.

    What a machine wrote does not decline. Texts do not influence each other.
    """
    accept, decline, machine = encoder.scores([latin(text) for text in cleaned]).astype(np.float64).T
    return decline - np.logaddexp(accept, machine), machine - np.logaddexp(accept, decline)


def latin(text: str) -> str:
    """Write letters that only look like Latin ones as what they look like, in words that hold Latin ones too."""
    if text.isascii():
        return text
    return _MIXED_WORD.sub(lambda word: word[0].translate(LOOKALIKES), text)

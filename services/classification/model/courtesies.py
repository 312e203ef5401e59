"""Replies that hold nothing but thanks, greetings and "maybe": neither side can be argued (LABELS.md)."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from services.classification.model.features import Bools
from services.classification.model.signals import UNSPACED

COURTESIES_PATH: Final = Path(__file__).parent / "courtesies.json"
"""Patterns by language, for cleaned texts."""
_CHARS_MAX: Final = 80
_BETWEEN: Final = "[\\s,.!;:~()\\-\u2013\u2014。、・🙏🙂😊😀😄😃☺🤗👍👌\U0001f3fb-\U0001f3ff]*"
"""A thumb beside thanks may be for the message alone."""


@lru_cache(maxsize=1)
def courtesies() -> re.Pattern[str]:
    """Load the patterns as one for whole texts."""
    languages = json.loads(COURTESIES_PATH.read_text(encoding="utf-8"))
    edges = {lang: "" if lang in UNSPACED else r"\b" for lang in languages}
    either = "|".join(f"(?:{pattern}){edges[lang]}" for lang, patterns in languages.items() for pattern in patterns)
    return re.compile(rf"{_BETWEEN}(?>(?:{either}){_BETWEEN})+")


def say_nothing_else(cleaned: Sequence[str]) -> Bools:
    """Tell which texts are courtesies from end to end."""
    matches = courtesies().fullmatch
    found = np.zeros(len(cleaned), dtype=bool)
    found[[row for row, text in enumerate(cleaned) if len(text) <= _CHARS_MAX and matches(text)]] = True
    return found

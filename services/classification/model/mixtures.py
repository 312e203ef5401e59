"""Texts that nobody wrote: sentences of training rows put together anew, for larger models to give their opinion on.

A small network learns from them what larger ones take a text for. What it is, nobody knows: mixtures have opinions,
never a label, and nothing is measured on them.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.classification.model.corpus import Example, digest_of, parsed
from services.classification.model.features import clean

MIXTURES: Final = Path(__file__).parent / "data" / "mixtures.jsonl"
CHARS_MIN: Final = 3
CHARS_MAX: Final = 450
WORDS_LEFT_OUT: Final = 0.12
"""So many words are missing where words are left out."""
END_LEFT_OUT: Final = 0.15
"""So often the last full stop or exclamation mark is missing."""
SMALL_LANGUAGES: Final = 0.7
"""The number of a language's mixtures grows with this power of that of its rows."""
DRAWS_PER_MIXTURE_MAX: Final = 200

_SENTENCES: Final = re.compile(r"(?<=[.!?;])\s+|\n+")
_SENTENCES_WITHOUT_BLANKS: Final = re.compile(r"(?<=[。!?;])|\n+")
_WITHOUT_BLANKS: Final = frozenset({"ja", "zh"})


@dataclass(frozen=True, slots=True)
class Mixture:
    """A text and the probabilities that larger models give its classes, in the order of `encoder.CLASSES`."""

    text: str
    odds: tuple[float, float, float]


def load(path: Path = MIXTURES) -> list[Mixture]:
    """Give all mixtures on which there are opinions.

    Raises:
        ValueError: a line is none; the message names it.

    """
    return parsed(path, _read, "a mixture")


def _read(row: Any) -> Mixture:
    accept, decline, machine = map(float, row["odds"])
    return Mixture(str(row["text"]), (accept, decline, machine))


def digest(mixtures: Iterable[Mixture]) -> str:
    """Name the data: equal for equal texts and opinions in the same order."""
    return digest_of((mixture.text, mixture.odds) for mixture in mixtures)


def mixed(examples: Iterable[Example], count: int, seed: int = 0) -> dict[str, str]:
    """Put so many texts together, of rows in one language each; give their languages by text.

    They are in normal form (`features.clean`), hold nothing of quotations and signatures, and none equals a row.

    Raises:
        ValueError: the rows are too few for so many.

    """
    examples = list(examples)
    written = clean([example.text for example in examples])
    rows: dict[str, list[list[str]]] = {}
    for example, text in zip(examples, written, strict=True):
        if sentences := _sentences(text, example.lang):
            rows.setdefault(example.lang, []).append(sentences)
    draw = random.Random(seed)  # noqa: S311 - nothing secret hangs on it
    langs = sorted(rows)
    weights = [len(rows[lang]) ** SMALL_LANGUAGES for lang in langs]
    known, found = set(written), dict[str, str]()
    for _ in range(DRAWS_PER_MIXTURE_MAX * count if langs else 0):
        if len(found) == count:
            break
        (lang,) = draw.choices(langs, weights)
        text = _mixture(draw.choice(rows[lang]), draw.choice(rows[lang]), lang, draw)
        if CHARS_MIN <= len(text) <= CHARS_MAX and text not in known:
            found.setdefault(text, lang)
    if len(found) < count:
        message = f"{len(examples)} rows gave {len(found)} mixtures of {count}: ask for fewer, or add rows"
        raise ValueError(message)
    return found


def _sentences(text: str, lang: str) -> list[str]:
    splitter = _SENTENCES_WITHOUT_BLANKS if lang in _WITHOUT_BLANKS else _SENTENCES
    return [part.strip() for part in splitter.split(text) if part.strip()]


def _mixture(one: Sequence[str], other: Sequence[str], lang: str, draw: random.Random) -> str:
    """Put one text together; give an empty one where the rows are too short for the way that was drawn."""
    join = ("" if lang in _WITHOUT_BLANKS else " ").join
    way = draw.random()
    if way < 0.35:  # another end
        text = join([*one[:-1][-3:], other[-1]]) if len(one) > 1 else ""
    elif way < 0.5:  # a sentence alone
        text = draw.choice(one) if len(one) > 1 else ""
    elif way < 0.65:  # one sentence less
        left_out = draw.randrange(len(one))
        text = join([part for number, part in enumerate(one) if number != left_out]) if len(one) > 2 else ""
    elif way < 0.85:  # another beginning
        text = join([other[0], *one[-2:]])
    else:
        words = join(one).split()
        text = " ".join(word for word in words if draw.random() >= WORDS_LEFT_OUT) if len(words) > 3 else ""
    return text.rstrip(".!。") if draw.random() < END_LEFT_OUT else text

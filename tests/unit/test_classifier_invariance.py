"""What does not change what a candidate says does not change the answer: 500 replies, each written in two ways."""

from collections.abc import Callable

import pytest

from services.classification.model import corpus
from services.classification.model.classifier import Classifier

PAIRS = 500
CLASSIFIER = Classifier.load()
REPLIES = [row.text for row in corpus.load("train") if row.label != "auto_reply"]
TEXTS = REPLIES[:: len(REPLIES) // PAIRS][:PAIRS]

SIGNATURE = "\n\n--\nDana Whitfield\nSenior Engineer | Example Works\n+44 20 7946 0000"
QUOTED = "\n\nOn Tue, 4 Mar 2025 at 10:12, Sam Rivers wrote:\n> Hi! I have a role for you.\n> Interested?"


def with_zero_width(text: str) -> str:
    return "".join(f"{c}\u200b" if i % 3 == 1 and c.isalpha() else c for i, c in enumerate(text))


def in_capitals(text: str) -> str:
    # Not where capitals are other letters: their small forms are not those that were written.
    return "".join(c.upper() if len(c.upper()) == 1 and c.upper().lower() == c else c for c in text)


def with_typographic_quotes(text: str) -> str:
    return text.replace("'", "\u2019")


@pytest.mark.parametrize(
    "rewritten",
    [
        with_zero_width,
        in_capitals,
        with_typographic_quotes,
        lambda text: text + SIGNATURE,
        lambda text: text + QUOTED,
    ],
    ids=["zero width", "capitals", "typographic quotes", "signature", "quoted original"],
)
def test_r07_the_same_words_have_the_same_answer(rewritten: Callable[[str], str]) -> None:
    plain, others = CLASSIFIER.classify(TEXTS), CLASSIFIER.classify([rewritten(text) for text in TEXTS])
    assert len(TEXTS) == PAIRS
    differing = [i for i, (one, other) in enumerate(zip(plain, others, strict=True)) if one.label != other.label]
    assert [(TEXTS[i], plain[i].confidence, others[i].confidence) for i in differing] == []

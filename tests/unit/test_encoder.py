"""The encoder: how texts become pieces and vectors, and that a text's scores are its own."""

import os
import subprocess
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.classification.model import corpus, encoder, vocabulary
from services.classification.model.classifier import ARTEFACT, NETWORK_FILE
from services.classification.model.encoder import (
    CLASSES,
    TOKENS_MAX,
    Encoder,
    Tokenizer,
    shortened,
    tokenizer,
    vectors,
)
from services.classification.model.features import clean
from services.classification.model.meaning import meanings
from services.classification.model.pretrained import WIDTH, opened, pretrained
from services.classification.model.superwords import RUN_PIECES_MAX, Superwords, learnt
from services.classification.model.vocabulary import BEGIN, END, UNKNOWN, Vocabulary

ENCODER = Encoder(ARTEFACT / NETWORK_FILE)
TEXTS = clean([example.text for example in corpus.load("train")[::100]])
RUNS = st.lists(st.integers(0, 3), min_size=2, max_size=3).map(tuple)
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


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        # As the tokenizer that Microsoft's model was published with splits them.
        ("i'm not looking right now, thanks!", "▁i ' m ▁not ▁looking ▁right ▁now , ▁thanks !"),
        ("nein danke", "▁ne in ▁danke"),
        ("こんにちは、興味があります", "▁ こんにちは 、 興味 があります"),
    ],
)
def test_texts_are_split_as_the_model_learnt_them(text: str, pieces: str) -> None:
    ((begin, *ids, end),) = tokenizer().encode([text])
    assert (begin, end) == (BEGIN, END)
    assert ids == [_number(pretrained().vocabulary, piece) for piece in pieces.split()]


def _number(known: Vocabulary, piece: str) -> int | None:
    (spots,) = known.spots([piece])
    return next((number for start, end, number in spots if (start, end) == (0, len(piece))), None)


def test_pieces_are_found_by_their_text_and_nothing_else_is() -> None:
    text = "▁the▁theatre"
    offsets = array("I", [0, 0, 0, 0, 0, len("▁the".encode()), len(text.encode())])
    known = Vocabulary(text.encode(), offsets, array("f", [-1.0] * 6))
    pieces = ("▁the", "▁theatre", "▁th", "", "\ud800")
    assert [_number(known, piece) for piece in pieces] == [4, 5, None, None, None]
    assert list(known.spots([])) == []
    assert list(known.spots(["a▁theatre", "▁the▁the"])) == [[(1, 5, 4), (1, 9, 5)], [(0, 4, 4), (4, 8, 4)]]
    assert known.chars_max == len("▁theatre")


def test_a_letter_that_the_vocabulary_lacks_is_unknown() -> None:
    assert UNKNOWN in tokenizer().encode(["a\U000130feb"])[0]


def test_a_long_text_is_read_by_its_beginning_and_its_end() -> None:
    (ids,) = tokenizer().encode(["yes " * 500 + "no"])
    assert len(shortened(ids, TOKENS_MAX)) == TOKENS_MAX
    assert shortened(ids, 96) == ids[:48] + ids[-48:]
    assert shortened(ids[:96], 96) == ids[:96]


def test_superwords_are_the_most_frequent_runs_of_pieces() -> None:
    often, seldom = [7, 8, 9, 5], [3, 4, 6]
    assert learnt([often] * 30 + [[1, 7, 8]] * 20 + [seldom] * 9).runs == ((7, 8), (7, 8, 9), (7, 8, 9, 5), (1, 7, 8))
    assert learnt([[2] * 100]).runs[0] == (2, 2)
    assert max(map(len, learnt([list(range(50))] * 20).runs)) <= RUN_PIECES_MAX
    assert len(learnt([often] * 30, superwords_max=1).runs) == 1


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.sets(RUNS),
)
def test_joining_loses_no_piece_and_takes_the_longest(pieces: list[int], runs: set[tuple[int, ...]]) -> None:
    superwords = Superwords(sorted(runs))
    found = superwords.joined(pieces)
    assert [piece for run in found for piece in run] == pieces
    assert all((number > 0) == (len(run) > 1) for run, number in zip(found, superwords.numbers(found), strict=True))
    at = 0
    for run in found:
        assert not any(tuple(pieces[at:end]) in runs for end in range(at + len(run) + 1, len(pieces) + 1))
        at += len(run)
    assert superwords.joined(pieces, lambda: True) == [(piece,) for piece in pieces]


def test_a_superword_begins_as_the_sum_of_its_pieces() -> None:
    one, other = pretrained().words([1_000, 2_000])
    alone, both = vectors([(1_000,), (1_000, 2_000)])
    np.testing.assert_array_equal(alone, one)
    np.testing.assert_allclose(both, (one + other) / np.sqrt(2), rtol=1e-6)


def test_words_are_kept_in_bounds_and_the_long_ones_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "WORDS_KEPT_MAX", 3)
    splitter = Tokenizer(pretrained().vocabulary)
    splitter.encode(["short words " + "x" * 4_000])
    assert set(splitter._kept) == {"short", "words"}
    splitter.encode(["words in between", "short of time"])
    assert len(splitter._kept) == 3
    splitter.encode(["one"])
    splitter.encode(["one two"])
    splitter.encode(["one three four"])
    assert set(splitter._kept) == {"one", "three", "four"}, "what came again stays, what did not goes first"


def test_it_makes_no_difference_how_many_words_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for text in TEXTS for word in text.split()]
    together = list(pretrained().vocabulary.spots(words))
    monkeypatch.setattr(vocabulary, "_CHARS_AT_ONCE", 7)
    assert list(pretrained().vocabulary.spots(words)) == together


def test_threads_share_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "WORDS_KEPT_MAX", 50)
    alone = [Tokenizer(pretrained().vocabulary).encode([text])[0] for text in TEXTS]
    shared = Tokenizer(pretrained().vocabulary)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda text: shared.encode([text])[0], TEXTS * 4))
    finally:
        sys.setswitchinterval(before)
    assert found == alone * 4


@pytest.mark.parametrize("offsets", [[0, 3, 2, 5], [0, 3, 9], [1, 5], [0, 3]])
def test_pieces_that_are_not_where_their_file_says_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="not where"):
        Vocabulary(b"abcde", array("I", offsets), array("f", [-1.0] * len(offsets)))


def test_pieces_of_like_meaning_have_like_vectors() -> None:
    ids = [pieces[1] for pieces in tokenizer().encode(["salary", "wage", "banana"])]
    found = pretrained().words(ids)
    assert found.shape == (3, WIDTH)
    salary, wage, banana = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert salary @ wage > salary @ banana


def test_a_text_s_scores_depend_on_no_other_to_the_last_bit() -> None:
    together = ENCODER.scores(TEXTS)
    assert np.array_equal(np.concatenate([ENCODER.scores([text]) for text in TEXTS]), together)
    assert np.array_equal(ENCODER.scores(TEXTS[::-1])[::-1], together)


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_texts_have_scores(text: str) -> None:
    scores = ENCODER.scores([text])
    assert scores.shape == (1, len(CLASSES))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("size", [0, 4, 1_000, 1_000_000, 5_000_000])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.bin"
    path.write_bytes(os.pread(pretrained().descriptor, size, 0))
    with path.open("rb", buffering=0) as file, pytest.raises(ValueError, match="install the locked version"):
        opened(file)


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(b"other" * 1_000)
    with path.open("rb", buffering=0) as file, pytest.raises(ValueError, match="unknown layout"):
        opened(file)


def test_letters_that_look_alike_mean_the_same() -> None:
    declined, automatic = meanings(ENCODER, ["i am not interested", "i am n\u043et int\u0435r\u0435sted"])
    assert declined[0] == declined[1]
    assert automatic[0] == automatic[1]


def test_no_texts_have_no_meanings() -> None:
    assert [len(scores) for scores in meanings(ENCODER, [])] == [0, 0]


def test_the_network_s_library_reports_nothing(tmp_path: Path) -> None:
    """Where it does, it begins with an identity and a store of reports in the user's folders."""
    program = f"from services.classification.model.encoder import Encoder\nEncoder({str(ARTEFACT / NETWORK_FILE)!r})"
    # Nothing of our own environment, which may have turned it off.
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)  # noqa: S603  ours
    assert list(tmp_path.rglob("*")) == []

"""The replies that the model is trained and measured on: how many, by whom, how hard, and none on both sides."""

from collections import Counter

import pytest

from services.classification.model import corpus
from services.classification.model.cleaning import fold
from services.classification.model.duplicates import near_duplicates
from services.classification.model.evaluation import unseen

TRAIN, TEST = corpus.load("train"), corpus.load("test")
ROWS_MIN = {"en": 2_000, **dict.fromkeys(("es", "fr", "de", "pt"), 500)}
OTHERS = ("it", "nl", "pl", "tr", "ja", "zh", "hi")


def test_there_are_enough_rows_of_each_language() -> None:
    rows = Counter(e.lang for e in TRAIN + TEST)
    assert {lang: rows[lang] for lang in ROWS_MIN if rows[lang] < ROWS_MIN[lang]} == {}
    trained = Counter(e.lang for e in TRAIN)
    assert {lang: trained[lang] for lang in OTHERS if trained[lang] < 60} == {}
    assert rows.total() >= 5_000
    assert len(TEST) >= 1_000
    assert sum(e.label == "auto_reply" for e in TEST) >= 300


@pytest.mark.parametrize("rows", [TRAIN, TEST], ids=["train", "test"])
def test_enough_replies_are_hard_and_both_answers_are_there(rows: list[corpus.Example]) -> None:
    people = [e for e in rows if e.label != "auto_reply"]
    assert sum(e.hard for e in people) >= 0.4 * len(people)
    assert 0.4 < sum(e.label == "decline" for e in people) / len(people) < 0.6


def test_texts_are_distinct_but_for_the_shortest() -> None:
    texts = Counter(e.text for e in TRAIN)
    assert len(texts) >= 5_000
    assert [text for text, count in texts.items() if count > 1 and len(text.split()) > 3] == []


def test_what_is_measured_is_not_nearly_what_was_trained_on() -> None:
    measured = unseen(TEST, TRAIN)
    assert len(measured) >= 1_000
    assert not near_duplicates(fold([e.text for e in measured]), fold([e.text for e in TRAIN])).any()


@pytest.mark.parametrize(
    ("text", "is_near"),
    [
        ("I am happy in my current role, thank you for asking.", True),
        ("I am happy in my current role, thank you for asking!!", True),
        ("i'm so happy in my current role, thank you for asking", True),
        ("I am happy to hear more about the role.", False),
        ("", False),
        ("xyz", False),
    ],
)
def test_near_duplicates_share_most_of_their_letters_in_a_row(text: str, is_near: bool) -> None:
    others = fold(["Unsubscribe.", "I am happy in my current role, thank you for asking."])
    assert near_duplicates(fold([text]), others).tolist() == [is_near]


def test_short_texts_are_compared_whole() -> None:
    assert near_duplicates(["no", "nope", ""], ["no", "yes"]).tolist() == [True, False, False]
    assert near_duplicates(["no"], []).tolist() == [False]

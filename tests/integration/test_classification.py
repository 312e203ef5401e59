"""Classification on a real Postgres: what is stored, what it answers, and what survives every feeding."""

import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette

from services.classification.api import BODY_BYTES_MAX, TEXTS_MAX
from services.classification.domain import OUTCOME_OF_LABEL
from services.classification.model.classifier import Classifier
from services.classification.private import load_corrected
from services.classification.service import SPEC, TEXTS_PER_TURN_MAX
from shared.events import (
    Candidate,
    Choice,
    ClassificationRequestedV1,
    Event,
    Outcome,
    OutcomeCorrectionRequestedV1,
)
from shared.postgres import acquire
from shared.testing.builders import after, event
from shared.testing.databases import as_service
from shared.testing.harness import Harness
from shared.topics import CLASSIFICATION_REQUESTS, OUTCOME_COMMANDS, OUTCOME_EVENTS

AnyEvent = Event[Any]
YES = "Yes, I am interested. Tell me more, please."
NO = "No thanks, I am not interested."


def request(
    days: float,
    text: str | None = None,
    *,
    choice: Choice | None = None,
    thread: str = "t",
    name: str | None = "Ada",
    event_id: str | None = None,
) -> AnyEvent:
    data = ClassificationRequestedV1(
        reply_id=f"{thread}-r{days}",
        thread_id=thread,
        inmail_id=f"{thread}-i",
        contract_id="c",
        seat_id="s",
        candidate=Candidate(id=f"p-{thread}", name=name, locale="en"),
        choice=choice,
        content="message" if choice is None else "with_message",
        text=text,
        thread_version=int(days * 10) + 2,
        responded_at=after(days=days),
    )
    return event(data, id=event_id, source="/inmail-responses/ingestion")


def correction(outcome: Outcome, version: int, *, thread: str = "t", days: float = 50) -> AnyEvent:
    data = OutcomeCorrectionRequestedV1(
        thread_id=thread, outcome=outcome, corrected_by="boss", version=version, requested_at=after(days=days)
    )
    return event(data, source="/inmail-responses/inbox")


def brief(given: AnyEvent) -> tuple[object, ...]:
    kind = given.type.split(".")[1]
    if kind == "correction_rejected":
        return (kind, given.data.reason)
    return (kind, given.data.version, given.data.outcome, given.data.source)


@pytest.fixture
async def harness(database: str) -> AsyncIterator[Harness]:
    opened = await Harness.open(SPEC, as_service(database, "classification"))
    yield opened
    await opened.close()


async def test_requests_and_corrections_are_answered_once_each(harness: Harness) -> None:
    first = await harness.feed(CLASSIFICATION_REQUESTS, request(1, NO), request(2, NO))
    assert [brief(given) for given in first] == [
        ("decided", 1, "declined", "classifier"),
        ("unchanged", 1, "declined", "classifier"),
    ]
    second = await harness.feed(OUTCOME_COMMANDS, correction("accepted", 1), correction("declined", 1))
    assert [brief(given) for given in second] == [
        ("decided", 2, "accepted", "human"),
        ("correction_rejected", "STALE_VERSION"),
    ]
    third = await harness.feed(CLASSIFICATION_REQUESTS, request(3, NO), request(4, choice="not_interested"))
    assert [brief(given) for given in third] == [
        ("unchanged", 2, "accepted", "human"),
        ("decided", 3, "declined", "choice"),
    ]
    assert {topic for topic, _ in harness.emitted} == {OUTCOME_EVENTS}


async def test_answers_carry_their_cause_and_its_times(harness: Harness) -> None:
    asked = request(1, YES)
    (given,) = await harness.feed(CLASSIFICATION_REQUESTS, asked)
    assert (given.causeid, given.causesource, given.subject) == (asked.id, asked.source, "t")
    assert given.time == given.data.decided_at == asked.data.responded_at
    assert given.data.model_version == Classifier.load().version
    (corrected,) = await harness.feed(OUTCOME_COMMANDS, correction("declined", 1, days=7))
    assert corrected.time == corrected.data.decided_at == after(days=7)
    assert corrected.data.responded_at == asked.data.responded_at
    assert corrected.data.candidate == Candidate(id="p-t", name="Ada")


async def test_a_repeated_request_is_answered_once_and_never_classified_anew(harness: Harness) -> None:
    await harness.feed(CLASSIFICATION_REQUESTS, request(1, NO), request(1, YES), request(1, NO, event_id="again"))
    await harness.feed(CLASSIFICATION_REQUESTS, request(1, YES))
    assert len(harness.emitted) == 1
    (row,) = await harness.fetch("SELECT outcome, model_version FROM reply")
    assert (row["outcome"], row["model_version"]) == ("declined", Classifier.load().version)


async def test_a_repeated_command_is_the_same_command(harness: Harness) -> None:
    await harness.feed(CLASSIFICATION_REQUESTS, request(1, NO))
    command = correction("accepted", 1)
    assert len(await harness.feed(OUTCOME_COMMANDS, command, command)) == 1
    assert await harness.feed(OUTCOME_COMMANDS, command) == []


async def test_late_replies_are_folded_in_from_what_is_stored(harness: Harness) -> None:
    await harness.feed(CLASSIFICATION_REQUESTS, request(3, NO), request(5, NO))
    (late,) = await harness.feed(CLASSIFICATION_REQUESTS, request(1, YES))
    assert brief(late) == ("decided", 2, "accepted", "classifier")
    (choice,) = await harness.feed(CLASSIFICATION_REQUESTS, request(4, choice="not_interested"))
    assert (*brief(choice), choice.data.previous) == ("decided", 3, "declined", "choice", "accepted")
    (again,) = await harness.feed(CLASSIFICATION_REQUESTS, request(2, choice="interested"))
    assert brief(again) == ("unchanged", 3, "declined", "choice")


async def test_a_correction_survives_in_the_tables(harness: Harness) -> None:
    await harness.feed(CLASSIFICATION_REQUESTS, request(2, YES))
    await harness.feed(OUTCOME_COMMANDS, correction("declined", 1))
    silenced = await harness.feed(CLASSIFICATION_REQUESTS, request(4, YES), request(1, choice="interested"))
    assert [brief(given) for given in silenced] == [("unchanged", 2, "declined", "human")] * 2
    (woken,) = await harness.feed(CLASSIFICATION_REQUESTS, request(3, choice="not_interested"))
    assert brief(woken) == ("decided", 3, "accepted", "classifier")


async def test_a_message_without_words_is_accepted_and_to_be_confirmed(harness: Harness) -> None:
    given = await harness.feed(CLASSIFICATION_REQUESTS, request(1), request(1, " \n ", thread="u"))
    for each in given:
        assert brief(each) == ("decided", 1, "accepted", "classifier")
        assert each.data.needs_confirmation
        assert each.data.confidence == 0.5


@pytest.mark.parametrize("batch_records", [1, 3, 1000])
async def test_batches_do_not_matter(harness: Harness, batch_records: int) -> None:
    moments: list[datetime] = [after(days=60 + i) for i in range(4)]
    rounds: list[tuple[str, list[AnyEvent]]] = [
        (CLASSIFICATION_REQUESTS, [request(d, t, thread=h) for h in "abcde" for d, t in ((2, NO), (1, YES), (3, NO))]),
        (OUTCOME_COMMANDS, [correction("declined", 2, thread=h) for h in "abc"]),
        (CLASSIFICATION_REQUESTS, [request(4, choice="interested", thread=h) for h in "bcd"]),
        (CLASSIFICATION_REQUESTS, [request(2.5, choice="not_interested", thread=h) for h in "abcde"]),
    ]
    for moment, (topic, events) in zip(moments, rounds, strict=True):
        await harness.feed(topic, *events, batch_records=batch_records, timestamp=moment)
    rows = await harness.fetch("SELECT thread_id, version, outcome, source FROM thread ORDER BY thread_id")
    assert [tuple(row) for row in rows] == [
        ("a", 3, "declined", "human"),
        ("b", 4, "accepted", "choice"),
        ("c", 4, "accepted", "choice"),
        ("d", 3, "accepted", "choice"),
        ("e", 3, "declined", "choice"),
    ]


async def test_more_texts_than_are_classified_in_one_turn(harness: Harness) -> None:
    count = 2 * TEXTS_PER_TURN_MAX + 1
    asked = [request(1, f"{NO} {i}" if i % 2 else f"{YES} {i}", thread=f"t{i}") for i in range(count)]
    given = await harness.feed(CLASSIFICATION_REQUESTS, *asked)
    # Each text's own answer: what the model makes of a number behind the words is not this test's matter.
    alone = [OUTCOME_OF_LABEL[Classifier.load().classify([each.data.text])[0].label] for each in asked]
    assert [each.data.outcome for each in given] == alone
    assert set(alone) == {"accepted", "declined"}


async def test_words_are_kept_in_one_table_until_their_day(harness: Harness) -> None:
    asked = [request(1, "Unmistakable words of mine"), request(2, "Unmistakable choice", choice="interested")]
    await harness.feed(CLASSIFICATION_REQUESTS, *asked, asked[0])
    for table in ("thread", "reply", "correction", "outbox"):
        rows = await harness.fetch(f"SELECT * FROM {table}")  # noqa: S608  names of our own tables
        assert "nmistakable" not in repr([dict(row) for row in rows])
    (kept,) = await harness.fetch("SELECT * FROM private_text WHERE kind = 'reply_text'")
    assert (kept["id"], kept["content"], kept["locale"]) == ("t-r1", "Unmistakable words of mine", "en")
    assert kept["kept_until"] - datetime.now(UTC).date() in (timedelta(179), timedelta(180))  # midnight may pass
    await harness.processor.forget_expired()
    assert len(await harness.fetch("SELECT * FROM private_text")) == 2
    await harness.resources.pool.execute(
        "UPDATE private_text SET kept_until = current_date - 1 WHERE kind = 'reply_text'"
    )
    await harness.processor.forget_expired()
    assert [row["kind"] for row in await harness.fetch("SELECT kind FROM private_text")] == ["candidate_name"]


async def test_no_words_are_kept_when_the_setting_says_so(database: str) -> None:
    harness = await Harness.open(SPEC, as_service(database, "classification"), classified_text_days=0)
    await harness.feed(CLASSIFICATION_REQUESTS, request(1, NO))
    assert [row["kind"] for row in await harness.fetch("SELECT kind FROM private_text")] == ["candidate_name"]
    await harness.close()


async def test_a_correction_turned_over_is_an_example(harness: Harness) -> None:
    await harness.feed(CLASSIFICATION_REQUESTS, request(1, NO), request(1, YES, thread="u"), request(1, NO, thread="v"))
    await harness.feed(
        OUTCOME_COMMANDS,
        correction("accepted", 1),
        correction("declined", 1, thread="u"),
        correction("declined", 1, thread="v"),
    )
    async with acquire(harness.resources.pool) as connection:
        assert await load_corrected(connection, after(days=0)) == [(NO, "en", "accepted"), (YES, "en", "declined")]
        assert await load_corrected(connection, after(days=51)) == []


async def test_names_stand_in_one_table(harness: Harness) -> None:
    await harness.feed(CLASSIFICATION_REQUESTS, request(1, NO, name="Zebedee"), request(1, NO, thread="u", name=None))
    rows = await harness.fetch("SELECT kind, id, content FROM private_text WHERE kind <> 'reply_text'")
    assert [tuple(row) for row in rows] == [("candidate_name", "t", "Zebedee")]
    for table in ("thread", "reply"):
        assert "Zebedee" not in repr([dict(row) for row in await harness.fetch(f"SELECT * FROM {table}")])  # noqa: S608
    await harness.feed(CLASSIFICATION_REQUESTS, request(2, NO, name="Zeb"), request(3, NO, name=None))
    (corrected,) = await harness.feed(OUTCOME_COMMANDS, correction("accepted", 1))
    assert corrected.data.candidate.name == "Zeb"


async def test_the_database_refuses_half_a_correction(harness: Harness) -> None:
    await harness.feed(CLASSIFICATION_REQUESTS, request(1, NO))
    with pytest.raises(asyncpg.CheckViolationError):
        await harness.resources.pool.execute("UPDATE thread SET corrected = 'accepted'")
    with pytest.raises(asyncpg.CheckViolationError):
        await harness.resources.pool.execute("UPDATE thread SET by_human = true")


@pytest.fixture
async def http(harness: Harness) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=list(SPEC.routes(harness.resources)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_texts_can_be_tried(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/classify", json={"texts": [NO, YES, ""]})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["label"] for result in results] == ["decline", "accept", "accept"]
    assert set(results[0]) == {"label", "confidence", "needs_confirmation", "signals", "model_version"}
    assert results[2]["needs_confirmation"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"texts": "no list"}', 422),
        (b'{"texts": [1]}', 422),
        (b'{"texts": [' + b",".join([b'""'] * (TEXTS_MAX + 1)) + b"]}", 422),
        (b" " * (BODY_BYTES_MAX + 1), 413),
    ],
)
async def test_bad_requests_are_problems(http: httpx.AsyncClient, body: bytes, status: int) -> None:
    answer = await http.post("/v1/classify", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


async def test_a_compressed_body_is_refused_by_its_encoding(http: httpx.AsyncClient) -> None:
    body, headers = gzip.compress(b'{"texts": []}'), {"content-encoding": "gzip"}
    answer = await http.post("/v1/classify", content=body, headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


async def test_a_defect_is_a_problem_too(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "classify", None)
    answer = await http.post("/v1/classify", json={"texts": [YES]})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")

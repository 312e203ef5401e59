"""The inbox on a real Postgres and over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import quote

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator
from starlette.applications import Starlette

from services.credits.service import SPEC as CREDITS
from services.inbox import openapi, queries
from services.inbox.api import routes
from services.inbox.service import SPEC
from services.inbox.validation import Validator
from services.ingestion.service import SPEC as INGESTION
from shared.events import Candidate, ClassificationRequestedV1, Event, decode, encode, to_instant
from shared.stream import outbox
from shared.stream.dry_run import dry_run_route
from shared.testing.builders import (
    START,
    after,
    contract_started,
    drafted,
    erased,
    event,
    recruiter_message,
    reply,
    seat_assigned,
    sent,
)
from shared.testing.conversations import AnyEvent, Conversation, Ledger, caused_by
from shared.testing.databases import as_service
from shared.testing.harness import Harness
from shared.topics import (
    ACCOUNTING_FACTS,
    CLASSIFICATION_REQUESTS,
    CONTRACT_EVENTS,
    CONVERSATION_EVENTS,
    CREDIT_EVENTS,
    MESSAGING_EVENTS,
    NOTIFICATION_REQUESTS,
    OUTCOME_COMMANDS,
    OUTCOME_EVENTS,
    THREAD_STATES,
)


@dataclass
class Inbox:
    """The service without a broker, and a client of its paths whose answers are held against their description."""

    harness: Harness
    client: httpx.AsyncClient

    async def talk(self, *events: AnyEvent, **how: Any) -> list[AnyEvent]:
        return await self.harness.feed(CONVERSATION_EVENTS, *events, **how)

    async def decide(self, *events: AnyEvent, **how: Any) -> list[AnyEvent]:
        return await self.harness.feed(OUTCOME_EVENTS, *events, **how)

    async def post(self, *events: AnyEvent) -> list[AnyEvent]:
        return await self.harness.feed(CREDIT_EVENTS, *events)

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        return checked(await self.client.get(path, params=query), "get", status)

    async def correct(self, thread_id: str, status: int = 202, **body: Any) -> Any:
        path = f"/v1/threads/{quote(thread_id, safe='')}/outcome"
        return checked(await self.client.post(path, json=body), "post", status)

    async def folder(self, name: str, seat_id: str = "seat-1", **query: Any) -> list[str]:
        return [item["thread_id"] for item in (await self.get(f"/v1/seats/{seat_id}/folders/{name}", **query))["items"]]


def checked(response: httpx.Response, method: str, status: int) -> Any:
    """The body, after holding it against the description of its path."""
    assert response.status_code == status, response.text
    served = response.request.url.raw_path.split(b"?")[0].decode().split("/")
    described = [
        methods[method]
        for path, methods in openapi.DOCUMENT["paths"].items()
        if method in methods
        and len(served) == len(path.split("/"))
        and all(is_variable(want) or want == have for want, have in zip(path.split("/"), served, strict=True))
    ]
    described.sort(key=lambda operation: len(operation["parameters"]))
    answers = described[0]["responses"]
    content = (answers.get(str(status)) or answers["default"])["content"]
    ((media_type, holder),) = content.items()
    assert response.headers["content-type"] == media_type
    schema = {**holder["schema"], "components": openapi.DOCUMENT["components"]}
    Draft202012Validator(schema).validate(response.json())
    return response.json()


def is_variable(part: str) -> bool:
    return part.startswith("{")


@pytest.fixture
async def inbox(database: str) -> AsyncIterator[Inbox]:
    async with open_inbox(database) as opened:
        yield opened


class open_inbox:  # noqa: N801  used as a function
    def __init__(self, database: str, validator: Validator | None = None, **overrides: Any) -> None:
        self._database = database
        self._validator = validator
        self._overrides = overrides

    async def __aenter__(self) -> Inbox:
        self._harness = await Harness.open(SPEC, as_service(self._database, "inbox"), **self._overrides)
        app = Starlette(routes=list(routes(self._harness.resources, self._validator)))
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inbox")
        return Inbox(self._harness, self._client)

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        await self._harness.close()


def states(events: list[AnyEvent]) -> list[tuple[str, int, int]]:
    return [
        (e.data.status, e.data.thread_version, e.data.outcome_version) for e in events if e.type == "thread.state.v1"
    ]


# Thread states


async def test_each_change_publishes_the_newest_state(inbox: Inbox) -> None:
    talk = Conversation()
    emitted = await inbox.talk(talk.status(), talk.audience("seat-2"))
    assert states(emitted) == [("awaiting_reply", 2, 0)]
    assert emitted[0].data.seat_id == "seat-2"
    assert states(await inbox.talk(talk.reply())) == [("responded", 3, 0)]
    assert states(await inbox.decide(talk.decided())) == [("accepted", 3, 1)]
    assert states(await inbox.decide(talk.unchanged())) == []


async def test_r21_an_outcome_that_comes_first_waits_for_its_reply(inbox: Inbox) -> None:
    talk = Conversation()
    sent_event, replied = talk.status(), talk.reply()
    assert await inbox.decide(talk.decided("declined")) == []
    assert states(await inbox.talk(sent_event)) == [("awaiting_reply", 1, 0)]
    assert states(await inbox.talk(replied)) == [("declined", 2, 1)]
    assert await inbox.harness.fetch("SELECT * FROM parked") == []


async def test_r21_an_outcome_waits_for_its_version_and_not_for_one_event(inbox: Inbox) -> None:
    """Its reply's event may have been given up: what comes after it shows that the view is there."""
    talk = Conversation()
    sent_event = talk.status()
    talk.reply()
    assert await inbox.decide(talk.decided("declined")) == []
    assert states(await inbox.talk(sent_event)) == [("awaiting_reply", 1, 0)]
    assert states(await inbox.talk(talk.locked()))[-1][2] == 1
    assert await inbox.harness.fetch("SELECT * FROM parked") == []


async def test_r21_an_outcome_whose_reply_never_comes_is_orphaned(inbox: Inbox) -> None:
    talk = Conversation()
    talk.status()
    talk.reply()
    await inbox.decide(talk.decided())
    await inbox.harness.expire(to_instant(datetime.now(UTC) + timedelta(days=2)))
    assert await inbox.harness.fetch("SELECT * FROM parked") == []
    assert await inbox.harness.dead_reasons() == ["ORPHANED"]


async def test_r11_repeats_have_no_effect(inbox: Inbox) -> None:
    talk, ledger = Conversation(), Ledger()
    conversation = [talk.status(), talk.reply(), talk.locked()]
    outcomes = [talk.decided(), talk.unchanged()]
    entries = [ledger.posted("granted", amount=5), ledger.denied("inmail-2")]
    for _ in range(2):
        await inbox.talk(*conversation)
        await inbox.decide(*outcomes)
        await inbox.harness.feed(NOTIFICATION_REQUESTS, talk.notified(outcomes[0]))
        await inbox.post(*entries)
    assert len(inbox.harness.on(THREAD_STATES)) == 2
    (count,) = await inbox.harness.fetch(
        "SELECT (SELECT count(*) FROM fact) AS facts, (SELECT count(*) FROM entry) AS entries,"
        " (SELECT count(*) FROM denial) AS denials"
    )
    assert dict(count) == {"facts": 6, "entries": 1, "denials": 1}
    assert inbox.harness.results.count((CONVERSATION_EVENTS, "reply.recorded.v1", "duplicate")) == 1


async def test_a_skipped_number_is_counted_as_a_defect(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(talk.status())
    talk.audience()
    talk.audience()
    await inbox.talk(talk.reply())
    assert inbox.harness.resources.metrics.registry.get_sample_value("inmail_gaps_total") == 2


async def test_a_state_has_the_same_id_only_with_the_same_content(database: str) -> None:
    talk = Conversation()
    conversation, outcome = [talk.status(), talk.reply(), talk.message_rejected()], talk.decided()
    contents: dict[str, bytes] = {}
    for batch_records in (1, 2, 3):
        for outcome_first in (False, True):
            emitted = await feed_anew(database, conversation, outcome, batch_records, outcome_first=outcome_first)
            for state in emitted:
                assert contents.setdefault(state.id, encode_data(state)) == encode_data(state)
            assert states(emitted)[-1] == ("accepted", 3, 1)


async def feed_anew(
    database: str, conversation: list[AnyEvent], outcome: AnyEvent, batch_records: int, *, outcome_first: bool
) -> list[AnyEvent]:
    async with open_inbox(database) as inbox:
        await inbox.harness.resources.pool.execute("DELETE FROM thread; DELETE FROM inmail; DELETE FROM fact")
        if outcome_first:
            await inbox.decide(outcome)
        await inbox.talk(*conversation, batch_records=batch_records)
        if not outcome_first:
            await inbox.decide(outcome)
        return inbox.harness.on(THREAD_STATES)


@pytest.mark.parametrize("seed", range(6))
async def test_r21_tables_are_the_same_however_topics_and_batches_fall(database: str, seed: int) -> None:
    facts, outcomes = [], []
    for number in range(8):
        talk, inmail = Conversation(thread_id=f"thread-{number}"), f"i{number}"
        facts += [talk.status("scheduled", inmail_id=inmail), talk.status(inmail_id=inmail)]
        for reply_number in range(number % 4):
            reply_id = f"r{reply_number}"
            facts.append(talk.reply(after(days=9 - reply_number), reply_id=reply_id, inmail_id=inmail))
            outcomes.append(talk.unchanged(reply_id=reply_id) if reply_number == 1 else talk.decided(reply_id=reply_id))
        facts.append(talk.audience("seat-9", at=after(days=10)))
    expected = await tables_after(database, [(CONVERSATION_EVENTS, facts), (OUTCOME_EVENTS, outcomes)])
    random = Random(seed)  # noqa: S311  a seed replays a failure
    unread = {CONVERSATION_EVENTS: list(facts), OUTCOME_EVENTS: list(outcomes)}
    feeds = []
    while any(unread.values()):
        topic = random.choice([topic for topic, left in unread.items() if left])
        size = random.randint(1, 6)
        feeds.append((topic, unread[topic][:size]))
        unread[topic] = unread[topic][size:]
    assert await tables_after(database, feeds) == expected


async def tables_after(database: str, feeds: list[tuple[str, list[AnyEvent]]]) -> list[Any]:
    async with open_inbox(database) as inbox:
        pool = inbox.harness.resources.pool
        await pool.execute("DELETE FROM thread; DELETE FROM inmail; DELETE FROM fact; DELETE FROM private_text")
        for topic, events in feeds:
            await inbox.harness.feed(topic, *events)
        tables = ("thread", "inmail", "fact", "private_text", "parked")
        return [sorted(map(tuple, await pool.fetch(f"SELECT * FROM {table}")), key=repr) for table in tables]  # noqa: S608


def encode_data(state: AnyEvent) -> bytes:
    return bytes(orjson.dumps(state.data.model_dump(mode="json")))


async def test_an_older_state_written_last_is_corrected(inbox: Inbox) -> None:
    talk = Conversation()
    (older,) = await inbox.talk(talk.status())
    (newer,) = await inbox.talk(talk.reply())
    assert await inbox.harness.feed(THREAD_STATES, older, newer) == []
    (again,) = await inbox.harness.feed(THREAD_STATES, older)
    assert again.data == newer.data
    assert await inbox.harness.feed(THREAD_STATES, again) == []


async def test_an_older_state_is_corrected_though_a_newer_one_was_rolled_back(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Conversation()
    (older,) = await inbox.talk(talk.status())
    (newer,) = await inbox.talk(talk.reply())
    await inbox.harness.feed(THREAD_STATES, older, newer)
    monkeypatch.setattr(outbox, "store_outgoing", AsyncMock(side_effect=ValueError))
    with pytest.raises(ValueError):  # noqa: PT011  ours
        await inbox.talk(talk.reply(reply_id="r2"))
    monkeypatch.undo()
    (again,) = await inbox.harness.feed(THREAD_STATES, older)
    assert again.data == newer.data


async def test_an_older_state_is_corrected_after_a_restart(database: str) -> None:
    talk = Conversation()
    async with open_inbox(database) as inbox:
        (older,) = await inbox.talk(talk.status())
        (newer,) = await inbox.talk(talk.reply())
    async with open_inbox(database) as inbox:
        (again,) = await inbox.harness.feed(THREAD_STATES, older)
        assert again.data == newer.data
        assert await inbox.harness.feed(THREAD_STATES, newer, again) == []


async def test_no_name_is_kept_outside_the_private_table(inbox: Inbox) -> None:
    talk = Conversation(candidate=Candidate(id="candidate-1", name="Zaphod"))
    await inbox.talk(talk.status(), talk.reply())
    decided = talk.decided()
    await inbox.decide(decided)
    await inbox.harness.feed(NOTIFICATION_REQUESTS, talk.notified(decided))
    for table in ("thread", "inmail", "fact", "entry", "denial", "correction"):
        rows = await inbox.harness.fetch(f"SELECT {table}::text AS row FROM {table}")  # noqa: S608
        assert not [row for row in rows if "Zaphod" in row["row"]]
    assert [row["content"] for row in await inbox.harness.fetch("SELECT content FROM private_text")] == ["Zaphod"]


# Folders


async def test_r30_folders_newest_first(inbox: Inbox) -> None:
    for number, outcome in enumerate((None, "accepted", "declined", None, "accepted")):
        talk = Conversation(thread_id=f"thread-{number}")
        await inbox.talk(talk.status(at=after(days=number), inmail_id=f"i{number}"))
        if outcome is not None:
            await inbox.talk(talk.reply(after(days=50), inmail_id=f"i{number}"))
            await inbox.decide(talk.decided(outcome))  # type: ignore[arg-type]
    assert await inbox.folder("awaiting-reply") == ["thread-3", "thread-0"]
    assert await inbox.folder("accepted") == ["thread-4", "thread-1"]
    assert await inbox.folder("declined") == ["thread-2"]
    assert await inbox.folder("all") == [f"thread-{number}" for number in (4, 3, 2, 1, 0)]
    assert await inbox.folder("all", seat_id="nobody") == []


async def test_r30_a_folder_item_says_how_long_it_waits(inbox: Inbox) -> None:
    talk, old = Conversation(), Conversation(thread_id="thread-2")
    now = to_instant(datetime.now(UTC))
    await inbox.talk(talk.status(at=now - timedelta(days=10)), old.status(at=now - timedelta(days=91), inmail_id="i2"))
    young, lapsed = (await inbox.get("/v1/seats/seat-1/folders/awaiting-reply"))["items"]
    assert young["candidate"] == {"id": "candidate-1", "name": "Ada"}
    assert (young["days_left"], young["lapsed"], young["can_reply"]) == (80, False, False)
    assert young["age_seconds"] >= 10 * 86400
    assert (lapsed["days_left"], lapsed["lapsed"]) == (0, True)


async def test_r30_a_reassigned_thread_moves_to_its_owner(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(talk.status(), talk.audience("seat-1"), talk.audience("seat-2", at=after(days=1)))
    assert await inbox.folder("all") == []
    assert await inbox.folder("awaiting-reply", seat_id="seat-2") == ["thread-1"]


async def test_pages_stay_in_step_while_threads_come(inbox: Inbox) -> None:
    for number in range(5):
        await inbox.talk(Conversation(thread_id=f"thread-{number}").status(inmail_id=f"i{number}"))
    seen: list[str] = []
    cursor: dict[str, Any] = {"cursor": ""}  # as a client writes who has none yet
    for page in range(3):
        answer = await inbox.get("/v1/seats/seat-1/folders/all", limit=2, **cursor)
        seen += [item["thread_id"] for item in answer["items"]]
        cursor = {"cursor": answer["next_cursor"]}
        await inbox.talk(Conversation(thread_id=f"later-{page}").status(at=after(days=9), inmail_id=f"l{page}"))
    assert seen == ["thread-4", "thread-3", "thread-2", "thread-1", "thread-0"]
    assert cursor == {"cursor": None}


@pytest.mark.parametrize(
    "query",
    [
        *({"limit": limit} for limit in ("0", "201", "x")),
        # The last two: [1, "a\0"] and [true, "x"].
        *({"cursor": cursor} for cursor in ("!", "W10", "WzEsMl0", "WzEsImFcdTAwMDAiXQ", "W3RydWUsIngiXQ")),
    ],
)
async def test_bad_parameters_are_problems(inbox: Inbox, query: dict[str, str]) -> None:
    problem = await inbox.get("/v1/seats/seat-1/folders/all", status=400, **query)
    assert problem["parameter"] in query
    assert problem["cure"]


async def test_unknown_things_are_problems(inbox: Inbox) -> None:
    await inbox.get("/v1/seats/seat-1/folders/archived", status=404)
    await inbox.get("/v1/threads/none", status=404)
    await inbox.get("/v1/threads/none/smart-replies", status=404)
    await inbox.get("/v1/inmails/none/receipt", status=404)
    await inbox.correct("none", status=404, outcome="accepted", corrected_by="seat-1")
    for path in ("/v1/none", "/v1/threads/a/b/c"):
        assert (await inbox.client.get(path)).headers["content-type"] == "application/problem+json"
    refused = await inbox.client.delete("/v1/threads/none")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await inbox.client.get("/v1/threads/%00")).status_code == 400
    assert (await inbox.client.get("/v1/threads/%ff")).status_code == 400
    assert (await inbox.client.get("/v1/threads/" + "x" * 129)).status_code == 400


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_no_method_makes_a_path_known(inbox: Inbox, method: str) -> None:
    assert (await inbox.client.request(method, "/v1/none")).status_code == 404


async def test_a_thread_s_state_names_of_the_candidate_what_a_state_knows(inbox: Inbox) -> None:
    talk = Conversation(candidate=Candidate(id="candidate-1", name="Ada", locale="fr-CA"))
    await inbox.talk(talk.status(), talk.audience())
    assert (await inbox.get("/v1/threads/thread-1"))["state"]["candidate"] == {"id": "candidate-1", "name": "Ada"}


async def test_a_slash_at_the_end_is_another_path(inbox: Inbox) -> None:
    for path in ("/v1/threads/thread-1/", "/v1/inmails/inmail-1/receipt/"):
        answer = await inbox.client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_ids_may_hold_any_character(inbox: Inbox) -> None:
    name = "a/b?c#d%2Fé ü"
    talk = Conversation(thread_id=name)
    await inbox.talk(talk.status(inmail_id=name), talk.audience(name))
    encoded = quote(name, safe="")
    assert (await inbox.get(f"/v1/threads/{encoded}"))["state"]["thread_id"] == name
    assert await inbox.folder("all", seat_id=encoded) == [name]
    assert (await inbox.get(f"/v1/inmails/{encoded}/receipt"))["inmail_id"] == name


# Threads


async def test_a_thread_tells_its_story_in_event_time(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(
        talk.status("sent", after(days=1)),
        talk.status("scheduled", START),
        talk.message_rejected("AWAITING_REPLY", at=after(days=2)),
        talk.draft("not_interested", at=after(days=2)),
        talk.reply(after(days=3), choice="not_interested", content="template_only"),
        talk.locked(),
        talk.draft(None, at=after(days=3)),
    )
    decided = talk.decided("declined", source="choice")
    await inbox.decide(decided, talk.correction_rejected("NOT_CLASSIFIED", at=after(days=4)))
    await inbox.harness.feed(NOTIFICATION_REQUESTS, talk.notified(decided))
    found = await inbox.get("/v1/threads/thread-1")
    assert [item["type"] for item in found["timeline"]] == [
        "inmail.status_changed.v1",
        "inmail.status_changed.v1",
        "recruiter_message.rejected.v1",
        "reply.recorded.v1",
        "thread.locked.v1",
        "outcome.decided.v1",
        "outcome.correction_rejected.v1",
    ]
    assert [item["time"] for item in found["timeline"]] == sorted(item["time"] for item in found["timeline"])
    assert (found["can_reply"], found["cannot_reply_reason"]) == (False, "THREAD_LOCKED")
    assert found["state"]["status"] == "declined"
    assert (found["outcome"]["version"], found["outcome"]["source"]) == (1, "choice")


async def test_r20_a_thread_of_rejected_messages_alone_is_unknown(inbox: Inbox) -> None:
    await inbox.talk(Conversation().message_rejected("UNKNOWN_THREAD"))
    await inbox.get("/v1/threads/thread-1", status=404)
    assert inbox.harness.on(THREAD_STATES) == []


async def test_r03_smart_replies_are_filled_in(inbox: Inbox) -> None:
    talk = Conversation(candidate=Candidate(id="candidate-1", name="Ada", locale="fr-CA"))
    await inbox.talk(talk.status(), talk.draft("interested"))
    found = await inbox.get("/v1/threads/thread-1/smart-replies")
    assert found["selected"] == "interested"
    assert [option["choice"] for option in found["options"]] == ["interested", "not_interested"]
    assert {option["template"]["locale"] for option in found["options"]} == {"fr"}
    assert all("Ada" in option["text"] for option in found["options"])
    for wanted, expected in (("de", "de"), ("pt-BR", "pt"), ("xx", "fr")):
        found = await inbox.get("/v1/threads/thread-1/smart-replies", locale=wanted)
        assert {option["template"]["locale"] for option in found["options"]} == {expected}


# Receipts


async def test_a_receipt_holds_the_causal_chain(inbox: Inbox) -> None:
    talk, ledger = Conversation(), Ledger()
    scheduled, was_sent = talk.status("scheduled"), talk.status("sent", after(hours=1))
    await inbox.talk(scheduled, was_sent)
    found = await inbox.get("/v1/inmails/inmail-1/receipt")
    assert found["pending"] == ["answer", "ledger"]
    await inbox.post(
        ledger.posted("granted", amount=5),
        ledger.posted("held", inmail_id="inmail-1"),
        ledger.posted("captured", after(hours=1), inmail_id="inmail-1"),
    )
    assert (await inbox.get("/v1/inmails/inmail-1/receipt"))["pending"] == ["answer"]
    replied = talk.reply(choice="not_interested", content="template_only")
    await inbox.talk(replied, caused_by(replied, talk.locked()))
    found = await inbox.get("/v1/inmails/inmail-1/receipt")
    assert found["pending"] == ["outcome", "ledger"]
    assert found["answer"]["reply_id"] == "reply-1"
    decided = caused_by(replied, talk.decided("declined"))
    await inbox.decide(decided)
    await inbox.post(ledger.posted("returned", after(days=1), inmail_id="inmail-1"))
    assert (await inbox.get("/v1/inmails/inmail-1/receipt"))["pending"] == ["notifications"]
    await inbox.harness.feed(NOTIFICATION_REQUESTS, talk.notified(decided), talk.retracted(replied))
    found = await inbox.get("/v1/inmails/inmail-1/receipt")
    assert found["pending"] == []
    assert found["model_version"] == "model-1"
    assert found["outcome"]["outcome"] == "declined"
    assert found["lock"]["locked"] is True
    assert [line["kind"] for line in found["ledger"]] == ["held", "captured", "returned"]
    assert [(n["notification_id"], n["retracted"]) for n in found["notifications"]] == [("notification-1", True)]
    causes = {item["id"]: item["cause_id"] for item in found["events"]}
    assert causes[decided.id] == replied.id
    assert causes[found["notifications"][0]["id"]] == decided.id


async def test_a_receipt_leaves_other_inmails_out(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(
        talk.status(credit_cost=0),
        talk.status("scheduled", inmail_id="i2", kind="follow_up", credit_cost=0),
        talk.reply(),
        talk.follow_up_cancelled("i2"),
        talk.status("cancelled", after(days=1), inmail_id="i2", credit_cost=0),
    )
    await inbox.decide(talk.decided())
    found = await inbox.get("/v1/inmails/i2/receipt")
    assert [item["type"] for item in found["events"]] == [
        "inmail.status_changed.v1",
        "follow_up.cancelled.v1",
        "inmail.status_changed.v1",
    ]
    assert (found["answer"], found["outcome"], found["pending"]) == (None, None, [])


async def test_r24_a_denied_inmail_is_known_by_the_ledger_alone(inbox: Inbox) -> None:
    ledger = Ledger()
    await inbox.post(ledger.denied("inmail-1"))
    found = await inbox.get("/v1/inmails/inmail-1/receipt")
    assert (found["denied"]["reason"], found["pending"]) == ("INSUFFICIENT_CREDITS", ["events"])
    await inbox.talk(Conversation().status("scheduled"))
    assert (await inbox.get("/v1/inmails/inmail-1/receipt"))["pending"] == ["sent"]


# Credits


async def test_credits_at_an_instant(inbox: Inbox) -> None:
    ledger = Ledger()
    await inbox.post(
        ledger.posted("granted", START, amount=10),
        ledger.posted("held", after(days=1), inmail_id="a"),
        ledger.posted("captured", after(days=2), inmail_id="a"),
        ledger.posted("charged", after(days=3), inmail_id="b"),
        ledger.posted("held", after(days=4), inmail_id="c"),
        ledger.posted("returned", after(days=50), inmail_id="b"),
        ledger.posted("expired", after(days=60), amount=3),
    )

    async def at(**when: float) -> list[int]:
        found = await inbox.get("/v1/contracts/contract-1/credits", as_of=after(**when).isoformat())
        places = [found[name] for name in ("available", "held", "open", "lapsed", "expired")]
        assert found["granted"] == sum(places)
        return [*places, found["returned"]]

    assert await at(days=-1) == [0, 0, 0, 0, 0, 0]
    assert await at(days=1) == [9, 1, 0, 0, 0, 0]
    assert await at(days=2) == [9, 0, 1, 0, 0, 0]
    assert await at(days=4) == [7, 1, 2, 0, 0, 0]
    assert await at(days=50) == [8, 1, 1, 0, 0, 1]
    assert await at(days=60) == [5, 1, 1, 0, 3, 1]
    assert await at(days=92) == [5, 1, 1, 0, 3, 1]
    assert await at(days=92, milliseconds=1) == [5, 1, 0, 1, 3, 1]
    assert (await inbox.get("/v1/contracts/none/credits"))["granted"] == 0
    await inbox.get("/v1/contracts/contract-1/credits", status=400, as_of="yesterday")


async def test_ledger_lines_in_their_order(inbox: Inbox) -> None:
    ledger, other = Ledger(), Ledger(contract_id="contract-2")
    await inbox.post(ledger.posted("granted", amount=10), other.posted("granted", amount=7))
    await inbox.post(*[ledger.posted("held", inmail_id=f"i{number}") for number in range(4)])
    first = await inbox.get("/v1/contracts/contract-1/credits/entries", limit=3)
    second = await inbox.get("/v1/contracts/contract-1/credits/entries", limit=3, cursor=first["next_cursor"])
    lines = first["items"] + second["items"]
    assert [line["entry_number"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["balance_after"]["available"] for line in lines] == [10, 9, 8, 7, 6]
    assert second["next_cursor"] is None


# Many at once


class Reads:
    """Reads of folders that hold their connections until `end` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.end = asyncio.Event()
        self._begun = asyncio.Semaphore(0)
        monkeypatch.setattr(queries, "folder", self._read)

    async def _read(self, *_: object, **__: object) -> list[object]:
        self._begun.release()
        await self.end.wait()
        return []

    async def begin(self, inbox: Inbox, count: int) -> list[asyncio.Task[list[str]]]:
        """Send so many, and wait until all that may read at once do."""
        sent = [asyncio.create_task(inbox.folder("all")) for _ in range(count)]
        for _ in range(inbox.harness.resources.settings.http_places):
            await self._begun.acquire()
        return sent


async def test_a_batch_does_not_wait_for_reads(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    async with open_inbox(database, http_wait_ms=600_000) as inbox:
        sent = await reads.begin(inbox, 50)
        batch = asyncio.create_task(inbox.talk(Conversation().status()))
        first, _ = await asyncio.wait({batch, *sent}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        reads.end.set()
        assert states(await batch) == [("awaiting_reply", 1, 0)]
        assert await asyncio.gather(*sent) == [[]] * 50
        assert first == {batch}


async def test_a_read_that_waits_too_long_is_told_to_come_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    async with open_inbox(database, http_wait_ms=0) as inbox:
        sent = await reads.begin(inbox, inbox.harness.resources.settings.http_places)
        refused = await inbox.client.get("/v1/threads/thread-1")
        reads.end.set()
        assert await asyncio.gather(*sent) == [[], [], []]
        assert checked(refused, "get", 503)["type"].endswith(":busy")
        assert refused.headers["retry-after"] == "1"
        await inbox.get("/v1/threads/thread-1", status=404)


# Rates


async def test_r31_rates_of_the_seat_that_sent(inbox: Inbox) -> None:
    january = [Conversation(thread_id=f"jan-{number}") for number in range(4)]
    for number, talk in enumerate(january):
        await inbox.talk(talk.status(inmail_id=f"jan-{number}"), talk.audience("somebody-else"))
    february = Conversation(thread_id="feb")
    await inbox.talk(february.status(at=after(days=30), inmail_id="feb", automated=True))
    await inbox.talk(january[0].reply(after(days=10), inmail_id="jan-0"))
    await inbox.talk(january[1].reply(after(days=45), inmail_id="jan-1", content="automated"))
    await inbox.talk(january[2].status("undelivered", after(days=1), inmail_id="jan-2"))
    await inbox.talk(january[3].status("withdrawn", after(days=1), inmail_id="jan-3"))
    await inbox.talk(february.reply(after(days=61), inmail_id="feb"))
    await inbox.decide(january[0].decided("declined"), february.decided("accepted"))

    async def at(**when: float) -> list[Any]:
        found = await inbox.get("/v1/seats/seat-1/response-rate", as_of=after(**when).isoformat())
        assert found["interval"] == "month"
        return [(found[n]["numerator"], found[n]["denominator"]) for n in ("pooled", "report_30d", "mean_of_intervals")]

    assert await at(hours=1) == [(0, 4), (0, 4), (0, 1)]
    assert await at(days=9) == [(0, 3), (0, 3), (0, 1)]
    assert await at(days=10) == [(1, 3), (1, 3), (1 / 3, 1)]
    assert await at(days=40) == [(1, 4), (1, 4), (1 / 3, 2)]
    assert await at(days=61) == [(2, 4), (1, 4), (1 / 3 + 1, 2)]
    nothing = await inbox.get("/v1/seats/somebody-else/response-rate")
    assert nothing["pooled"] == {"numerator": 0, "denominator": 0, "rate": None}


async def test_r19_r31_free_inmails_and_follow_ups_count_each_by_itself(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(
        talk.status(credit_cost=0),
        talk.status(at=after(days=1), inmail_id="inmail-2", kind="follow_up"),
        talk.reply(after(days=2), inmail_id="inmail-2"),
    )
    await inbox.decide(talk.decided())
    found = await inbox.get("/v1/seats/seat-1/response-rate")
    assert (found["pooled"]["numerator"], found["pooled"]["denominator"]) == (1, 2)


async def test_r31_exactly_thirty_days_count(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(talk.status(), talk.reply(after(days=30)))
    await inbox.talk(
        talk.status(inmail_id="i2"), talk.reply(after(days=30, milliseconds=1), reply_id="r2", inmail_id="i2")
    )
    await inbox.decide(talk.decided(), talk.unchanged(reply_id="r2"))
    found = await inbox.get("/v1/seats/seat-1/response-rate")
    assert (found["pooled"]["numerator"], found["report_30d"]["numerator"]) == (2, 1)


# Corrections


async def test_r29_a_correction_is_one_command_however_often_it_is_asked_for(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(talk.status(), talk.reply())
    await inbox.correct("thread-1", status=409, outcome="declined", corrected_by="seat-1")
    await inbox.decide(talk.decided("accepted"))
    command = await inbox.correct("thread-1", outcome="declined", corrected_by="seat-1")
    assert command == await inbox.correct("thread-1", outcome="declined", corrected_by="seat-1", version=1)
    (row,) = await inbox.harness.fetch(
        "SELECT source_topic, topic, keys, payloads FROM outbox WHERE topic = $1", OUTCOME_COMMANDS
    )
    (key,), (payload,) = row["keys"], row["payloads"]
    sent_command: Event[Any] = decode(payload, key=key, headers=(), topic=OUTCOME_COMMANDS)
    assert (sent_command.id, row["source_topic"]) == (command["command_id"], None)
    assert (sent_command.data.outcome, sent_command.data.version) == ("declined", 1)
    await inbox.decide(caused_by(sent_command, talk.decided("declined", source="human", at=sent_command.time)))
    assert command == await inbox.correct("thread-1", outcome="declined", corrected_by="seat-1", version=1)
    assert command == await inbox.correct("thread-1", outcome="declined", corrected_by="seat-1")
    assert len(await inbox.harness.fetch("SELECT 1 FROM outbox WHERE topic = $1", OUTCOME_COMMANDS)) == 1
    timeline = (await inbox.get("/v1/threads/thread-1"))["timeline"]
    assert [item["type"] for item in timeline][-2:] == ["outcome.correction_requested.v1", "outcome.decided.v1"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"outcome": "accepted"}, "SAME_VALUE"),
        ({"outcome": "declined", "version": 2}, "STALE_VERSION"),
    ],
)
async def test_r29_what_cannot_be_corrected(inbox: Inbox, body: dict[str, Any], reason: str) -> None:
    talk = Conversation()
    await inbox.talk(talk.status(), talk.reply())
    await inbox.decide(talk.decided("accepted"))
    problem = await inbox.correct("thread-1", status=409, corrected_by="seat-1", **body)
    assert (problem["reason"], problem["version"]) == (reason, 1)


async def test_r29_a_choice_is_not_corrected(inbox: Inbox) -> None:
    talk = Conversation()
    await inbox.talk(talk.status(), talk.reply(choice="interested"))
    await inbox.decide(talk.decided("accepted", source="choice"))
    problem = await inbox.correct("thread-1", status=409, outcome="declined", corrected_by="seat-1")
    assert problem["reason"] == "NOT_CLASSIFIED"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b'{"outcome": "accepted"}', 422),
        (b'{"outcome": "maybe", "corrected_by": "s"}', 422),
        (b'{"outcome": "accepted", "corrected_by": ""}', 422),
        (b'{"outcome": "accepted", "corrected_by": "\\u0000"}', 422),
        (b'{"outcome": "accepted", "corrected_by": "s", "version": "1"}', 422),
        (b'{"outcome": "accepted", "corrected_by": "s", "version": 0}', 422),
        (b'{"outcome": "accepted", "corrected_by": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
async def test_r29_bad_bodies_are_problems(inbox: Inbox, body: bytes, status: int) -> None:
    checked(await inbox.client.post("/v1/threads/thread-1/outcome", content=body), "post", status)


# Validation


class Services:
    """Stands for ingestion and credits: answers what it was told to, and notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, list[dict[str, Any]]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        records = orjson.loads(request.content)["records"]
        self.asked.append((request.url.host, records))
        answer = self.answers.get(request.url.host)
        if answer is None:
            raise httpx.ConnectError("away")
        return httpx.Response(200, json={"results": answer})


def result(*emitted: tuple[str, AnyEvent], **fields: Any) -> dict[str, Any]:
    events = [{"topic": topic, "event": orjson.loads(encode(made))} for topic, made in emitted]
    return {"verdict": "accepted", "reason": None, "detail": None, "parked": False, "emitted": events, **fields}


async def validated(database: str, services: "Services | httpx.AsyncBaseTransport", body: bytes) -> Any:
    class Urls:
        ingestion_url = "http://ingestion"
        credits_url = "http://credits/"

    transport = httpx.MockTransport(services) if isinstance(services, Services) else services
    validator = Validator(Urls(), transport)  # type: ignore[arg-type]
    async with open_inbox(database, validator) as inbox:
        return checked(await inbox.client.post("/v1/validate", content=body), "post", 200)


async def test_validate_tells_every_effect(database: str) -> None:
    talk, ledger = Conversation(), Ledger()
    talk.status()
    recorded = talk.reply(choice="not_interested", content="template_only")
    services = Services(
        ingestion=[
            result(
                (CONVERSATION_EVENTS, recorded),
                (ACCOUNTING_FACTS, event(recorded.data, topic=ACCOUNTING_FACTS)),
                (CLASSIFICATION_REQUESTS, requested("not_interested")),
                (CONVERSATION_EVENTS, talk.locked()),
                (CONVERSATION_EVENTS, talk.follow_up_cancelled("i2")),
            )
        ],
        credits=[result((CREDIT_EVENTS, ledger.posted("returned", inmail_id="inmail-1")))],
    )
    found = await validated(database, services, encode(reply(choice="not_interested")))
    assert found["verdict"] == "accepted"
    assert [effect["kind"] for effect in found["effects"]] == [
        "recorded",
        "outcome",
        "lock",
        "follow_up_cancelled",
        "ledger",
    ]
    assert found["effects"][1]["outcome"] == "declined"
    assert found["effects"][4]["posting"] == "returned"
    assert [(host, [record["key"] for record in records]) for host, records in services.asked] == [
        ("ingestion", ["thread-1"]),
        ("credits", ["contract-1"]),
    ]


def requested(choice: Any) -> AnyEvent:
    return event(
        ClassificationRequestedV1(
            reply_id="reply-1",
            thread_id="thread-1",
            inmail_id="inmail-1",
            contract_id="contract-1",
            seat_id="seat-1",
            candidate=Candidate(id="candidate-1"),
            choice=choice,
            content="message",
            thread_version=2,
            responded_at=after(days=1),
        ),
        time=after(days=1),
    )


@pytest.mark.parametrize(
    ("answer", "verdict", "kinds"),
    [
        (result(parked=True), "accepted", ["parked"]),
        (result(), "accepted", ["recorded"]),
        (result(verdict="duplicate"), "duplicate", []),
        (result(verdict="dead_letter", reason="EMPTY_RESPONSE", detail="data.text"), "dead_letter", []),
        (result((CLASSIFICATION_REQUESTS, requested(None))), "accepted", ["to_be_classified"]),
        (result((CREDIT_EVENTS, Ledger().denied("i"))), "accepted", ["denied"]),
        (None, "accepted", ["unknown"]),
    ],
)
async def test_validate_gives_the_service_s_verdict(database: str, answer: Any, verdict: str, kinds: list[str]) -> None:
    services = Services(ingestion=None if answer is None else [answer])
    found = await validated(database, services, encode(drafted()))
    assert (found["verdict"], [effect["kind"] for effect in found["effects"]]) == (verdict, kinds)
    assert found["reason"] == (answer or {}).get("reason")


async def test_validate_asks_the_reader_of_the_topic(database: str) -> None:
    services = Services(credits=[result((CREDIT_EVENTS, Ledger().posted("granted", amount=10)))])
    found = await validated(database, services, encode(contract_started()))
    assert [host for host, _ in services.asked] == ["credits"]
    assert found["effects"][0] | {"kind": "ledger", "posting": "granted", "amount": 10} == found["effects"][0]


async def test_validate_knows_no_ledger_without_credits(database: str) -> None:
    fact = Conversation().status()
    services = Services(
        ingestion=[result((CONVERSATION_EVENTS, fact), (ACCOUNTING_FACTS, event(fact.data, topic=ACCOUNTING_FACTS)))]
    )
    found = await validated(database, services, encode(sent()))
    assert [(effect["kind"], effect.get("part")) for effect in found["effects"]] == [
        ("recorded", None),
        ("unknown", "ledger"),
    ]


async def test_validate_says_that_credits_would_give_a_fact_up(database: str) -> None:
    fact = Conversation().status()
    services = Services(
        ingestion=[result((CONVERSATION_EVENTS, fact), (ACCOUNTING_FACTS, event(fact.data, topic=ACCOUNTING_FACTS)))],
        credits=[result(verdict="dead_letter", reason="CONFLICT", detail="charged to another contract")],
    )
    found = await validated(database, services, encode(sent()))
    assert found["verdict"] == "accepted", "ingestion takes it all the same"
    assert found["effects"][-1] == {
        "kind": "unknown",
        "part": "ledger",
        "detail": "credits gives it up: charged to another contract",
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "INVALID_JSON"),
        (b"\xff", "INVALID_JSON"),
        (b"[]", "INVALID_EVENT"),
        (b"{}", "INVALID_EVENT"),
        (b'{"type": "nobody.knows.v1"}', "INVALID_EVENT"),
        (encode(sent()).replace(b"inmail.sent.v1", b"nobody.knows.v1"), "UNKNOWN_TYPE"),
        (encode(sent()).replace(b"inmail.sent.v1", b"thread.state.v1"), "UNKNOWN_TYPE"),
        (encode(sent()).replace(b"inmail.sent.v1", b""), "INVALID_EVENT"),
        (b'{"type": "reply.sent.v1"}', "INVALID_EVENT"),
        (b'"' + b"x" * 300_000 + b'"', "TOO_LARGE"),
    ],
)
async def test_validate_finds_what_is_no_event(database: str, body: bytes, reason: str) -> None:
    services = Services()
    found = await validated(database, services, body)
    assert (found["verdict"], found["reason"], services.asked) == ("dead_letter", reason, [])


async def test_validate_reads_numbers_as_the_topic_s_reader_does(database: str) -> None:
    """A member that nobody knows may hold a number that others cannot read; it has no bearing on the verdict."""
    body = encode(sent())[:-1] + b',"extension":1e999}'
    services = Services(ingestion=[result()])
    assert (await validated(database, services, body))["verdict"] == "accepted"
    assert services.asked[0][1][0]["key"] == "thread-1"


async def test_validate_of_an_erasure(database: str) -> None:
    found = await validated(database, Services(), encode(erased()))
    assert (found["verdict"], found["effects"][0]["kind"]) == ("accepted", "unknown")


async def test_validate_makes_one_client_for_all_and_closes_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[httpx.AsyncClient] = []

    class Noted(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(httpx, "AsyncClient", Noted)
    async with open_inbox(database, ingestion_url="http://127.0.0.1:1") as inbox:
        for _ in range(2):
            found = checked(await inbox.client.post("/v1/validate", content=encode(sent())), "post", 200)
            assert found["effects"][0]["part"] == "verdict"
        assert len([client for client in made if client is not inbox.client]) == 1
    assert all(client.is_closed for client in made)


async def test_openapi_is_served(inbox: Inbox) -> None:
    assert (await inbox.client.get("/openapi.json")).json() == openapi.DOCUMENT


async def test_validate_of_a_recruiter_s_message(database: str) -> None:
    talk = Conversation()
    services = Services(ingestion=[result((CONVERSATION_EVENTS, talk.message_rejected("UNKNOWN_THREAD")))])
    found = await validated(database, services, encode(recruiter_message()))
    assert (found["effects"][0]["kind"], found["effects"][0]["reason"]) == ("recorded", "UNKNOWN_THREAD")


class RealServices(httpx.AsyncBaseTransport):
    """Ingestion and credits as they are, each with its dry run."""

    def __init__(self, **harnesses: Harness) -> None:
        self._transports = {
            name: httpx.ASGITransport(
                Starlette(routes=[dry_run_route(lambda h=harness: h.processor, harness.resources.bulkhead)])  # type: ignore[misc]
            )
            for name, harness in harnesses.items()
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transports[request.url.host].handle_async_request(request)


async def test_validate_asks_the_real_services_and_leaves_no_trace(database: str) -> None:
    ingestion = await Harness.open(INGESTION, as_service(database, "ingestion"))
    bank = await Harness.open(CREDITS, as_service(database, "credits"))
    services = RealServices(ingestion=ingestion, credits=bank)
    try:
        found = await validated(database, services, encode(sent()))
        assert [effect["kind"] for effect in found["effects"]] == ["recorded", "recorded", "parked"]
        await bank.feed(CONTRACT_EVENTS, contract_started(), seat_assigned())
        await ingestion.feed(MESSAGING_EVENTS, sent())
        await bank.feed(ACCOUNTING_FACTS, *ingestion.on(ACCOUNTING_FACTS))
        assert (await validated(database, services, encode(sent())))["verdict"] == "duplicate"
        answer = encode(reply(choice="not_interested"))
        for _ in range(2):
            found = await validated(database, services, answer)
            kinds = [effect["kind"] for effect in found["effects"]]
            assert sorted(kinds) == ["ledger", "lock", "outcome", "recorded"]
            assert found["effects"][-1]["posting"] == "returned"
        found = await validated(database, services, encode(reply(thread_id="nobody-knows", text="Yes?")))
        assert [effect["kind"] for effect in found["effects"]] == ["parked"]
        found = await validated(database, services, encode(reply()))
        assert (found["verdict"], found["reason"]) == ("dead_letter", "EMPTY_RESPONSE")
        found = await validated(database, services, encode(contract_started(contract_id="contract-2")))
        assert [effect["kind"] for effect in found["effects"]] == ["ledger"]
    finally:
        await ingestion.close()
        await bank.close()


async def test_the_inbox_reads_what_ingestion_and_credits_write(database: str) -> None:
    ingestion = await Harness.open(INGESTION, as_service(database, "ingestion"))
    bank = await Harness.open(CREDITS, as_service(database, "credits"))
    try:
        await bank.feed(CONTRACT_EVENTS, contract_started(), seat_assigned())
        await ingestion.feed(
            MESSAGING_EVENTS,
            sent(),
            recruiter_message(at=after(hours=1)),
            drafted(choice="interested", at=after(hours=2)),
            reply(choice="not_interested"),
        )
        await bank.feed(ACCOUNTING_FACTS, *ingestion.on(ACCOUNTING_FACTS))
        async with open_inbox(database) as inbox:
            await inbox.post(*bank.on(CREDIT_EVENTS))
            await inbox.talk(*ingestion.on(CONVERSATION_EVENTS))
            thread = await inbox.get("/v1/threads/thread-1")
            assert (thread["state"]["status"], thread["cannot_reply_reason"]) == ("responded", "THREAD_LOCKED")
            receipt = await inbox.get("/v1/inmails/inmail-1/receipt")
            assert receipt["pending"] == ["outcome"]
            assert [line["kind"] for line in receipt["ledger"]] == ["charged", "returned"]
            assert (await inbox.get("/v1/threads/thread-1/smart-replies"))["selected"] is None
            found = await inbox.get("/v1/contracts/contract-1/credits")
            assert (found["available"], found["granted"], found["returned"]) == (10, 10, 1)
            assert inbox.harness.resources.metrics.registry.get_sample_value("inmail_gaps_total") == 0
    finally:
        await ingestion.close()
        await bank.close()

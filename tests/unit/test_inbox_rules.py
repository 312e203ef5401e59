from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.requests import Request

from services.inbox import domain, openapi, parameters
from services.inbox.api import routes
from services.inbox.corrections import command_id
from services.inbox.domain import (
    Thread,
    learn_fact,
    learn_outcome,
    thread_state,
    waiting,
)
from services.inbox.in_flight import StatesInFlight
from services.inbox.ledger import Postings, credits_at, is_settled, position
from services.inbox.rates import Month, response_rates
from services.inbox.receipt import in_order
from services.inbox.routing import EncodedRoute
from services.inbox.store import FactRow
from shared.bodies import DISCARDED_BYTES_MAX, bounded_body
from shared.events import Candidate, Event, ThreadStateV1, ThreadStatus
from shared.rules import CREDIT_WINDOW, correction_rejection
from shared.stream.records import Incoming, Position
from shared.testing.builders import START, after, event
from shared.testing.conversations import Conversation
from shared.topics import THREAD_STATES


def told(*events: Event[Any]) -> Thread:
    """A thread that knows these events, in this order."""
    thread = Thread(events[0].subject)
    for known in events:
        if known.type.startswith("outcome."):
            learn_outcome(thread, known.data)
        else:
            learn_fact(thread, known.data)
    return thread


def state(thread: Thread) -> ThreadStateV1:
    published = thread_state(thread)
    assert published is not None
    return published


def test_r02_a_draft_is_selected_until_the_conversation_says_otherwise() -> None:
    talk = Conversation()
    thread = told(talk.status(), talk.draft("interested"))
    assert thread.draft_choice == "interested"
    learn_fact(thread, talk.draft(None, at=after(days=1)).data)
    assert thread.draft_choice is None


def test_r04_a_locked_thread_says_why_nobody_can_reply() -> None:
    talk = Conversation()
    thread = told(talk.status(), talk.reply(choice="not_interested", content="template_only"), talk.locked())
    assert state(thread).locked
    assert not state(thread).can_reply
    assert domain.cannot_reply(locked=True, first_response_at=START) == "THREAD_LOCKED"


def test_r06_an_unlocked_thread_can_be_replied_to() -> None:
    talk = Conversation()
    thread = told(
        talk.status(), talk.reply(), talk.locked(), talk.reply(after(days=2), reply_id="r2"), talk.unlocked("r2")
    )
    assert not state(thread).locked
    assert state(thread).can_reply


def test_r08_only_a_newer_version_changes_the_outcome() -> None:
    talk = Conversation()
    first, reply = talk.status(), talk.reply()
    one, two = talk.decided("accepted"), talk.decided("declined")
    assert told(first, reply, two, one).outcome == "declined"
    assert told(first, reply, one, talk.unchanged()).outcome_version == 1


def test_r09_an_automated_reply_leaves_the_thread_waiting() -> None:
    talk = Conversation()
    thread = told(talk.status(), talk.reply(content="automated"))
    assert state(thread).status == "awaiting_reply"
    assert state(thread).first_response_at is None
    assert not state(thread).can_reply


def test_r11_a_repeated_number_has_no_effect() -> None:
    talk = Conversation()
    sent, owner = talk.status(), talk.audience("seat-2")
    thread = told(sent, owner, talk.audience("seat-3"))
    assert not learn_fact(thread, owner.data)
    assert thread.owner_seat_id == "seat-3"


def test_r11_what_was_given_up_and_comes_again_adds_up_and_overtakes_nothing() -> None:
    talk = Conversation()
    sent, owner, reply = talk.status(), talk.audience("seat-2"), talk.reply()
    thread = told(sent, talk.audience("seat-3"))
    assert learn_fact(thread, owner.data, redriven=True)
    assert learn_fact(thread, reply.data, redriven=True)
    assert (thread.owner_seat_id, thread.first_response_at, thread.version) == ("seat-3", reply.data.sent_at, 4)


def test_the_newest_inmail_names_the_candidate_whatever_becomes_of_an_older_one() -> None:
    talk = Conversation()
    older, newer = (Candidate(id="candidate-1", name=name, locale=None, time_zone=None) for name in ("Ann", "Anna"))
    thread = told(
        talk.status(candidate=older),
        talk.status("sent", after(days=28), inmail_id="i2", kind="follow_up", candidate=newer),
        talk.status("withdrawn", after(days=30), candidate=older),
    )
    assert thread.candidate_name == "Anna"


@pytest.mark.parametrize("order", ["old new withdrawn", "new old withdrawn", "old withdrawn new"])
def test_r21_a_thread_is_with_whom_its_newest_inmail_is(order: str) -> None:
    talk, facts = Conversation(), []
    for name in order.split():
        talk.contract_id = "c2" if name == "new" else "c1"
        if name == "new":
            facts.append(talk.status("sent", after(days=28), inmail_id="i2", candidate=Candidate(id="candidate-2")))
        else:
            facts.append(talk.status("sent" if name == "old" else "withdrawn", after(days=len(name))))
    known = state(told(*facts))
    assert (known.contract_id, known.candidate.id) == ("c2", "candidate-2")


def test_r17_an_undelivered_inmail_leaves_the_awaiting_folder() -> None:
    talk = Conversation()
    assert state(told(talk.status(), talk.status("undelivered", after(hours=1)))).status == "closed"


def test_r17_an_undelivered_inmail_does_not_count_as_sent() -> None:
    talk = Conversation()
    thread = told(
        talk.status(),
        talk.status("withdrawn", after(days=1)),
        talk.status("sent", after(days=2), inmail_id="i2"),
        talk.status("undelivered", after(days=3), inmail_id="i2"),
    )
    assert not thread.inmails["i2"].counts_as_sent
    assert last(thread) == START


def test_r08_the_first_response_is_the_earliest_however_late_it_comes() -> None:
    talk = Conversation()
    thread = told(talk.status(), talk.reply(after(days=5)), talk.reply(after(days=3), reply_id="r2"))
    assert state(thread).first_response_at == after(days=3)


def test_r18_an_inmail_withdrawn_after_sending_leaves_the_awaiting_folder_and_still_counts_as_sent() -> None:
    talk = Conversation()
    thread = told(talk.status(), talk.status("withdrawn", after(hours=1)))
    assert state(thread).status == "closed"
    assert thread.inmails["inmail-1"].counts_as_sent
    assert state(thread).last_inmail_at == START


def test_r18_another_inmail_keeps_the_thread_waiting() -> None:
    talk = Conversation()
    thread = told(
        talk.status(),
        talk.status("sent", after(days=28), inmail_id="i2"),
        talk.status("withdrawn", after(days=29), inmail_id="i2"),
    )
    assert state(thread).status == "awaiting_reply"
    assert state(thread).last_inmail_at == START


def test_r16_a_cancelled_follow_up_is_not_scheduled_any_more() -> None:
    talk = Conversation()
    thread = told(
        talk.status(),
        talk.status("undelivered", after(hours=1)),
        talk.status("scheduled", after(hours=2), inmail_id="i2"),
    )
    assert state(thread).status == "scheduled"
    learn_fact(thread, talk.status("cancelled", after(days=1), inmail_id="i2").data)
    assert state(thread).status == "closed"


def test_r20_nobody_can_reply_before_a_response() -> None:
    talk = Conversation()
    assert not state(told(talk.status())).can_reply
    assert domain.cannot_reply(locked=False, first_response_at=None) == "AWAITING_REPLY"


def test_r20_a_thread_of_rejected_messages_alone_has_no_state() -> None:
    assert thread_state(told(Conversation().message_rejected("UNKNOWN_THREAD"))) is None


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("scheduled",), "scheduled"),
        (("scheduled", "sent"), "awaiting_reply"),
        (("sent", "scheduled"), "awaiting_reply"),
        (("scheduled", "withdrawn"), "closed"),
        (("scheduled", "withdrawn", "sent"), "closed"),
        (("scheduled", "cancelled", "sent"), "awaiting_reply"),
        (("scheduled", "undelivered", "sent"), "closed"),
    ],
)
def test_r21_the_status_is_a_function_of_the_set_of_facts(statuses: tuple[Any, ...], expected: ThreadStatus) -> None:
    talk = Conversation()
    assert state(told(*(talk.status(status) for status in statuses))).status == expected


def test_r21_an_outcome_waits_for_its_reply() -> None:
    talk = Conversation()
    sent, reply = talk.status(), talk.reply()
    decided = talk.decided()
    thread = told(sent)
    assert not domain.is_reached(thread, decided.data)
    learn_fact(thread, reply.data)
    assert domain.is_reached(thread, decided.data)


def test_r07_a_reply_without_an_outcome_is_responded() -> None:
    talk = Conversation()
    thread = told(talk.status(), talk.reply(after(days=3)))
    assert (state(thread).status, state(thread).outcome_version) == ("responded", 0)
    assert state(thread).first_response_at == after(days=3)


def test_a_blank_name_is_no_name() -> None:
    talk = Conversation(candidate=Candidate(id="candidate-1", name="  "))
    assert state(told(talk.status())).candidate.name == "A candidate"


@pytest.mark.parametrize(
    ("age", "days_left", "lapsed"),
    [
        (timedelta(), 90, False),
        (timedelta(milliseconds=1), 90, False),
        (timedelta(days=1), 89, False),
        (CREDIT_WINDOW - timedelta(milliseconds=1), 1, False),
        (CREDIT_WINDOW, 0, False),
        (CREDIT_WINDOW + timedelta(milliseconds=1), 0, True),
        (timedelta(seconds=-1), 90, False),
    ],
)
def test_r30_a_waiting_thread_lapses_after_the_credit_window(age: timedelta, days_left: int, lapsed: bool) -> None:
    waits = waiting(status="awaiting_reply", last_inmail_at=START, now=START + age)
    assert (waits.days_left, waits.lapsed) == (days_left, lapsed)


def test_r30_an_answered_thread_has_no_credit_to_wait_for() -> None:
    waits = waiting(status="declined", last_inmail_at=START, now=after(days=100))
    assert (waits.age, waits.days_left, waits.lapsed) == (timedelta(days=100), None, False)


@pytest.mark.parametrize(
    ("outcome", "source", "version", "wanted", "refusal"),
    [
        (None, None, 1, "accepted", "NOT_CLASSIFIED"),
        ("accepted", "choice", 1, "declined", "NOT_CLASSIFIED"),
        ("accepted", "human", 1, "declined", "NOT_CLASSIFIED"),
        ("accepted", "classifier", 2, "declined", "STALE_VERSION"),
        ("accepted", "classifier", 1, "accepted", "SAME_VALUE"),
        ("accepted", "classifier", 1, "declined", None),
    ],
)
def test_r29_what_may_be_corrected(outcome: Any, source: Any, version: int, wanted: Any, refusal: str | None) -> None:
    found = correction_rejection(
        outcome=outcome,
        source=source,
        version=0 if outcome is None else 1,
        seen_version=version,
        wanted=wanted,
    )
    assert found == refusal


def test_r29_a_command_is_known_by_what_it_asks_for() -> None:
    one = command_id("t", 1, "accepted", "seat-1")
    assert one == command_id("t", 1, "accepted", "seat-1")
    others = {
        command_id("t", 2, "accepted", "seat-1"),
        command_id("t", 1, "declined", "seat-1"),
        command_id("t", 1, "accepted", "s"),
    }
    assert one not in others
    assert len(others) == 3


@pytest.mark.parametrize("ids", [("a", "b"), ("b", "a")])
def test_r29_a_correction_stands_before_its_rejection(ids: tuple[str, str]) -> None:
    kinds = ("outcome.correction_requested.v1", "outcome.correction_rejected.v1")
    facts = [
        FactRow("thread-1", number, kind, START, 1, None, None, "{}") for number, kind in zip(ids, kinds, strict=True)
    ]
    for given in (facts, facts[::-1]):
        assert in_order(given) == facts


def test_r31_pooled_report_and_mean_rates() -> None:
    rates = response_rates([Month(4, 1, 1), Month(2, 2, 1)])
    assert (rates.pooled.numerator, rates.pooled.denominator, rates.pooled.rate) == (3, 6, 0.5)
    assert (rates.report_30d.numerator, rates.report_30d.rate) == (2, 2 / 6)
    assert (rates.mean_of_intervals.numerator, rates.mean_of_intervals.denominator) == (1.25, 2)
    assert rates.mean_of_intervals.rate == 0.625


def test_r31_nothing_sent_has_no_rate() -> None:
    assert response_rates([]).pooled.rate is None
    assert response_rates([]).mean_of_intervals.denominator == 0


@pytest.mark.parametrize(
    ("kinds", "place"),
    [
        ({"held"}, "held"),
        ({"held", "released"}, "free"),
        ({"released"}, "free"),
        ({"held", "captured"}, "taken"),
        ({"captured"}, "taken"),
        ({"held", "released", "charged"}, "taken"),
        ({"held", "charged"}, "taken"),
        ({"charged", "refunded"}, "free"),
        ({"refunded"}, "free"),
        ({"held", "returned"}, "free"),
    ],
)
def test_r13_a_credit_lies_in_one_place(kinds: Any, place: str) -> None:
    assert position(kinds) == place


@pytest.mark.parametrize(
    ("statuses", "kinds", "denied", "answered", "settled"),
    [
        (("sent",), set(), False, False, False),
        (("sent",), set(), False, True, False),
        (("sent",), {"charged"}, False, True, False),
        (("sent",), {"charged", "returned"}, False, True, True),
        (("scheduled", "sent"), {"held", "released"}, False, True, False),
        (("scheduled", "sent"), set(), True, True, False),
        (("sent", "undelivered"), set(), False, False, False),
        (("sent", "undelivered"), {"charged"}, False, False, False),
        (("sent", "undelivered"), {"charged", "refunded"}, False, False, True),
        (("scheduled", "withdrawn"), set(), False, False, False),
        (("scheduled", "withdrawn"), {"held", "released"}, False, False, True),
        (("scheduled", "withdrawn"), set(), True, False, True),
        (("scheduled",), set(), True, False, True),
        (("scheduled",), set(), False, False, False),
    ],
)
def test_r13_a_credit_with_the_contract_is_settled_by_what_brought_it_there(
    statuses: tuple[Any, ...], kinds: Any, denied: bool, answered: bool, settled: bool
) -> None:
    talk = Conversation()
    inmail = told(*(talk.status(status, after(hours=n)) for n, status in enumerate(statuses))).inmails["inmail-1"]
    answered_at = after(days=1) if answered else None
    assert is_settled(inmail, kinds, denied=denied, answered_at=answered_at) == settled


@pytest.mark.parametrize(
    ("scheduled", "sent", "kinds", "settled"),
    [
        (1, 0, {"held"}, False),
        (1, 0, {"held", "released"}, True),
        (0, 0, set(), True),
        (0, 1, set(), False),
        (0, 1, {"charged"}, True),
    ],
)
def test_r19_what_an_inmail_costs_when_sent_is_what_its_receipt_waits_for(
    scheduled: int, sent: int, kinds: Any, settled: bool
) -> None:
    talk = Conversation()
    statuses = (talk.status("scheduled", credit_cost=scheduled), talk.status("sent", after(hours=1), credit_cost=sent))
    inmail = told(*statuses).inmails["inmail-1"]
    assert inmail.credit_cost == sent
    assert is_settled(inmail, kinds, denied=False, answered_at=None) == settled


def test_r13_open_and_lapsed_credits() -> None:
    found = credits_at(
        [
            Postings(frozenset({"held", "captured"}), True, 3),
            Postings(frozenset({"charged"}), False, 2),
            Postings(frozenset({"held"}), False, 1),
            Postings(frozenset({"charged", "returned"}), True, 4),
        ],
        granted=20,
        expired=5,
    )
    assert (found.open, found.lapsed, found.held, found.returned) == (3, 2, 1, 4)
    assert found.available == 20 - 5 - 3 - 2 - 1


# The thread states' topic


def record(offset: int, version: int, outcome_version: int = 0) -> Incoming[ThreadStateV1]:
    data = thread_state_of(version, outcome_version)
    return Incoming(Position(THREAD_STATES, 0, offset), START, event(data), b"", b"", ())


def thread_state_of(version: int, outcome_version: int = 0) -> ThreadStateV1:
    return state(told(Conversation().status())).model_copy(
        update={"thread_version": version, "outcome_version": outcome_version}
    )


def test_a_state_is_not_behind_while_a_newer_one_is_on_its_way() -> None:
    flight = StatesInFlight()
    flight.read([record(0, 1)])
    flight.sent(thread_state_of(2))
    assert not flight.read([record(1, 1)])
    assert not flight.read([record(2, 2)])


def test_a_state_written_behind_a_newer_one_is_behind() -> None:
    flight = StatesInFlight()
    flight.read([record(0, 1)])
    flight.sent(thread_state_of(2, 1))
    assert set(flight.read([record(1, 2, 1), record(2, 2, 0)])) == {"thread-1"}


def test_whatever_is_in_doubt_is_behind() -> None:
    flight = StatesInFlight()
    flight.read([record(0, 1)])
    flight.sent(thread_state_of(2))
    assert set(flight.read([record(7, 1)])) == {"thread-1"}
    full = StatesInFlight(threads_max=1)
    full.read([record(0, 1)])
    full.sent(thread_state_of(2))
    full.sent(thread_state_of(2).model_copy(update={"thread_id": "thread-2"}))
    assert set(full.read([record(1, 1)])) == {"thread-1"}


# HTTP


class NoResources:
    settings: Any = None
    pool: Any = None


@pytest.mark.parametrize("given", ["2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00%2B01:00"])
def test_an_instant_in_a_query_may_have_a_plain_plus_sign(given: str) -> None:
    request = Request({"type": "http", "query_string": f"as_of={given}".encode()})
    assert parameters.as_of(request) == datetime(2026, 1, 31, 11, tzinfo=UTC)


@pytest.mark.parametrize(("size", "read"), [(10, 10), (11, 11), (10 + DISCARDED_BYTES_MAX, 10 + DISCARDED_BYTES_MAX)])
async def test_a_body_too_large_is_read_to_its_end_and_refused(size: int, read: int) -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent = min(size, sent + 1_000_000)
        return {"type": "http.request", "body": b"x" * min(size, 1_000_000), "more_body": sent < size}

    body = await bounded_body(Request({"type": "http"}, receive), 10)
    assert sent == read
    assert body == (b"x" * 10 if size == 10 else None)


def test_every_route_is_described_and_every_description_is_served() -> None:
    served = {
        (route.path, method.lower())
        for route in routes(NoResources(), validator=object())  # type: ignore[arg-type]
        if isinstance(route, EncodedRoute)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method) for path, methods in openapi.DOCUMENT["paths"].items() for method in methods}
    assert served == described


def test_every_schema_is_sound_and_every_reference_leads_somewhere() -> None:
    for schema in openapi.DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = {f"#/components/schemas/{name}" for name in openapi.DOCUMENT["components"]["schemas"]}
    assert references(openapi.DOCUMENT) <= names


def references(part: object) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if "$ref" in part else set()
        return own.union(*(references(value) for value in part.values()))
    if isinstance(part, list):
        return set().union(*(references(value) for value in part))
    return set()


def test_last_inmail_is_the_newest_that_counts() -> None:
    talk = Conversation()
    thread = told(talk.status("scheduled", after(days=1)), talk.status("sent", after(days=2)))
    learn_fact(thread, talk.status("scheduled", after(days=20), inmail_id="i2").data)
    assert last(thread) == after(days=2)
    learn_fact(thread, talk.status("sent", after(days=30), inmail_id="i2").data)
    assert last(thread) == after(days=30)
    learn_fact(thread, talk.status("undelivered", after(days=30, hours=1), inmail_id="i2").data)
    assert last(thread) == after(days=2)


def last(thread: Thread) -> datetime:
    return state(thread).last_inmail_at

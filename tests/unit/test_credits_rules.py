"""The rules of credits, each shown on the facts that it is about."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, permutations

import pytest

from services.credits.book import Book, seat_key
from services.credits.domain import MOVES, Contract, Denial, Entry
from shared.events import (
    Candidate,
    ContractEndedV1,
    ContractStartedV1,
    CreditsRefreshedV1,
    Event,
    EventData,
    InmailStatusChangedV1,
    ReplyRecordedV1,
    SeatAssignedV1,
    SeatPreferencesSetV1,
)
from shared.stream.records import Position, in_order_of_arrival
from shared.topics import ACCOUNTING_FACTS, CONTRACT_EVENTS

DAY_0 = datetime(2026, 1, 5, 9, tzinfo=UTC)
DAYS_90 = timedelta(hours=90 * 24)
MILLISECOND = timedelta(milliseconds=1)

numbers = count(1)


@dataclass(frozen=True)
class Record:
    event: Event[EventData]
    position: Position
    timestamp: datetime


def record(data: EventData, *, timestamp: datetime = DAY_0, offset: int | None = None, partition: int = 0) -> Record:
    number = next(numbers)
    topic = ACCOUNTING_FACTS if isinstance(data, InmailStatusChangedV1 | ReplyRecordedV1) else CONTRACT_EVENTS
    at = getattr(data, data.time_field or "")
    event = Event(f"e{number}", "/test", data.type, str(vars(data)["contract_id"]), at, data)
    return Record(event, Position(topic, partition, number if offset is None else offset), timestamp)


def started(allotment: int = 50, *, at: datetime = DAY_0, cap: int = 4, contract: str = "c") -> ContractStartedV1:
    return ContractStartedV1(
        contract_id=contract, name="Contract", monthly_allotment=allotment, cap_multiple=cap, started_at=at
    )


def refreshed(period: str, *, at: datetime = DAY_0 + timedelta(days=30), contract: str = "c") -> CreditsRefreshedV1:
    return CreditsRefreshedV1(contract_id=contract, period=period, refreshed_at=at)


def ended(at: datetime = DAY_0 + timedelta(days=60), *, contract: str = "c") -> ContractEndedV1:
    return ContractEndedV1(contract_id=contract, ended_at=at)


def seat(seat_id: str = "s", *, at: datetime = DAY_0, limit: int | None = None, contract: str = "c") -> SeatAssignedV1:
    return SeatAssignedV1(seat_id=seat_id, contract_id=contract, name="Seat", monthly_limit=limit, assigned_at=at)


def status(
    inmail: str,
    name: str,
    *,
    at: datetime = DAY_0,
    cost: int = 1,
    version: int = 1,
    seat_id: str = "s",
    contract: str = "c",
) -> InmailStatusChangedV1:
    return InmailStatusChangedV1.model_validate(
        {
            "inmail_id": inmail,
            "thread_id": f"t-{inmail}",
            "thread_version": version,
            "contract_id": contract,
            "seat_id": seat_id,
            "candidate": Candidate(id="p"),
            "kind": "initial",
            "automated": False,
            "credit_cost": cost,
            "status": name,
            "at": at,
        }
    )


def reply(
    inmail: str,
    *,
    after: timedelta = timedelta(days=1),
    content: str = "message",
    version: int = 9,
    contract: str = "c",
) -> ReplyRecordedV1:
    return ReplyRecordedV1.model_validate(
        {
            "reply_id": f"r{next(numbers)}",
            "thread_id": f"t-{inmail}",
            "thread_version": version,
            "inmail_id": inmail,
            "contract_id": contract,
            "seat_id": "s",
            "candidate": Candidate(id="p"),
            "content": content,
            "first_response": True,
            "inmail_sent_at": DAY_0,
            "sent_at": DAY_0 + after,
        }
    )


def decided(*data: EventData) -> Book[Record]:
    book: Book[Record] = Book()
    book.take([record(d) for d in data])
    return book


def opened(*data: EventData, allotment: int = 50) -> Book[Record]:
    """A contract with a seat and one grant, and then `data`."""
    return decided(started(allotment), seat(), *data)


def kinds(book: Book[Record], inmail: str | None = None) -> list[str]:
    return [entry.kind for entry in book.entries if inmail is None or entry.inmail_id == inmail]


def balances(book: Book[Record]) -> tuple[int, int, int, int, int]:
    contract = book.contracts["c"]
    return contract.granted, contract.available, contract.held, contract.taken, contract.expired


def denials(book: Book[Record]) -> list[tuple[str, str]]:
    return [(effect.inmail_id, effect.reason) for _, effect in book.effects if isinstance(effect, Denial)]


# R13 to R15: credited back


@pytest.mark.parametrize(
    ("after", "back"),
    [
        (timedelta(0), True),
        (DAYS_90 - MILLISECOND, True),
        (DAYS_90, True),
        (DAYS_90 + MILLISECOND, False),
        (-timedelta(minutes=5), True),
    ],
)
def test_r13_credited_back_up_to_the_last_millisecond_of_90_days(after: timedelta, *, back: bool) -> None:
    book = opened(status("i", "scheduled"), status("i", "sent"), reply("i", after=after))
    assert kinds(book, "i") == ["held", "captured", *(["returned"] if back else [])]
    assert balances(book) == ((50, 50, 0, 0, 0) if back else (50, 49, 0, 1, 0))


def test_r13_credited_back_once_for_ever() -> None:
    book = opened(status("i", "sent"), reply("i"), reply("i"), status("i", "undelivered"), status("i", "withdrawn"))
    assert kinds(book, "i") == ["charged", "returned"]


def test_r13_a_first_reply_too_late_leaves_room_for_an_earlier_one() -> None:
    book = opened(status("i", "sent"), reply("i", after=DAYS_90 * 2), reply("i", after=DAYS_90))
    assert kinds(book, "i") == ["charged", "returned"]


def test_r13_a_return_goes_above_the_cap() -> None:
    book = decided(started(10, cap=1), seat(), status("i", "sent"), refreshed("2026-02"), reply("i"))
    assert [(e.kind, e.amount) for e in book.entries] == [
        ("granted", 10),
        ("charged", 1),
        ("granted", 10),
        ("expired", 9),
        ("returned", 1),
    ]
    assert book.contracts["c"].available == 11


def test_r09_an_automated_reply_brings_nothing_back() -> None:
    assert kinds(opened(status("i", "sent"), reply("i", content="automated")), "i") == ["charged"]


def test_r14_an_early_reply_that_arrives_late_is_credited() -> None:
    late = refreshed("2026-06", at=DAY_0 + timedelta(days=150))
    assert kinds(opened(status("i", "sent"), late, reply("i", after=DAYS_90)), "i") == ["charged", "returned"]


def test_r15_a_reply_credits_the_inmail_that_it_answers_and_no_other() -> None:
    book = opened(status("initial", "sent"), status("follow_up", "sent"), reply("follow_up"))
    assert kinds(book, "initial") == ["charged"]
    assert kinds(book, "follow_up") == ["charged", "returned"]


# R16 to R19: positions


def test_r16_a_cancelled_follow_up_releases_its_hold() -> None:
    book = opened(status("i", "scheduled"), status("i", "cancelled"))
    assert kinds(book, "i") == ["held", "released"]
    assert balances(book) == (50, 50, 0, 0, 0)


@pytest.mark.parametrize("stop", ["cancelled", "withdrawn"])
def test_r16_sent_after_its_cancellation_is_charged_and_can_be_answered(stop: str) -> None:
    book = opened(status("i", "scheduled"), status("i", stop), status("i", "sent"), reply("i"))
    assert kinds(book, "i") == ["held", "released", "charged", "returned"]


def test_r16_scheduled_after_its_cancellation_holds_nothing() -> None:
    assert kinds(opened(status("i", "cancelled"), status("i", "scheduled")), "i") == []


@pytest.mark.parametrize(
    ("facts", "posted"),
    [
        (["scheduled", "undelivered"], ["held", "released"]),
        (["scheduled", "undelivered", "sent"], ["held", "released"]),
        (["undelivered", "sent"], []),
        (["sent", "undelivered"], ["charged", "refunded"]),
        (["scheduled", "sent", "undelivered"], ["held", "captured", "refunded"]),
        (["scheduled", "sent", "withdrawn", "undelivered"], ["held", "captured", "refunded"]),
        (["scheduled", "withdrawn", "sent", "undelivered"], ["held", "released", "charged", "refunded"]),
    ],
)
def test_r17_undelivered_costs_nothing(facts: list[str], posted: list[str]) -> None:
    book = opened(*(status("i", name) for name in facts))
    assert kinds(book, "i") == posted
    assert balances(book) == (50, 50, 0, 0, 0)


def test_r17_undelivered_after_the_answer_posts_nothing_more() -> None:
    assert kinds(opened(status("i", "sent"), reply("i"), status("i", "undelivered")), "i") == ["charged", "returned"]
    assert kinds(opened(status("i", "sent"), status("i", "undelivered"), reply("i")), "i") == ["charged", "refunded"]


def test_r18_withdrawn_after_sending_is_not_refunded_but_its_reply_is_credited() -> None:
    book = opened(status("i", "sent"), status("i", "withdrawn"))
    assert kinds(book, "i") == ["charged"]
    assert kinds(opened(status("i", "sent"), status("i", "withdrawn"), reply("i")), "i") == ["charged", "returned"]


def test_r18_withdrawn_while_scheduled_releases_the_hold() -> None:
    assert kinds(opened(status("i", "scheduled"), status("i", "withdrawn")), "i") == ["held", "released"]


def test_r18_scheduled_that_arrives_after_sent_posts_nothing() -> None:
    assert kinds(opened(status("i", "sent"), status("i", "scheduled")), "i") == ["charged"]


@pytest.mark.parametrize("order", list(permutations(["scheduled", "sent", "withdrawn", "undelivered"])))
def test_r19_an_inmail_without_cost_posts_nothing(order: tuple[str, ...]) -> None:
    book = opened(*(status("i", name, cost=0) for name in order), reply("i"))
    assert kinds(book, "i") == []
    assert denials(book) == []


def test_r19_an_inmail_without_cost_needs_no_credit_even_below_zero() -> None:
    book = opened(status("i", "sent"), status("j", "scheduled", cost=0), allotment=0)
    assert book.contracts["c"].available == -1
    assert denials(book) == []


@pytest.mark.parametrize("order", list(permutations(("scheduled", "sent", "reply"))))
@pytest.mark.parametrize("costs", [(1, 0), (0, 1)])
def test_r19_what_an_inmail_costs_when_sent_counts_whatever_was_scheduled(
    costs: tuple[int, int], order: tuple[str, ...]
) -> None:
    facts = {
        "scheduled": status("i", "scheduled", cost=costs[0]),
        "sent": status("i", "sent", cost=costs[1]),
        "reply": reply("i"),
    }
    book = opened(*(facts[name] for name in order if name != "reply"))
    assert balances(book) == ((50, 49, 0, 1, 0) if costs[1] else (50, 50, 0, 0, 0))
    assert balances(opened(*(facts[name] for name in order))) == (50, 50, 0, 0, 0)


def test_r24_what_was_held_for_an_inmail_sent_for_nothing_is_released() -> None:
    assert kinds(opened(status("i", "scheduled"), status("i", "sent", cost=0), reply("i")), "i") == ["held", "released"]


def test_every_order_of_facts_ends_with_the_same_balances_and_posts_each_kind_once() -> None:
    facts = [
        *(status("i", name) for name in ("scheduled", "sent", "withdrawn", "cancelled", "undelivered")),
        reply("i", after=DAYS_90),
    ]
    for chosen in range(1 << len(facts)):
        subset = [fact for bit, fact in enumerate(facts) if chosen >> bit & 1]
        ends = set()
        for order in permutations(subset):
            book = opened(*order)
            posted = kinds(book, "i")
            assert len(posted) == len(set(posted))
            assert not {"captured", "charged"} <= set(posted)
            assert not {"returned", "refunded"} <= set(posted)
            ends.add(balances(book))
        assert len(ends) == 1


def test_each_kind_of_line_moves_its_amount_from_one_account_to_another() -> None:
    for granted, *others in MOVES.values():
        assert granted == sum(others)


# R21: what waits


def test_r21_an_inmail_of_an_unknown_contract_waits_with_all_its_facts() -> None:
    book = decided(seat(), status("i", "scheduled"), status("i", "sent"), reply("i"))
    assert book.effects == []
    assert [len(kept) for kept in book.waiting.values()] == [3]
    book.take([record(started(1))])
    assert kinds(book) == ["granted", "held", "captured", "returned"]
    assert book.waiting == {}


@pytest.mark.parametrize("names", [("scheduled", "sent"), ("sent", "scheduled")])
def test_r24_lines_from_the_sending_on_name_the_seat_that_sent(names: tuple[str, str]) -> None:
    seats = {"scheduled": "s", "sent": "other"}
    known = status("i", names[0], seat_id=seats[names[0]]), status("i", names[1], seat_id=seats[names[1]])
    book = decided(started(), seat(), seat("other"), *known, reply("i"))
    told = {entry.kind: entry.seat_id for entry in book.entries if entry.inmail_id}
    assert told.pop("held", "s") == "s"
    assert set(told.values()) == {"other"}
    assert "returned" in told


def test_r21_an_inmail_of_an_unknown_seat_waits_and_is_not_denied() -> None:
    book = decided(started(0), status("i", "scheduled"))
    assert denials(book) == []
    assert list(book.waiting) == [seat_key("c", "s")]
    book.take([record(seat())])
    assert denials(book) == [("i", "INSUFFICIENT_CREDITS")]
    assert book.waiting == {}


def test_r21_what_waited_for_the_contract_waits_on_for_its_seat() -> None:
    book = decided(status("i", "scheduled"), started(), status("i", "sent"))
    assert list(book.waiting) == [seat_key("c", "s")]
    book.take([record(seat("other"))])
    assert kinds(book) == ["granted"]
    book.take([record(seat())])
    assert kinds(book) == ["granted", "held", "captured"]


def test_r21_what_waited_is_decided_before_the_next_record_in_order_of_arrival() -> None:
    waiting = [status("i", "scheduled"), status("j", "scheduled")]
    book = decided(*waiting, seat(), started(1), status("k", "scheduled"))
    assert kinds(book, "i") == ["held"]
    assert denials(book) == [("j", "INSUFFICIENT_CREDITS"), ("k", "INSUFFICIENT_CREDITS")]


def test_r21_refresh_and_end_wait_for_the_start() -> None:
    book = decided(refreshed("2026-02"), ended(), started(10))
    assert [(e.kind, e.amount) for e in book.entries] == [("granted", 10), ("granted", 10), ("expired", 20)]


def test_r21_a_seat_of_another_contract_is_not_known() -> None:
    book = decided(started(), seat(contract="other"), status("i", "scheduled"))
    assert list(book.waiting) == [seat_key("c", "s")]


def test_r21_keys_of_seats_cannot_be_confused() -> None:
    assert seat_key("a:b", "c") != seat_key("a", "b:c")


def test_r21_the_newest_assignment_of_a_seat_stands() -> None:
    book = opened(seat(at=DAY_0 + MILLISECOND, limit=5), seat(at=DAY_0, limit=9))
    assert book.seats["c", "s"].monthly_limit == 5


def test_preferences_are_not_the_ledgers_business() -> None:
    preferences = SeatPreferencesSetV1(seat_id="s", contract_id="c", channels=("push",), digest="off", set_at=DAY_0)
    book = opened(preferences)
    assert kinds(book) == ["granted"]


def test_a_fact_that_names_another_contract_than_its_inmail_fits_nowhere() -> None:
    book = opened(started(contract="d"), seat(contract="d"), status("i", "scheduled"))
    book.take([record(status("i", "sent", contract="d"))])
    assert kinds(book, "i") == ["held"]
    assert len(book.misfits) == 1


def test_a_repeat_is_told_from_a_further_reply() -> None:
    again = reply("i")
    book = opened(status("i", "sent"), again, again, status("i", "sent"), reply("i", version=10))
    assert kinds(book, "i") == ["charged", "returned"]
    assert [r.event.data.type for r in book.repeats] == ["reply.recorded.v1", "inmail.status_changed.v1"]


@pytest.mark.parametrize("name", ["scheduled", "sent", "withdrawn", "cancelled", "undelivered"])
def test_a_status_told_again_is_a_repeat(name: str) -> None:
    assert len(opened(status("i", name), status("i", name)).repeats) == 1


def test_arrival_merges_the_topics_by_time_and_keeps_each_partitions_order() -> None:
    def at(seconds: int) -> datetime:
        return DAY_0 + timedelta(seconds=seconds)

    facts = [record(status("i", "sent"), timestamp=at(s), offset=o) for o, s in enumerate([5, 1, 6])]
    events = [record(seat(), timestamp=at(s), offset=o) for o, s in enumerate([2, 5, 6])]
    merged = in_order_of_arrival([*facts, *events])
    assert [r for r in merged if r in facts] == facts
    assert [r for r in merged if r in events] == events
    assert merged.index(events[0]) < merged.index(facts[0]) < merged.index(events[1])


# R23: grants, the cap, the end


def test_r23_the_start_grants_its_month_in_utc() -> None:
    book = decided(started(at=datetime(2026, 1, 31, 23, 59, 59, 999000, tzinfo=UTC)))
    assert [(e.kind, e.amount) for e in book.entries] == [("granted", 50)]
    assert book.granted == {("c", "2026-01")}


def test_r23_a_month_is_granted_once() -> None:
    book = decided(started(), refreshed("2026-01"), refreshed("2026-02"), refreshed("2026-02"))
    assert kinds(book) == ["granted", "granted"]
    assert book.granted == {("c", "2026-01"), ("c", "2026-02")}
    assert book.contracts["c"].available == 100


def test_r23_what_exceeds_the_cap_expires_after_the_grant_and_holds_do_not_count() -> None:
    book = decided(started(10, cap=2), seat(), *(status(f"i{n}", "scheduled") for n in range(4)))
    book.take([record(refreshed("2026-02")), record(refreshed("2026-03"))])
    assert [(e.kind, e.amount) for e in book.entries if e.inmail_id is None] == [
        ("granted", 10),
        ("granted", 10),
        ("granted", 10),
        ("expired", 6),
    ]
    assert balances(book) == (30, 20, 4, 0, 6)


def test_r23_a_repeated_refresh_lets_nothing_expire() -> None:
    book = decided(started(10, cap=1), seat(), status("i", "sent"), refreshed("2026-02"), reply("i"))
    before = balances(book)
    book.take([record(refreshed("2026-02"))])
    assert balances(book) == before


def test_r23_a_grant_covers_what_was_charged_below_zero() -> None:
    book = opened(*(status(f"i{n}", "sent") for n in range(3)), refreshed("2026-02"), allotment=1)
    assert balances(book) == (2, -1, 0, 3, 0)


def test_r23_the_end_lets_the_available_expire_and_keeps_the_holds() -> None:
    book = opened(status("i", "scheduled"), ended())
    assert balances(book) == (50, 0, 1, 0, 49)


@pytest.mark.parametrize(
    ("before", "after", "posted"),
    [
        (["scheduled"], "cancelled", "released"),
        (["sent"], "undelivered", "refunded"),
        (["sent"], "answered", "returned"),
    ],
)
def test_r23_what_becomes_available_after_the_end_expires_with_it(before: list[str], after: str, posted: str) -> None:
    fact = reply("i") if after == "answered" else status("i", after)
    book = opened(*(status("i", name) for name in before), ended(), fact)
    assert [(e.kind, e.amount, e.available) for e in book.entries[-2:]] == [(posted, 1, 1), ("expired", 1, 0)]
    assert book.effects[-1][0] is book.effects[-2][0]


def test_r23_a_return_after_the_end_first_fills_what_is_below_zero() -> None:
    book = opened(status("i", "sent"), status("j", "sent"), ended(), reply("i"), allotment=1)
    assert balances(book) == (1, 0, 0, 1, 0)


def test_r23_after_the_end_schedules_are_denied_whatever_they_cost() -> None:
    book = opened(ended(), status("i", "scheduled"), status("j", "scheduled", cost=0))
    assert denials(book) == [("i", "CONTRACT_ENDED"), ("j", "CONTRACT_ENDED")]


def test_r23_a_schedule_from_before_the_end_that_arrives_after_it_is_denied() -> None:
    assert denials(opened(ended(), status("i", "scheduled", at=DAY_0))) == [("i", "CONTRACT_ENDED")]


def test_r23_a_hold_is_captured_after_the_end() -> None:
    book = opened(status("i", "scheduled"), ended(), status("i", "sent"))
    assert kinds(book, "i") == ["held", "captured"]


def test_r23_an_ended_contract_is_not_refreshed() -> None:
    book = decided(started(10), ended(), refreshed("2026-04", at=DAY_0 + timedelta(days=90)))
    assert balances(book) == (10, 0, 0, 0, 10)


def test_r23_a_refresh_from_before_the_end_that_comes_late_expires_at_once() -> None:
    book = decided(started(10), ended(), refreshed("2026-02"))
    assert [(e.kind, e.amount) for e in book.entries] == [("granted", 10), ("expired", 10)] * 2


def test_r23_of_two_ends_the_newest_counts() -> None:
    book = decided(started(10), ended(DAY_0 + timedelta(days=90)), ended(), started(5, at=DAY_0 + timedelta(days=70)))
    assert book.contracts["c"].ended


def test_r23_a_second_end_changes_nothing_more() -> None:
    book = decided(started(10), ended(), ended(DAY_0 + timedelta(days=90)))
    assert kinds(book) == ["granted", "expired"]


def test_r23_a_further_start_brings_new_terms_and_grants_its_own_month() -> None:
    upgrade = started(20, at=DAY_0 + timedelta(days=31))
    book = decided(started(10), upgrade, refreshed("2026-02"), refreshed("2026-03"))
    assert [(e.kind, e.amount) for e in book.entries] == [("granted", 10), ("granted", 20), ("granted", 20)]


def test_r23_an_older_start_that_comes_late_leaves_the_terms_and_grants_its_month() -> None:
    book = decided(started(20, at=DAY_0 + timedelta(days=31)), started(10), refreshed("2026-03"))
    assert [(e.kind, e.amount) for e in book.entries] == [("granted", 20), ("granted", 10), ("granted", 20)]


def test_r23_a_start_after_the_end_reopens_the_contract() -> None:
    book = opened(ended(), started(5, at=DAY_0 + timedelta(days=61)), status("i", "scheduled"))
    assert kinds(book, "i") == ["held"]
    assert not book.contracts["c"].ended


def test_r23_an_end_from_before_the_start_ends_nothing() -> None:
    book = decided(started(5), ended(DAY_0 - timedelta(days=1)))
    assert balances(book) == (5, 5, 0, 0, 0)


def test_r23_a_late_start_from_before_the_end_grants_and_expires() -> None:
    book = decided(started(5, at=DAY_0 + timedelta(days=31)), ended(), started(7))
    assert balances(book) == (12, 0, 0, 0, 12)


# R24: schedules denied, InMails charged all the same


def test_r24_a_schedule_without_enough_credit_is_denied_and_holds_nothing() -> None:
    book = opened(status("i", "scheduled"), status("j", "scheduled"), allotment=1)
    assert denials(book) == [("j", "INSUFFICIENT_CREDITS")]
    assert balances(book) == (1, 0, 1, 0, 0)


def test_r24_a_denial_is_remembered() -> None:
    book = opened(status("i", "scheduled"), refreshed("2026-02"), status("i", "scheduled"), allotment=0)
    assert denials(book) == [("i", "INSUFFICIENT_CREDITS")]
    assert kinds(book, "i") == []


@pytest.mark.parametrize("stop", ["cancelled", "withdrawn", "undelivered"])
def test_r24_a_denied_inmail_releases_nothing(stop: str) -> None:
    assert kinds(opened(status("i", "scheduled"), status("i", stop), allotment=0), "i") == []


def test_r24_sent_without_a_hold_is_charged_below_zero() -> None:
    book = opened(status("i", "scheduled"), status("i", "sent"), status("j", "sent"), allotment=0)
    assert [kinds(book, i) for i in "ij"] == [["charged"], ["charged"]]
    assert balances(book) == (0, -2, 0, 2, 0)


def test_r24_a_schedule_that_arrives_after_its_end_is_not_denied() -> None:
    book = opened(
        status("i", "sent"), status("i", "scheduled"), status("j", "withdrawn"), status("j", "scheduled"), allotment=0
    )
    assert denials(book) == []


def test_entries_are_numbered_without_gaps_and_carry_the_balances_after_them() -> None:
    book = opened(status("i", "scheduled"), status("i", "sent"), reply("i"))
    assert [(e.number, e.available, e.held) for e in book.entries] == [(1, 50, 0), (2, 49, 1), (3, 49, 0), (4, 50, 0)]


def test_r23_a_contract_without_allotment_posts_no_grant_and_its_months_pass_once() -> None:
    lean = started(0, at=DAY_0 + MILLISECOND)
    book = opened(status("i", "sent"), lean, refreshed("2026-02"), reply("i"), refreshed("2026-02"), allotment=2)
    assert kinds(book) == ["granted", "charged", "expired", "returned"]
    assert book.contracts["c"].available == 1


def test_r21_redelivery_of_everything_changes_nothing() -> None:
    data: Iterable[EventData] = [started(3), seat(), status("i", "scheduled"), status("i", "sent"), reply("i"), ended()]
    records = [record(d) for d in data]
    book: Book[Record] = Book()
    book.take(records)
    before: tuple[Contract, list[Entry]] = (book.contracts["c"], book.entries)
    book.take(records)
    assert (book.contracts["c"], book.entries) == before

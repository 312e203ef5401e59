"""What holds for the inbox whatever comes, in whatever order."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple, get_args

from hypothesis import given
from hypothesis import strategies as st

from services.credits import domain as credits_domain
from services.inbox.domain import Thread, is_reached, learn_fact, learn_outcome, thread_state
from services.inbox.ledger import Credits, Postings, credits_at
from services.inbox.rates import Month, response_rates
from shared.events import Candidate, Event, InmailStatus, InmailStatusChangedV1, LedgerKind, ReplyRecordedV1
from shared.rules import CREDIT_WINDOW
from shared.testing.builders import START, after
from shared.testing.conversations import Conversation

AnyEvent = Event[Any]

DAYS = st.integers(0, 200)
STATUSES: st.SearchStrategy[InmailStatus] = st.sampled_from(get_args(InmailStatus))


class Told(NamedTuple):
    """A status that upstream tells of an InMail, a human or an automated reply."""

    inmail: int
    status: InmailStatus | None
    days: int
    name: str | None
    automated: bool


@st.composite
def stories(draw: st.DrawFn) -> list[Told]:
    statuses = draw(
        st.lists(st.tuples(st.integers(0, 2), STATUSES), min_size=1, max_size=9, unique_by=lambda told: told)
    )
    names = st.sampled_from([None, " ", "Ada", "Ada Lovelace"])
    told = [Told(inmail, status, draw(DAYS), draw(names), automated=False) for inmail, status in statuses]
    replies = draw(st.lists(st.tuples(DAYS, st.booleans()), max_size=3))
    return [*told, *(Told(0, None, days, None, automated) for days, automated in replies)]


def fold(story: list[Told]) -> dict[str, Any]:
    """What a thread shows after a story told in this order; without what numbers the order itself."""
    talk = Conversation()
    thread = Thread(talk.thread_id)
    for number, told in enumerate(story):
        if told.status is None:
            content: Any = "automated" if told.automated else "message"
            fact = talk.reply(after(days=told.days), reply_id=f"r{number}", content=content)
        else:
            talk.contract_id = f"contract-{told.inmail}"
            fact = talk.status(
                told.status,
                after(days=told.days),
                inmail_id=f"i{told.inmail}",
                candidate=Candidate(id=f"candidate-{told.inmail}", name=told.name),
            )
        learn_fact(thread, fact.data)
    state = thread_state(thread)
    return {} if state is None else state.model_dump(exclude={"thread_version"})


@given(st.data())
def test_r21_a_thread_is_the_same_in_whatever_order_its_facts_come(data: st.DataObject) -> None:
    story = data.draw(stories())
    assert fold(story) == fold(data.draw(st.permutations(story)))


@given(st.data())
def test_r21_a_thread_is_the_same_however_its_outcomes_fall_between_its_facts(data: st.DataObject) -> None:
    talk = Conversation()
    facts, outcomes = [talk.status()], []
    for number in range(data.draw(st.integers(1, 4))):
        facts.append(talk.reply(after(days=number + 1), reply_id=f"r{number}"))
        facts += [talk.audience(f"seat-{number}")] * data.draw(st.integers(0, 1))
        if data.draw(st.booleans()) or talk.outcome is None:
            outcomes.append(talk.decided(data.draw(st.sampled_from(["accepted", "declined"])), reply_id=f"r{number}"))
        else:
            outcomes.append(talk.unchanged(reply_id=f"r{number}"))
    expected = interleave(facts, outcomes, [True] * len(facts))
    order = data.draw(st.lists(st.booleans(), max_size=len(facts) + len(outcomes)))
    assert interleave(facts, outcomes, order) == expected


def interleave(facts: list[AnyEvent], outcomes: list[AnyEvent], order: list[bool]) -> Any:
    """The state after the two topics were read in this order (True: a fact), outcomes held until they are reached."""
    thread, waiting = Thread("thread-1"), []
    unread = {True: list(facts), False: list(outcomes)}
    for is_fact in [*order, *[True] * len(facts), *[False] * len(outcomes)]:
        if not unread[is_fact]:
            continue
        read = unread[is_fact].pop(0)
        if is_fact:
            learn_fact(thread, read.data)
        else:
            waiting.append(read)
        for outcome in [held for held in waiting if is_reached(thread, held.data)]:
            learn_outcome(thread, outcome.data)
            waiting.remove(outcome)
    assert not waiting
    return thread_state(thread)


@given(st.data())
def test_r11_repeats_change_nothing(data: st.DataObject) -> None:
    talk = Conversation()
    facts = [talk.status(), talk.audience(), talk.reply(), talk.locked(), talk.draft("interested")]
    once, twice = Thread("thread-1"), Thread("thread-1")
    for fact in facts:
        learn_fact(once, fact.data)
    for number, fact in enumerate(facts):
        learn_fact(twice, fact.data)
        for again in data.draw(st.lists(st.sampled_from(facts[: number + 1]), max_size=3)):
            assert not learn_fact(twice, again.data)
    assert once == twice


class Line(NamedTuple):
    """A line of a ledger that the ledger's own rules wrote."""

    kind: LedgerKind
    amount: int
    inmail_id: str | None
    effective_at: datetime


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[list[Line], credits_domain.Contract]:
    """A ledger of some InMails whose facts come in any order, with the balances it ends at."""
    contract = credits_domain.Contract("contract-1", 10, 4, START, granted=5, available=5)
    lines = [Line("granted", 5, None, START)]
    inmails: dict[str, credits_domain.InMail | None] = {}
    for number in range(draw(st.integers(1, 12))):
        fact, at = draw(facts(number))
        decision = credits_domain.decide_fact(contract, inmails.get(fact.inmail_id), fact)
        contract, inmails[fact.inmail_id] = decision.contract, decision.inmail
        lines += [Line(entry.kind, entry.amount, entry.inmail_id, at) for entry in decision.entries]
    return lines, contract


@st.composite
def facts(draw: st.DrawFn, number: int) -> tuple[Any, datetime]:
    talk = Conversation(version=number)
    inmail_id, at = f"i{draw(st.integers(0, 3))}", after(days=draw(DAYS))
    sent_at = after(days=int(inmail_id[1]) * 20)  # an InMail is sent once
    if draw(st.booleans()):
        status = draw(STATUSES)
        changed = talk.status(status, sent_at if status == "sent" else at, inmail_id=inmail_id)
        assert isinstance(changed.data, InmailStatusChangedV1)
        return changed.data, changed.time
    replied = talk.reply(max(at, sent_at), reply_id=f"r{number}", inmail_id=inmail_id)
    assert isinstance(replied.data, ReplyRecordedV1)
    return replied.data.model_copy(update={"inmail_sent_at": sent_at}), replied.time


def at_instant(lines: list[Line], as_of: datetime) -> Credits:
    """What the store does in SQL: the postings in effect, by InMail."""
    known = [line for line in lines if line.effective_at <= as_of]
    of_inmails: dict[str, list[Line]] = {}
    for line in known:
        if line.inmail_id is not None:
            of_inmails.setdefault(line.inmail_id, []).append(line)
    groups = []
    for of_inmail in of_inmails.values():
        taken = [line.effective_at for line in of_inmail if line.kind in ("captured", "charged")]
        in_window = bool(taken) and min(taken) >= as_of - CREDIT_WINDOW
        groups.append(Postings(frozenset(line.kind for line in of_inmail), in_window, of_inmail[0].amount))
    sums = {kind: sum(line.amount for line in known if line.kind == kind) for kind in ("granted", "expired")}
    return credits_at(groups, granted=sums["granted"], expired=sums["expired"])


@given(ledgers(), st.lists(DAYS, max_size=5))
def test_r13_granted_is_the_sum_of_the_places_at_every_instant(
    ledger: tuple[list[Line], credits_domain.Contract], days: list[int]
) -> None:
    lines, _ = ledger
    for as_of in [*(after(days=day) for day in days), *(line.effective_at for line in lines)]:
        found = at_instant(lines, as_of)
        assert found.granted == found.available + found.held + found.open + found.lapsed + found.expired
        assert min(found.held, found.open, found.lapsed, found.returned) >= 0


@given(ledgers())
def test_r13_in_the_end_credits_lie_where_the_ledger_says(
    ledger: tuple[list[Line], credits_domain.Contract],
) -> None:
    lines, contract = ledger
    found = at_instant(lines, after(days=1000))
    assert (found.available, found.held, found.expired) == (contract.available, contract.held, contract.expired)
    assert (found.open, found.lapsed) == (0, contract.taken)


@given(ledgers())
def test_r13_in_order_of_effect_the_balances_are_the_ledger_s_at_every_line(
    ledger: tuple[list[Line], credits_domain.Contract],
) -> None:
    lines, _ = ledger
    if any(one.effective_at > other.effective_at for one, other in pairwise(lines)):
        return
    for number, line in enumerate(lines):
        later = lines[number + 1 :]
        if later and later[0].effective_at == line.effective_at:
            continue
        moves = [credits_domain.MOVES[known.kind] for known in lines[: number + 1]]
        found = at_instant(lines, line.effective_at)
        assert found.available == sum(move[1] * known.amount for move, known in zip(moves, lines, strict=False))
        assert found.held == sum(move[2] * known.amount for move, known in zip(moves, lines, strict=False))


@given(st.lists(st.integers(0, 20).flatmap(lambda sent: st.tuples(st.just(sent), st.integers(0, sent)))))
def test_r31_rates_stay_between_nothing_and_all(months: list[tuple[int, int]]) -> None:
    rates = response_rates([Month(sent, answered, answered // 2) for sent, answered in months])
    for rate in (rates.pooled, rates.report_30d, rates.mean_of_intervals):
        assert rate.rate is None or 0 <= rate.rate <= 1
    assert rates.report_30d.numerator <= rates.pooled.numerator
    assert rates.mean_of_intervals.denominator == sum(sent > 0 for sent, _ in months)


def test_the_window_is_ninety_days() -> None:
    assert timedelta(days=90) == CREDIT_WINDOW

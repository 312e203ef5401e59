"""The ledger under any traffic: it agrees with a small model, conserves credits, and forgets how it was fed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.credits.book import Book, Seat
from services.credits.domain import Contract, Denial, Entry, InMail
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
)
from shared.stream.records import Position

START = datetime(2026, 1, 1, tzinfo=UTC)
CONTRACTS = ("c1", "c2")
SEATS = ("s1", "s2")
WINDOW_MS = 90 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Record:
    event: Event[EventData]
    position: Position
    timestamp: datetime


# Traffic. An InMail's contract, seat and cost follow from its number, so that its facts agree about them.


def started(contract: str, allotment: int, cap: int, month: int) -> ContractStartedV1:
    return ContractStartedV1(
        contract_id=contract, name="C", monthly_allotment=allotment, cap_multiple=cap, started_at=day(month)
    )


def refreshed(contract: str, period: int, month: int) -> CreditsRefreshedV1:
    return CreditsRefreshedV1(contract_id=contract, period=f"2026-{period:02d}", refreshed_at=day(month))


def ended(contract: str, month: int) -> ContractEndedV1:
    return ContractEndedV1(contract_id=contract, ended_at=day(month))


def assigned(contract: str, seat: str, month: int) -> SeatAssignedV1:
    return SeatAssignedV1(seat_id=seat, contract_id=contract, name="S", assigned_at=day(month))


COSTS = ((1, 1), (1, 1), (0, 1), (1, 0), (0, 0))
"""Of each InMail what it costs by its schedule, and when sent."""


def status(number: int, name: str) -> InmailStatusChangedV1:
    return InmailStatusChangedV1.model_validate(
        {
            "inmail_id": f"i{number}",
            "thread_id": "t",
            "thread_version": 1,
            "contract_id": CONTRACTS[number % 2],
            "seat_id": SEATS[number // 2 % 2],
            "candidate": Candidate(id="p"),
            "kind": "initial",
            "automated": False,
            "credit_cost": COSTS[number][name == "sent"],
            "status": name,
            "at": START,
        }
    )


def answered(number: int, after_ms: int, content: str = "message") -> ReplyRecordedV1:
    return ReplyRecordedV1.model_validate(
        {
            "reply_id": "r",
            "thread_id": "t",
            "thread_version": 1,
            "inmail_id": f"i{number}",
            "contract_id": CONTRACTS[number % 2],
            "seat_id": SEATS[number // 2 % 2],
            "candidate": Candidate(id="p"),
            "content": content,
            "first_response": False,
            "inmail_sent_at": START,
            "sent_at": START + timedelta(milliseconds=after_ms),
        }
    )


def day(month: int) -> datetime:
    return START.replace(month=month)


contracts = st.sampled_from(CONTRACTS)
months = st.integers(1, 6)
inmails = st.integers(0, 4)
ways = st.sampled_from(
    [
        *(lambda number, name=name: status(number, name) for name in ("scheduled", "scheduled", "sent", "sent")),
        *(lambda number, name=name: status(number, name) for name in ("undelivered", "withdrawn", "cancelled")),
        *(lambda number, ms=ms: answered(number, ms) for ms in (-300_000, 0, WINDOW_MS, WINDOW_MS + 1)),
        lambda number: answered(number, 0, "automated"),
    ]
)
facts = st.builds(lambda way, number: way(number), ways, inmails)
starts = st.builds(started, contracts, st.integers(0, 4), st.integers(1, 3), months)
refreshes = st.builds(refreshed, contracts, months, months)
ends = st.builds(ended, contracts, months)
assignments = st.builds(assigned, contracts, st.sampled_from(SEATS), months)
OPENING: list[EventData] = [
    event
    for contract in CONTRACTS
    for event in (started(contract, 1, 2, 1), *(assigned(contract, seat, 1) for seat in SEATS))
]


@st.composite
def traffic(draw: st.DrawFn) -> list[EventData]:
    """Mostly facts, as in life, with a few contract events among them; without the opening nearly all wait."""
    stream = [*draw(st.sampled_from([OPENING, OPENING, []])), *draw(st.lists(facts, min_size=10, max_size=40))]
    for event in draw(st.lists(st.one_of(starts, refreshes, assignments, ends), max_size=5)):
        stream.insert(draw(st.integers(0, len(stream))), event)
    return stream


def records(data: Sequence[EventData], first: int = 0) -> list[Record]:
    return [
        Record(
            Event(f"e{first + n}", "/test", d.type, vars(d)["contract_id"], vars(d)[d.time_field or ""], d),
            Position("facts", 0, first + n),
            START + timedelta(milliseconds=first + n),
        )
        for n, d in enumerate(data)
    ]


# What the database does: keeps rows from batch to batch, and refuses what its constraints refuse.


@dataclass
class Tables:
    contracts: dict[str, Contract] = field(default_factory=dict)
    seats: dict[tuple[str, str], Seat] = field(default_factory=dict)
    inmails: dict[str, InMail] = field(default_factory=dict)
    waiting: dict[str, list[Record]] = field(default_factory=dict)
    periods: list[tuple[str, str]] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    denials: list[Denial] = field(default_factory=list)

    def apply(self, batch: Sequence[Record]) -> None:
        book: Book[Record] = Book(
            contracts=self.contracts.values(),
            seats=self.seats.values(),
            inmails=self.inmails.values(),
            granted=self.periods,
            waiting=self.waiting,
        )
        book.take(batch)
        # Only what a book says has changed is written, so a change it forgets to name is lost here as there.
        self.contracts.update({key: book.contracts[key] for key in book.changed_contracts})
        self.seats.update({key: book.seats[key] for key in book.changed_seats})
        self.inmails.update({key: book.inmails[key] for key in book.changed_inmails})
        self.periods += sorted(book.changed_periods)
        self.waiting = book.waiting
        self.ledger += book.entries
        self.denials += [effect for _, effect in book.effects if isinstance(effect, Denial)]
        self.refuse_what_the_constraints_refuse()

    def refuse_what_the_constraints_refuse(self) -> None:
        steps = {"captured": "charged", "refunded": "returned"}
        for unique in (
            [(e.inmail_id, steps.get(e.kind, e.kind)) for e in self.ledger if e.inmail_id],
            self.periods,
            [(e.contract_id, e.number) for e in self.ledger],
        ):
            assert len(unique) == len(set(unique))
        assert all(e.amount > 0 for e in self.ledger)
        for contract in self.contracts.values():
            assert contract.granted == contract.available + contract.held + contract.taken + contract.expired
            assert min(contract.granted, contract.held, contract.taken, contract.expired) >= 0

    def balances(self) -> dict[str, tuple[int, ...]]:
        return {key: contract[6:] for key, contract in self.contracts.items()}


# The model: positions worked out anew from all the facts that were let in, waiting by looking at every record again.


@dataclass
class Model:
    let_in: list[EventData] = field(default_factory=list)
    waits: list[EventData] = field(default_factory=list)
    terms: dict[str, tuple[datetime, int, int]] = field(default_factory=dict)
    ends: dict[str, datetime] = field(default_factory=dict)
    seats: set[tuple[str, str]] = field(default_factory=set)
    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    expired: Counter[str] = field(default_factory=Counter)

    def feed(self, data: EventData) -> None:
        self.waits.append(data)
        if isinstance(data, ContractStartedV1 | SeatAssignedV1):
            self.waits.pop()
            self.decide(data)
        ready = [waiting for waiting in self.waits if self.is_ready(waiting)]
        self.waits = [waiting for waiting in self.waits if not self.is_ready(waiting)]
        for waiting in ready:
            self.decide(waiting)

    def is_ready(self, data: EventData) -> bool:
        told = vars(data)
        fact = isinstance(data, InmailStatusChangedV1 | ReplyRecordedV1)
        return told["contract_id"] in self.terms and (not fact or (told["contract_id"], told["seat_id"]) in self.seats)

    def decide(self, data: EventData) -> None:
        contract = vars(data)["contract_id"]
        self.let_in.append(data)
        match data:
            case SeatAssignedV1():
                self.seats.add((contract, data.seat_id))
                return
            case ContractStartedV1():
                terms = (data.started_at, data.monthly_allotment, data.cap_multiple)
                if contract not in self.terms or terms[0] >= self.terms[contract][0]:
                    self.terms[contract] = terms
                self.grants.setdefault((contract, f"2026-{data.started_at.month:02d}"), data.monthly_allotment)
            case ContractEndedV1():
                self.ends[contract] = max(data.ended_at, self.ends.get(contract, data.ended_at))
            case CreditsRefreshedV1():
                self.refresh(contract, data)
            case InmailStatusChangedV1(status="scheduled"):
                self.schedule(contract, data)
            case _:
                pass
        if self.is_over(contract):
            self.expire(contract, 0)

    def refresh(self, contract: str, data: CreditsRefreshedV1) -> None:
        if (contract, data.period) in self.grants:
            return
        if self.is_over(contract) and data.refreshed_at > self.ends[contract]:
            return
        _, allotment, cap = self.terms[contract]
        self.grants[contract, data.period] = allotment
        self.expire(contract, allotment * cap)

    def schedule(self, contract: str, data: InmailStatusChangedV1) -> None:
        earlier = [
            d for d in self.let_in[:-1] if isinstance(d, InmailStatusChangedV1) and d.inmail_id == data.inmail_id
        ]
        if earlier:
            return  # scheduled before, or its hold is over already
        # The schedule itself is among the facts by now, so the credit it wants is no longer available.
        if self.is_over(contract) or (data.credit_cost and self.available(contract) < 0):
            self.denied.add(data.inmail_id)

    def expire(self, contract: str, kept: int) -> None:
        self.expired[contract] += max(0, self.available(contract) - kept)

    def is_over(self, contract: str) -> bool:
        return contract in self.ends and self.ends[contract] >= self.terms[contract][0]

    def position(self, inmail: str) -> str:
        known = {d.status for d in self.let_in if isinstance(d, InmailStatusChangedV1) and d.inmail_id == inmail}
        back = any(
            isinstance(d, ReplyRecordedV1)
            and d.inmail_id == inmail
            and d.content != "automated"
            and (d.sent_at - d.inmail_sent_at) / timedelta(milliseconds=1) <= WINDOW_MS
            for d in self.let_in
        )
        if "undelivered" in known:
            return "free"
        if "sent" in known:
            return "free" if back else "taken"
        if known & {"cancelled", "withdrawn"}:
            return "free"
        return "held" if "scheduled" in known and inmail not in self.denied else "none"

    def count(self, contract: str, position: str) -> int:
        costs: dict[str, int] = {}
        for d in self.let_in:
            if isinstance(d, InmailStatusChangedV1) and d.contract_id == contract:
                costs[d.inmail_id] = d.credit_cost if d.status == "sent" else costs.get(d.inmail_id, d.credit_cost)
        return sum(self.position(inmail) == position for inmail, cost in costs.items() if cost)

    def available(self, contract: str) -> int:
        granted = sum(amount for (owner, _), amount in self.grants.items() if owner == contract)
        return granted - self.count(contract, "held") - self.count(contract, "taken") - self.expired[contract]

    def balances(self) -> dict[str, tuple[int, ...]]:
        return {
            contract: (
                sum(amount for (owner, _), amount in self.grants.items() if owner == contract),
                self.available(contract),
                self.count(contract, "held"),
                self.count(contract, "taken"),
                self.expired[contract],
            )
            for contract in self.terms
        }


class LedgerMachine(RuleBasedStateMachine):
    """The ledger and the model, fed the same, are compared after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = Tables()
        self.model = Model()
        self.fed: list[Record] = []

    def feed(self, data: Sequence[EventData]) -> None:
        batch = records(data, first=len(self.fed))
        self.fed += batch
        self.tables.apply(batch)
        for d in data:
            self.model.feed(d)

    @initialize(opening=st.sampled_from([OPENING, OPENING, []]))
    def open(self, opening: list[EventData]) -> None:
        self.feed(opening)

    @rule(contract=contracts, allotment=st.integers(0, 4), cap=st.integers(1, 3), month=months)
    def start(self, contract: str, allotment: int, cap: int, month: int) -> None:
        self.feed([started(contract, allotment, cap, month)])

    @rule(contract=contracts, period=months, month=months)
    def refresh(self, contract: str, period: int, month: int) -> None:
        self.feed([refreshed(contract, period, month)])

    @rule(contract=contracts, seat=st.sampled_from(SEATS))
    def assign(self, contract: str, seat: str) -> None:
        self.feed([assigned(contract, seat, 1)])

    @rule(contract=contracts, month=st.integers(4, 6))
    def end(self, contract: str, month: int) -> None:
        self.feed([ended(contract, month)])

    @rule(batch=st.lists(facts, min_size=1, max_size=12))
    def deal(self, batch: list[EventData]) -> None:
        self.feed(batch)

    @rule(data=st.data())
    def redeliver(self, data: st.DataObject) -> None:
        """A writer that lost its acknowledgement sends again. Only facts: contract events are unique by the inbox."""
        count = data.draw(st.integers(0, len(self.fed)))
        facts = [r for r in self.fed[:count] if isinstance(r.event.data, InmailStatusChangedV1 | ReplyRecordedV1)]
        before = self.tables.balances(), list(self.tables.ledger), list(self.tables.denials)
        self.tables.apply(facts)
        assert before == (self.tables.balances(), self.tables.ledger, self.tables.denials)

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.tables.balances() == self.model.balances()
        assert {denial.inmail_id for denial in self.tables.denials} == self.model.denied
        assert sum(map(len, self.tables.waiting.values())) >= len(self.model.waits)

    @invariant()
    def lines_are_numbered_without_gaps_and_end_in_the_balance(self) -> None:
        for key, contract in self.tables.contracts.items():
            lines = [entry for entry in self.tables.ledger if entry.contract_id == key]
            assert [line.number for line in lines] == list(range(1, contract.entry_number + 1))
            if lines:
                assert (lines[-1].available, lines[-1].held) == (contract.available, contract.held)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(traffic(), st.lists(st.integers(1, 12), min_size=1))
@settings(max_examples=300, deadline=None)
def test_batch_boundaries_do_not_matter(data: list[EventData], sizes: list[int]) -> None:
    every = records(data)
    whole, split, single = Tables(), Tables(), Tables()
    whole.apply(every)
    rest, turn = every, 0
    while rest:
        size = sizes[turn % len(sizes)]
        split.apply(rest[:size])
        rest, turn = rest[size:], turn + 1
    for one in every:
        single.apply([one])
    for tables in (whole, split, single):
        tables.periods.sort()
    assert whole == single
    assert split == single


@given(st.data(), st.lists(facts, min_size=5, max_size=25))
@settings(max_examples=300, deadline=None)
def test_any_order_of_arrival_ends_with_the_same_balances(data: st.DataObject, facts: list[EventData]) -> None:
    """With credit for all and nothing that expires, nothing is decided on arrival."""
    framework: list[EventData] = [
        event
        for contract in CONTRACTS
        for event in (
            started(contract, 20, 4, 1),
            refreshed(contract, 2, 2),
            *(assigned(contract, seat, 1) for seat in SEATS),
        )
    ]
    in_order, shuffled = Tables(), Tables()
    in_order.apply(records([*framework, *facts]))
    shuffled.apply(records(data.draw(st.permutations([*framework, *facts]))))
    assert in_order.balances() == shuffled.balances()
    assert not in_order.denials
    assert not shuffled.denials
    assert shuffled.waiting == {}


@given(traffic())
@settings(max_examples=200, deadline=None)
def test_credits_are_conserved_between_granted_available_held_taken_and_expired(data: list[EventData]) -> None:
    tables = Tables()
    tables.apply(records(data))
    for key, contract in tables.contracts.items():
        moved: Counter[str] = Counter()
        for line in tables.ledger:
            if line.contract_id == key:
                moved[line.kind] += line.amount
        taken = moved["captured"] + moved["charged"] - moved["refunded"] - moved["returned"]
        held = moved["held"] - moved["captured"] - moved["released"]
        assert (contract.held, contract.taken) == (held, taken)
        assert moved["granted"] == contract.available + held + taken + moved["expired"]

"""The rules of credits: where an InMail's credit lies, what moves it, what is granted, what expires, what is denied.

Every function takes the state and a fact and returns the new state with what it posts; nothing here waits, reads or
writes. An InMail's position is a function of the set of its facts, so facts may come in any order; only denials and
the amounts that expire depend on what was known when they were decided.
"""

from datetime import datetime
from typing import Literal, NamedTuple

from shared.events import (
    ContractEndedV1,
    ContractStartedV1,
    CreditsRefreshedV1,
    DenialReason,
    InmailStatusChangedV1,
    LedgerKind,
    ReplyRecordedV1,
)
from shared.rules import CREDIT_WINDOW

Position = Literal["none", "held", "taken", "free"]
Fact = InmailStatusChangedV1 | ReplyRecordedV1


class Contract(NamedTuple):
    """A contract's terms, its life and the balances of its accounts in credits.

    `granted` is the account all credits come from, so it always equals the sum of the other four.
    `available` may be negative: what was sent is charged, covered or not.
    """

    contract_id: str
    monthly_allotment: int
    cap_multiple: int
    started_at: datetime
    ended_at: datetime | None = None
    entry_number: int = 0
    granted: int = 0
    available: int = 0
    held: int = 0
    taken: int = 0
    expired: int = 0

    @property
    def ended(self) -> bool:
        """Whether the contract is over: a start after the end reopens it, an end before the start is an old one."""
        return self.ended_at is not None and self.ended_at >= self.started_at


class InMail(NamedTuple):
    """What is known of an InMail. `credit_cost` is None until a status has told it; facts are only ever added."""

    inmail_id: str
    contract_id: str
    seat_id: str
    credit_cost: int | None = None
    thread_version: int = 0
    scheduled: bool = False
    denied: bool = False
    sent_at: datetime | None = None
    stopped: bool = False
    undelivered: bool = False
    answered: bool = False


class Entry(NamedTuple):
    """One line of a contract's ledger, with the balances after it. Grants and what expires belong to no InMail."""

    contract_id: str
    number: int
    kind: LedgerKind
    amount: int
    available: int
    held: int
    inmail_id: str | None = None
    seat_id: str | None = None


class Denial(NamedTuple):
    """A schedule for which nothing is held."""

    contract_id: str
    seat_id: str
    inmail_id: str
    reason: DenialReason


class Decision(NamedTuple):
    """The state after a fact, and the lines it posts in their order. `period` is the month that is granted with it."""

    contract: Contract
    inmail: InMail | None = None
    entries: tuple[Entry, ...] = ()
    denial: Denial | None = None
    period: str | None = None


# What one credit does to granted, available, held, taken, expired. Each row moves it out of one account and into
# another (`granted` counts what went out), so the books balance whatever is posted.
MOVES: dict[LedgerKind, tuple[int, int, int, int, int]] = {
    "granted": (1, 1, 0, 0, 0),
    "expired": (0, -1, 0, 0, 1),
    "held": (0, -1, 1, 0, 0),
    "captured": (0, 0, -1, 1, 0),
    "released": (0, 1, -1, 0, 0),
    "charged": (0, -1, 0, 1, 0),
    "refunded": (0, 1, 0, -1, 0),
    "returned": (0, 1, 0, -1, 0),
}

# The steps an InMail can take. Facts are only added, so no other step exists: a missing one is a defect and raises.
_STEPS: dict[tuple[Position, Position], LedgerKind | None] = {
    ("none", "held"): "held",
    ("none", "taken"): "charged",
    ("none", "free"): None,
    ("held", "taken"): "captured",
    ("held", "free"): "released",
    ("free", "taken"): "charged",
    ("taken", "free"): "returned",
}


def position(inmail: InMail) -> Position:
    """Where the credit of an InMail lies by all that is known of it."""
    if inmail.undelivered:
        return "free"
    if inmail.sent_at is not None:
        return "free" if inmail.answered else "taken"
    if inmail.stopped:
        return "free"
    return "held" if inmail.scheduled and not inmail.denied else "none"


def in_time(*, inmail_sent_at: datetime, reply_sent_at: datetime) -> bool:
    """Whether a reply brings the credit back (R13); one that seems earlier than its InMail was simultaneous (R22)."""
    return reply_sent_at - inmail_sent_at <= CREDIT_WINDOW


def decide_fact(contract: Contract, inmail: InMail | None, fact: Fact) -> Decision:
    """Add a fact to its InMail and move the credit to where it lies now (R13 to R19, R24).

    A fact that tells nothing new returns the very `inmail` it was given.
    """
    before = inmail or InMail(fact.inmail_id, fact.contract_id, fact.seat_id)
    after = _learn(before, fact)
    if after is before:
        return Decision(contract, before)
    if after.scheduled and not before.scheduled and position(after) == "held":
        reason = _refusal(contract, after)
        if reason is not None:
            denial = Denial(contract.contract_id, after.seat_id, after.inmail_id, reason)
            return Decision(contract, after._replace(denied=True), denial=denial)
    kind = _step(before, after)
    if kind is None:
        return Decision(contract, after)
    contract, entry = _post(contract, kind, after.credit_cost or before.credit_cost or 0, inmail=after)
    if not contract.ended:
        return Decision(contract, after, (entry,))
    # Nobody can spend what becomes available after the end (R23).
    contract, expired = _post_if_any(contract, "expired", contract.available)
    return Decision(contract, after, (entry, *expired))


def decide_start(contract: Contract | None, start: ContractStartedV1, *, granted: bool) -> Decision:
    """Begin a contract and grant the month of its start, unless that month was `granted` before (R23).

    A further start brings new terms if it is the newest, reopens a contract that ended before it, and grants its own
    month by its own allotment. Nothing expires by the cap: only a refresh does that.
    """
    if contract is None:
        contract = Contract(start.contract_id, start.monthly_allotment, start.cap_multiple, start.started_at)
    elif start.started_at >= contract.started_at:
        contract = contract._replace(
            monthly_allotment=start.monthly_allotment, cap_multiple=start.cap_multiple, started_at=start.started_at
        )
    if granted:
        return Decision(contract)
    contract, entries = _post_if_any(contract, "granted", start.monthly_allotment)
    if contract.ended:
        contract, expired = _post_if_any(contract, "expired", contract.available)
        entries += expired
    return Decision(contract, entries=entries, period=month(start.started_at))


def decide_refresh(contract: Contract, refresh: CreditsRefreshedV1, *, granted: bool) -> Decision:
    """Grant a month once, then let expire what exceeds the cap (R23).

    Holds don't count against the cap. A contract that ended before the refresh gets nothing; a refresh from before
    the end that comes late is granted and expires at once, as if it had come in time.
    """
    if granted or (contract.ended_at is not None and contract.ended and refresh.refreshed_at > contract.ended_at):
        return Decision(contract)
    contract, entries = _post_if_any(contract, "granted", contract.monthly_allotment)
    kept = 0 if contract.ended else contract.cap_multiple * contract.monthly_allotment
    contract, expired = _post_if_any(contract, "expired", contract.available - kept)
    return Decision(contract, entries=entries + expired, period=refresh.period)


def decide_end(contract: Contract, end: ContractEndedV1) -> Decision:
    """End a contract: what is available expires, holds stay (R23). An end older than the newest start ends nothing."""
    if contract.ended_at is None or end.ended_at > contract.ended_at:
        contract = contract._replace(ended_at=end.ended_at)
    if not contract.ended:
        return Decision(contract)
    contract, expired = _post_if_any(contract, "expired", contract.available)
    return Decision(contract, entries=expired)


def month(instant: datetime) -> str:
    """Name the UTC month of an instant as `YYYY-MM`."""
    return f"{instant.year:04d}-{instant.month:02d}"


def _learn(inmail: InMail, fact: Fact) -> InMail:
    """`inmail` with the fact added, or the very same object if the fact was known."""
    if isinstance(fact, ReplyRecordedV1):
        answers = fact.content != "automated" and in_time(
            inmail_sent_at=fact.inmail_sent_at, reply_sent_at=fact.sent_at
        )
        learnt = inmail._replace(answered=True) if answers and not inmail.answered else inmail
    else:
        learnt = _learn_status(inmail, fact)
    if fact.thread_version > inmail.thread_version:
        return learnt._replace(thread_version=fact.thread_version)
    return learnt


def _learn_status(inmail: InMail, fact: InmailStatusChangedV1) -> InMail:
    if inmail.credit_cost is None:
        inmail = inmail._replace(credit_cost=fact.credit_cost, seat_id=fact.seat_id)
    match fact.status:
        case "scheduled":
            return inmail if inmail.scheduled else inmail._replace(scheduled=True)
        case "sent":
            # The seat that sends it is its seat and the cost then told its cost, whatever was scheduled.
            if inmail.sent_at is not None:
                return inmail
            return inmail._replace(sent_at=fact.at, seat_id=fact.seat_id, credit_cost=fact.credit_cost)
        case "undelivered":
            return inmail if inmail.undelivered else inmail._replace(undelivered=True)
        case "withdrawn" | "cancelled":
            return inmail if inmail.stopped else inmail._replace(stopped=True)


def _refusal(contract: Contract, inmail: InMail) -> DenialReason | None:
    """Why nothing is held for a schedule, by what is known on its arrival (R23, R24)."""
    if contract.ended:
        return "CONTRACT_ENDED"
    if inmail.credit_cost and contract.available < inmail.credit_cost:
        return "INSUFFICIENT_CREDITS"
    return None


def _step(before: InMail, after: InMail) -> LedgerKind | None:
    """Tell what is posted for an InMail's move; None if it stays, or goes free without having held anything."""
    # Nothing lies anywhere for an InMail that costs nothing: what was held while it still cost something is free.
    old, new = ("free" if inmail.credit_cost == 0 else position(inmail) for inmail in (before, after))
    if old == new:
        return None
    kind = _STEPS[old, new]
    return "refunded" if kind == "returned" and after.undelivered else kind


def _post_if_any(
    contract: Contract, kind: Literal["granted", "expired"], amount: int
) -> tuple[Contract, tuple[Entry, ...]]:
    """Post a line unless there is nothing to move; `amount` may be negative."""
    if amount <= 0:
        return contract, ()
    contract, entry = _post(contract, kind, amount)
    return contract, (entry,)


def _post(contract: Contract, kind: LedgerKind, amount: int, *, inmail: InMail | None = None) -> tuple[Contract, Entry]:
    """Write the contract's next line."""
    granted, available, held, taken, expired = MOVES[kind]
    after = Contract(
        contract.contract_id,
        contract.monthly_allotment,
        contract.cap_multiple,
        contract.started_at,
        contract.ended_at,
        contract.entry_number + 1,
        contract.granted + granted * amount,
        contract.available + available * amount,
        contract.held + held * amount,
        contract.taken + taken * amount,
        contract.expired + expired * amount,
    )
    entry = Entry(
        contract.contract_id,
        after.entry_number,
        kind,
        amount,
        after.available,
        after.held,
        inmail.inmail_id if inmail else None,
        inmail.seat_id if inmail else None,
    )
    return after, entry

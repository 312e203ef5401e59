"""Where credits lie, read off the ledger's postings. Pure."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from services.inbox.domain import Inmail
from shared.events import LedgerKind
from shared.rules import CREDIT_WINDOW

Position = Literal["held", "taken", "free"]
"""Where an InMail's credit lies; `free` is: with the contract."""

_BACK: Final[frozenset[LedgerKind]] = frozenset({"refunded", "returned"})
_TAKEN: Final[frozenset[LedgerKind]] = frozenset({"captured", "charged"})


class Postings(NamedTuple):
    """All credits of a contract whose InMails have the same postings by an instant.

    `in_window` says whether the InMail was sent at most 90 x 24 h before that instant.
    """

    kinds: frozenset[LedgerKind]
    in_window: bool
    amount: int


@dataclass(frozen=True, slots=True)
class Credits:
    """A contract's credits at an instant: `granted` is the sum of all others but `returned`, a part of `available`."""

    granted: int
    available: int
    held: int
    open: int
    lapsed: int
    expired: int
    returned: int


def position(kinds: AbstractSet[LedgerKind]) -> Position:
    """Where an InMail's credit lies after postings, each kind of which occurs at most once.

    The kinds alone decide, for at an instant in the past postings may be in effect in another order than they were
    made: a `charged` from before the `released` of the same InMail, say.
    """
    if kinds & _BACK:
        return "free"
    if kinds & _TAKEN:
        return "taken"
    return "held" if "held" in kinds and "released" not in kinds else "free"


def credits_at(postings: Iterable[Postings], *, granted: int, expired: int) -> Credits:
    """Say where a contract's credits lie, from the postings in effect at an instant and the sums granted and expired.

    Each credit lies in one place, so the places add up to what was granted. An InMail answered in time has its
    `returned` in effect at the time of that reply, so one that is taken and was sent within the window is not answered;
    and one that was answered too late has left the window.
    """
    amounts: dict[tuple[Position, bool], int] = {}
    returned = 0
    for group in postings:
        place = position(group.kinds), group.in_window
        amounts[place] = amounts.get(place, 0) + group.amount
        if "returned" in group.kinds:
            returned += group.amount
    held = amounts.get(("held", True), 0) + amounts.get(("held", False), 0)
    opened, lapsed = amounts.get(("taken", True), 0), amounts.get(("taken", False), 0)
    return Credits(
        granted=granted,
        available=granted - expired - held - opened - lapsed,
        held=held,
        open=opened,
        lapsed=lapsed,
        expired=expired,
        returned=returned,
    )


def is_settled(inmail: Inmail, kinds: AbstractSet[LedgerKind], *, denied: bool, answered_at: datetime | None) -> bool:
    """Whether the ledger has posted all that an InMail's facts call for; `answered_at` is its first human reply's.

    With the contract is also where a credit begins: that it lies there is settled by postings, or by a denial, after
    which there may be nothing to post.
    """
    if inmail.credit_cost == 0:
        return position(kinds) == "free"  # what was held while it still cost something is to be released
    called_for = _called_for(inmail, denied=denied, answered_at=answered_at)
    if called_for == "free" and inmail.counts_as_sent:
        return "returned" in kinds
    return position(kinds) == called_for and (called_for != "free" or denied or bool(kinds))


def _called_for(inmail: Inmail, *, denied: bool, answered_at: datetime | None) -> Position:
    if inmail.undelivered_at is not None:
        return "free"
    if inmail.sent_at is not None:
        in_time = answered_at is not None and answered_at - inmail.sent_at <= CREDIT_WINDOW
        return "free" if in_time else "taken"
    return "held" if inmail.is_scheduled and not denied else "free"

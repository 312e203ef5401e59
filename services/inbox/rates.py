"""Response rates (R31) and a contract's credits at an instant. Pure: counts in, answers out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Final, NamedTuple

from shared.events import LedgerKind

# Beyond these an InMail's credit has nowhere to go back to, or has gone back.
_TAKEN: Final[frozenset[LedgerKind]] = frozenset({"captured", "charged"})
_RETURNED: Final[frozenset[LedgerKind]] = frozenset({"refunded", "returned"})


class Month(NamedTuple):
    """InMails sent in one UTC month, and how many of them were answered, ever and within 30 days."""

    sent: int
    answered: int
    answered_30d: int


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate and what it is made of; `rate` is None where nothing was sent."""

    numerator: float
    denominator: int

    @property
    def rate(self) -> float | None:
        """The numerator's share of the denominator."""
        return self.numerator / self.denominator if self.denominator else None


@dataclass(frozen=True, slots=True)
class ResponseRates:
    """The rate over all InMails, the one that counts answers within 30 days, and the mean of the months' rates."""

    pooled: Rate
    report_30d: Rate
    mean_of_intervals: Rate


def response_rates(months: Sequence[Month]) -> ResponseRates:
    """Add up months. A month without a sent InMail has no rate and is left out of the mean."""
    sent = sum(month.sent for month in months)
    rates = [month.answered / month.sent for month in months if month.sent]
    return ResponseRates(
        pooled=Rate(sum(month.answered for month in months), sent),
        report_30d=Rate(sum(month.answered_30d for month in months), sent),
        mean_of_intervals=Rate(fsum(rates), len(rates)),
    )


class Postings(NamedTuple):
    """All credits of a contract whose InMails have the same postings by an instant.

    `in_window` says whether the InMail was sent at most 90 x 24 h before that instant. Grants and expiries, which belong
    to no InMail, are sums of their own.
    """

    kinds: frozenset[LedgerKind]
    in_window: bool
    amount: int


@dataclass(frozen=True, slots=True)
class Credits:
    """A contract's credits at an instant. `granted` is the sum of all others but `returned`, a part of `available`."""

    granted: int
    available: int
    held: int
    open: int
    lapsed: int
    expired: int
    returned: int


def credits_at(postings: Iterable[Postings], *, granted: int, expired: int) -> Credits:
    """Say where the credits lie, from the postings that were in effect by an instant.

    Each InMail's credit lies in one place by the kinds of its postings, so the places add up to what was granted also
    where postings are in effect in another order than they were made: a `charged` from before the `released` of the same
    InMail, say. An InMail answered in time has its `returned` in effect at that reply's time, so what is taken and was
    sent within the window is not answered, and what was answered too late has left the window.
    """
    held = opened = lapsed = returned = 0
    for group in postings:
        if "returned" in group.kinds:
            returned += group.amount
        if group.kinds & _RETURNED:
            continue
        if group.kinds & _TAKEN:
            if group.in_window:
                opened += group.amount
            else:
                lapsed += group.amount
        elif "released" not in group.kinds:
            held += group.amount
    return Credits(
        granted=granted,
        available=granted - expired - held - opened - lapsed,
        held=held,
        open=opened,
        lapsed=lapsed,
        expired=expired,
        returned=returned,
    )

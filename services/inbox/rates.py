"""Response rates (R31). Pure: counts in, rates out."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import NamedTuple


class Month(NamedTuple):
    """InMails sent in one UTC month, and how many of them were answered, ever and within 30 days."""

    sent: int
    answered: int
    answered_30d: int


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate and what it is made of; `rate` is None where there is nothing to be a share of."""

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

"""The account of a run: every line says one thing about what was published and what came of it."""

from collections.abc import Callable, Iterator
from typing import Final

from deploy.traffic.expectation import Expectation
from deploy.verifier import conversations, delivery, ledger, notices, outcomes
from deploy.verifier.line import Line
from deploy.verifier.observation import Observed

Check = Callable[[Expectation, Observed], Line]

CHECKS: Final[tuple[Check, ...]] = (
    delivery.published,
    conversations.sent,
    conversations.answered,
    conversations.awaiting,
    conversations.audiences,
    conversations.locks,
    conversations.cancelled,
    conversations.recruiter_messages,
    conversations.drafts,
    outcomes.asked_and_answered,
    outcomes.choices,
    outcomes.own_words,
    notices.notified,
    notices.numbered,
    notices.quiet,
    notices.retracted,
    ledger.returned,
    ledger.postings,
    ledger.denied,
    ledger.in_sequence,
    ledger.balanced,
    ledger.granted,
    conversations.states,
    conversations.states_by_http,
    conversations.rates,
    delivery.dead_letters,
    delivery.accounted,
    delivery.causes,
    delivery.repeats,
    delivery.rest,
)


def verify(expected: Expectation, observed: Observed) -> list[Line]:
    """Compare what was seen with what must come of the scenario; the run is right when every line holds."""
    return list(_lines(expected, observed))


def _lines(expected: Expectation, observed: Observed) -> Iterator[Line]:
    for check in CHECKS:
        try:
            yield check(expected, observed)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # What was seen is not even of the form that the comparison needs.
            yield Line(check.__name__.replace("_", " "), holds=False, expected="comparable", actual=repr(error))

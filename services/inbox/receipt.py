"""The receipt of an InMail: one causal chain out of all that was consumed about it, and what is still to come. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from services.inbox.domain import Inmail
from services.inbox.ledger import is_settled
from services.inbox.store import DenialRow, EntryRow, FactRow
from shared.events import (
    FollowUpCancelledV1,
    InmailStatusChangedV1,
    NotificationRequestedV1,
    NotificationRetractedV1,
    OutcomeCorrectionRequestedV1,
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
    ReplyRecordedV1,
    ThreadLockedV1,
    ThreadUnlockedV1,
)

Data = dict[str, Any]

_OF_INMAIL: Final = {
    kind.type
    for kind in (InmailStatusChangedV1, ReplyRecordedV1, FollowUpCancelledV1, OutcomeDecidedV1, OutcomeUnchangedV1)
}
_LOCKS: Final = {ThreadLockedV1.type, ThreadUnlockedV1.type}
_OUTCOMES: Final = {OutcomeDecidedV1.type, OutcomeUnchangedV1.type}
_NOTIFICATIONS: Final = {NotificationRequestedV1.type, NotificationRetractedV1.type}


@dataclass(frozen=True, slots=True)
class Link:
    """One consumed event of the chain and its data."""

    fact: FactRow
    data: Data


@dataclass(frozen=True, slots=True)
class Receipt:
    """The links of the chain by what they are, each in order of event time; `answer` is the first human reply."""

    events: Sequence[Link]
    answer: Link | None
    outcomes: Sequence[Link]
    lock: Link | None
    notifications: Sequence[Link]
    pending: Sequence[str]


def assemble(
    inmail: Inmail | None,
    facts: Iterable[FactRow],
    entries: Sequence[EntryRow],
    denial: DenialRow | None,
) -> Receipt:
    """Pick an InMail's chain out of the facts of its thread. `inmail` is None if only the ledger knows it as yet."""
    if inmail is None:
        return Receipt((), None, (), None, (), ("events",))
    links = [Link(fact, orjson.loads(fact.data)) for fact in in_order(facts)]
    own = [link for link in links if link.fact.type in _OF_INMAIL and link.data["inmail_id"] == inmail.inmail_id]
    replies = [link for link in own if link.fact.type == ReplyRecordedV1.type]
    human = [link for link in replies if link.data["content"] != "automated"]
    reply_ids = {link.data["reply_id"] for link in human}
    locks = [link for link in links if link.fact.type in _LOCKS and link.data["reply_id"] in reply_ids]
    outcomes = [link for link in own if link.fact.type in _OUTCOMES]
    notifications = _notifications(links, {link.fact.event_id for link in outcomes})
    chain = {link.fact.event_id for link in (*own, *locks, *notifications)}
    return Receipt(
        events=[link for link in links if link.fact.event_id in chain],
        answer=human[0] if human else None,
        outcomes=outcomes,
        lock=locks[-1] if locks else None,
        notifications=notifications,
        pending=_pending(inmail, human, outcomes, notifications, entries, denied=denial is not None),
    )


def _notifications(links: Iterable[Link], outcome_event_ids: set[str]) -> list[Link]:
    """What these outcomes had requested, with its retraction, whatever brought that about."""
    of_thread = [link for link in links if link.fact.type in _NOTIFICATIONS]
    requested = {link.data["notification_id"] for link in of_thread if link.fact.cause_id in outcome_event_ids}
    return [link for link in of_thread if link.data["notification_id"] in requested]


def _pending(
    inmail: Inmail,
    human: Sequence[Link],
    outcomes: Sequence[Link],
    notifications: Sequence[Link],
    entries: Iterable[EntryRow],
    *,
    denied: bool,
) -> list[str]:
    """What is called for and has not been consumed, by the receipt's parts; `sent` and `answer` may never come."""
    answered_at = min((_time(link) for link in human), default=None)
    kinds: set[Any] = {entry.kind for entry in entries}
    classified = {link.data["reply_id"] for link in outcomes}
    notified = {link.fact.cause_id for link in notifications}
    missing = {
        "sent": inmail.is_scheduled,
        "answer": inmail.awaits_reply and not human,
        "outcome": any(link.data["reply_id"] not in classified for link in human),
        "ledger": not is_settled(inmail, kinds, denied=denied, answered_at=answered_at),
        "notifications": any(link.fact.event_id not in notified for link in outcomes),
    }
    return [part for part, is_missing in missing.items() if is_missing]


def _time(link: Link) -> datetime:
    return link.fact.at


def in_order(facts: Iterable[FactRow]) -> list[FactRow]:
    """Sort by event time; at one instant the conversation comes first, then requests to correct, outcomes and the rest.

    A correction that is rejected is so as of its request, and would stand before it as often as after it.
    """
    return sorted(facts, key=lambda fact: (fact.at, _rank(fact.type), fact.number, fact.event_id))


def _rank(event_type: str) -> int:
    if event_type in _NOTIFICATIONS:
        return 3
    if event_type == OutcomeCorrectionRequestedV1.type:
        return 1
    return 2 if event_type.startswith("outcome.") else 0

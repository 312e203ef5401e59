"""The JSON that the HTTP paths answer with. Pure; times are RFC 3339 in UTC with milliseconds."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from services.inbox.domain import Inmail, Thread, cannot_reply, thread_state, waiting
from services.inbox.ledger import Credits
from services.inbox.queries import FolderRow
from services.inbox.rates import Rate, ResponseRates
from services.inbox.receipt import Link, Receipt, in_order
from services.inbox.store import CorrectionRow, DenialRow, EntryRow, FactRow
from shared.events import (
    NotificationRequestedV1,
    NotificationRetractedV1,
    OutcomeCorrectionRequestedV1,
    OutcomeDecidedV1,
    format_instant,
)
from shared.rules import UNKNOWN_CANDIDATE

Json = dict[str, Any]

_SECOND: Final = timedelta(seconds=1)
_NOT_IN_TIMELINE: Final = {NotificationRequestedV1.type, NotificationRetractedV1.type}
_OUTCOME_FIELDS: Final = (
    "outcome_id",
    "version",
    "outcome",
    "previous",
    "source",
    "confidence",
    "needs_confirmation",
    "signals",
    "model_version",
    "reply_id",
    "responded_at",
    "decided_at",
)
_NOTIFICATION_FIELDS: Final = (
    "notification_id",
    "recipient",
    "channel",
    "kind",
    "locale",
    "version",
    "supersedes",
    "deliver_after",
    "digest_key",
)


def folder_item(row: FolderRow, now: datetime) -> Json:
    """A thread in a folder, as it is at `now`."""
    waits = waiting(status=row.status, last_inmail_at=row.last_inmail_at, now=now)
    return {
        "thread_id": row.thread_id,
        "contract_id": row.contract_id,
        "seat_id": row.owner_seat_id,
        "candidate": {"id": row.candidate_id, "name": row.candidate_name or UNKNOWN_CANDIDATE},
        "status": row.status,
        "locked": row.locked,
        "can_reply": cannot_reply(locked=row.locked, first_response_at=row.first_response_at) is None,
        "last_inmail_at": format_instant(row.last_inmail_at),
        "first_response_at": _instant(row.first_response_at),
        "outcome_version": row.outcome_version,
        "age_seconds": waits.age // _SECOND,
        "days_left": waits.days_left,
        "lapsed": waits.lapsed,
    }


def thread_view(thread: Thread, facts: Iterable[FactRow], corrections: Iterable[CorrectionRow]) -> Json:
    """A thread's state, what was decided about it, and its timeline without drafts (R2) and notifications."""
    ordered = in_order([fact for fact in facts if fact.type not in _NOT_IN_TIMELINE] + [*map(_as_fact, corrections)])
    reason = cannot_reply(locked=thread.locked, first_response_at=thread.first_response_at)
    state = thread_state(thread)
    of_inmails = {"candidate": {"locale", "time_zone"}}
    return {
        "state": None if state is None else state.model_dump(mode="json", exclude=of_inmails),
        "can_reply": reason is None,
        "cannot_reply_reason": reason,
        "outcome": _standing(ordered),
        "timeline": [timeline_item(fact) for fact in ordered],
    }


def _as_fact(correction: CorrectionRow) -> FactRow:
    data = {
        "thread_id": correction.thread_id,
        "outcome": correction.outcome,
        "corrected_by": correction.corrected_by,
        "version": correction.version,
        "requested_at": format_instant(correction.requested_at),
    }
    return FactRow(
        thread_id=correction.thread_id,
        event_id=correction.command_id,
        type=OutcomeCorrectionRequestedV1.type,
        at=correction.requested_at,
        number=correction.version,
        cause_id=None,
        root_id=None,
        data=orjson.dumps(data).decode(),
    )


def _standing(facts: Iterable[FactRow]) -> Json | None:
    decided = [fact for fact in facts if fact.type == OutcomeDecidedV1.type]
    return _picked(orjson.loads(max(decided, key=_number).data), _OUTCOME_FIELDS) if decided else None


def _number(fact: FactRow) -> int:
    return fact.number


def _version(link: Link) -> tuple[int, datetime]:
    return link.fact.number, link.fact.at


def timeline_item(fact: FactRow) -> Json:
    """One event in a timeline: its envelope and its data."""
    return {**_envelope(fact), "data": orjson.loads(fact.data)}


def receipt_view(
    inmail_id: str,
    inmail: Inmail | None,
    receipt: Receipt,
    entries: Sequence[EntryRow],
    denial: DenialRow | None,
) -> Json:
    """An InMail's causal chain."""
    newest = max(receipt.outcomes, key=_version).data if receipt.outcomes else None
    return {
        "inmail_id": inmail_id,
        "inmail": None if inmail is None else _inmail(inmail),
        "events": [timeline_item(link.fact) for link in receipt.events],
        "answer": None if receipt.answer is None else _answer(receipt.answer),
        "outcome": None if newest is None else _picked(newest, _OUTCOME_FIELDS),
        "model_version": None if newest is None else newest.get("model_version"),
        "outcomes": [{"id": link.fact.event_id, **_picked(link.data, _OUTCOME_FIELDS)} for link in receipt.outcomes],
        "lock": None if receipt.lock is None else _lock(receipt.lock),
        "ledger": [entry_view(entry) for entry in entries],
        "denied": None if denial is None else {"reason": denial.reason, "at": format_instant(denial.at)},
        "notifications": _notifications(receipt.notifications),
        "pending": list(receipt.pending),
    }


def _inmail(inmail: Inmail) -> Json:
    return {
        "thread_id": inmail.thread_id,
        "contract_id": inmail.contract_id,
        "seat_id": inmail.seat_id,
        "kind": inmail.kind,
        "automated": inmail.automated,
        "credit_cost": inmail.credit_cost,
        "scheduled_at": _instant(inmail.scheduled_at),
        "sent_at": _instant(inmail.sent_at),
        "undelivered_at": _instant(inmail.undelivered_at),
        "withdrawn_at": _instant(inmail.withdrawn_at),
        "cancelled_at": _instant(inmail.cancelled_at),
    }


def _answer(link: Link) -> Json:
    data = link.data
    return {
        "id": link.fact.event_id,
        "reply_id": data["reply_id"],
        "sent_at": data["sent_at"],
        "choice": data.get("choice"),
        "content": data["content"],
        "first_response": data["first_response"],
    }


def _lock(link: Link) -> Json:
    return {
        "id": link.fact.event_id,
        "locked": link.fact.type.startswith("thread.locked."),
        "reply_id": link.data["reply_id"],
        "at": format_instant(link.fact.at),
    }


def _notifications(links: Sequence[Link]) -> list[Json]:
    retracted = {link.data["notification_id"] for link in links if link.fact.type == NotificationRetractedV1.type}
    return [
        {
            "id": link.fact.event_id,
            **_picked(link.data, _NOTIFICATION_FIELDS),
            "retracted": link.data["notification_id"] in retracted,
        }
        for link in links
        if link.fact.type == NotificationRequestedV1.type
    ]


def entry_view(entry: EntryRow) -> Json:
    """A line of the ledger with the balance after it."""
    return {
        "entry_id": entry.entry_id,
        "entry_number": entry.entry_number,
        "contract_id": entry.contract_id,
        "seat_id": entry.seat_id,
        "inmail_id": entry.inmail_id,
        "kind": entry.kind,
        "amount": entry.amount,
        "balance_after": {"available": entry.available, "held": entry.held},
        "cause_id": entry.cause_id,
        "effective_at": format_instant(entry.effective_at),
    }


def credits_view(contract_id: str, as_of: datetime, found: Credits) -> Json:
    """A contract's credits at an instant."""
    return {
        "contract_id": contract_id,
        "as_of": format_instant(as_of),
        "granted": found.granted,
        "available": found.available,
        "held": found.held,
        "open": found.open,
        "returned": found.returned,
        "lapsed": found.lapsed,
        "expired": found.expired,
    }


def rates_view(seat_id: str, as_of: datetime, rates: ResponseRates) -> Json:
    """A seat's response rates at an instant."""
    return {
        "seat_id": seat_id,
        "as_of": format_instant(as_of),
        "interval": "month",
        "pooled": _rate(rates.pooled),
        "report_30d": _rate(rates.report_30d),
        "mean_of_intervals": _rate(rates.mean_of_intervals),
    }


def _rate(rate: Rate) -> Json:
    return {"numerator": rate.numerator, "denominator": rate.denominator, "rate": rate.rate}


def _envelope(fact: FactRow) -> Json:
    return {
        "id": fact.event_id,
        "type": fact.type,
        "time": format_instant(fact.at),
        "cause_id": fact.cause_id,
        "root_id": fact.root_id,
    }


def _picked(data: Json, names: Iterable[str]) -> Json:
    """These fields, with null for those that the event left out."""
    return {name: data.get(name) for name in names}


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else format_instant(moment)

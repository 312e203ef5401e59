"""Lines about notifications: who is told what, where and when."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from deploy.traffic.expectation import Expectation, Reply, Seat
from deploy.verifier.line import Line, none, same
from deploy.verifier.observation import Derived, Observed
from deploy.verifier.outcomes import of_thread
from shared.events import format_instant, parse_instant, to_instant
from shared.topics import NOTIFICATION_REQUESTS

TEXTS: Final = {
    "candidate_interested": (
        "{who} is interested in starting a conversation. Please follow up soon to continue the conversation."
    ),
    "candidate_declined": "{who} declined your message.",
    "candidate_replied": "{who} replied to your message.",
}
REQUESTED: Final = "notification.requested.v1"
RETRACTED: Final = "notification.retracted.v1"


def kind_of(outcome: Derived) -> str:
    """The kind of notification that an outcome event asks for (R26)."""
    data = outcome.data
    if outcome.type == "outcome.unchanged.v1" or data.get("previous") == data["outcome"]:
        return "candidate_replied"
    return "candidate_interested" if data["outcome"] == "accepted" else "candidate_declined"


def notified(expected: Expectation, observed: Observed) -> Line:
    """Each recipient is told of each reply once on each channel, word for word."""
    replies = {reply.id: reply for thread in expected.threads.values() for reply in thread.replies}
    names = {inmail.id: inmail.name for inmail in expected.inmails}
    wanted = [
        (outcome.id, seat_id, channel, kind_of(outcome), _text(kind_of(outcome), names[reply.inmail_id]))
        for outcomes in of_thread(observed).values()
        for outcome in outcomes
        for reply in [replies[outcome.data["reply_id"]]]
        for seat_id in reply.audience
        for channel in expected.channels_of(seat_id)
    ]
    found = [
        (event.cause[1], event.subject, event.data["channel"], event.data["kind"], event.data["text"])
        for event in observed.of_type(NOTIFICATION_REQUESTS, REQUESTED)
    ]
    return same("each recipient is told once on each channel, word for word", wanted, found, "notifications")


def _text(kind: str, name: str | None) -> str:
    return TEXTS[kind].format(who="A candidate" if name is None else f"Candidate {name}")


def numbered(expected: Expectation, observed: Observed) -> Line:
    """Requests to one recipient and channel about a thread are numbered, and name what they supersede (R28)."""
    del expected
    return none("notifications are numbered and name what they supersede", _misnumbered(observed), "misnumbered one")


def _misnumbered(observed: Observed) -> Iterator[str]:
    newest: dict[tuple[str, str, str], tuple[int, str | None]] = {}
    for event in observed.of_type(NOTIFICATION_REQUESTS, REQUESTED):
        data = event.data
        slot = (event.subject, data["channel"], data["subject_key"])
        number, superseded = newest.get(slot, (0, None))
        tells = data["kind"] != "candidate_replied"
        if (data["version"], data.get("supersedes")) != (number + 1, superseded if tells else None):
            yield data["notification_id"]
        newest[slot] = (number + 1, data["notification_id"] if tells else superseded)


def quiet(expected: Expectation, observed: Observed) -> Line:
    """Nothing but the thread itself disturbs a seat in its quiet hours (R27)."""
    replies = {reply.id: reply for thread in expected.threads.values() for reply in thread.replies}
    by_id = {event.id: event for outcomes in of_thread(observed).values() for event in outcomes}
    wanted, found = [], []
    for event in observed.of_type(NOTIFICATION_REQUESTS, REQUESTED):
        reply, seat = replies[by_id[event.cause[1]].data["reply_id"]], expected.seats.get(event.subject)
        wanted.append((event.data["notification_id"], _deliver_after(seat, event.data["channel"], reply)))
        found.append((event.data["notification_id"], event.data.get("deliver_after")))
    return same("nothing but the thread disturbs quiet hours", wanted, found, "notifications")


def _deliver_after(seat: Seat | None, channel: str, reply: Reply) -> str | None:
    """The end of the quiet hours that a reply falls into. Ends are not placed in gaps or folds of the clock here."""
    if channel == "in_thread" or seat is None or seat.quiet is None:
        return None
    start, end = map(time.fromisoformat, seat.quiet)
    local = reply.sent_at.astimezone(ZoneInfo(seat.time_zone))
    now = local.time()
    if not (start <= now or now < end):
        return None
    day = local.date() + timedelta(days=1 if start <= now else 0)
    return format_instant(to_instant(datetime.combine(day, end, local.tzinfo)))


def retracted(expected: Expectation, observed: Observed) -> Line:
    """What still waited when the outcome changed is taken back, and nothing else (R28)."""
    del expected
    found = [event.data["notification_id"] for event in observed.of_type(NOTIFICATION_REQUESTS, RETRACTED)]
    return same("what still waits when an outcome changes is taken back", _stale(observed), found, "retractions")


def _stale(observed: Observed) -> Iterator[str]:
    requests: dict[str, list[Derived]] = {}
    for event in observed.of_type(NOTIFICATION_REQUESTS, REQUESTED):
        requests.setdefault(event.cause[1], []).append(event)
    for outcomes in of_thread(observed).values():
        waiting: dict[str, datetime] = {}
        for outcome in outcomes:
            decided_at = parse_instant(outcome.data["decided_at"])
            if kind_of(outcome) != "candidate_replied":
                stale = [found for found, due in waiting.items() if decided_at < due]
                yield from stale
                waiting = {found: due for found, due in waiting.items() if found not in stale}
            for request in requests.get(outcome.id, []):
                if "deliver_after" in request.data:
                    waiting[request.data["notification_id"]] = parse_instant(request.data["deliver_after"])

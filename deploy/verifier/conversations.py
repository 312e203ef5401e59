"""Lines about conversations: what became of the InMails, who is told, what is locked, what the newest state is."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from deploy.traffic.expectation import CREDIT_WINDOW, REPORT_WINDOW, Expectation, Inmail, Thread
from deploy.verifier.line import Line, same
from deploy.verifier.observation import Derived, Json, Observed
from shared.events import Outcome, format_instant
from shared.topics import CONVERSATION_EVENTS, THREAD_STATES

CLASSES = ("answered", "awaiting", "overtaken", "undelivered", "withdrawn")


def sent(expected: Expectation, observed: Observed) -> Line:
    """Every InMail sent is in exactly one class, as the conversation's events tell it.

    undelivered, whatever else; else answered by a human; else withdrawn; else overtaken, where another InMail of its
    thread was answered; else awaiting.
    """
    wanted = {i.id: t.class_of(i) for t in expected.threads.values() for i in t.inmails.values() if i.sent_at}
    found = _classes(observed)
    line = same("", wanted.items(), found.items(), "InMails")
    counts = Counter(found.values())
    said = f"{len(found):,} sent = " + " + ".join(f"{counts[name]:,} {name}" for name in CLASSES)
    name = "sent = answered + awaiting + overtaken + undelivered + withdrawn"
    return Line(name, line.holds and len(found) == counts.total(), line.expected, said if line.holds else line.actual)


def _classes(observed: Observed) -> dict[str, str]:
    """Class the InMails that were sent, by the events of conversations alone."""
    replies = observed.of_type(CONVERSATION_EVENTS, "reply.recorded.v1")
    human = [event for event in replies if event.data["content"] != "automated"]
    answers, talking = {e.data["inmail_id"] for e in human}, {e.subject for e in human}
    facts: dict[str, set[str]] = {}
    threads: dict[str, str] = {}
    for event in observed.of_type(CONVERSATION_EVENTS, "inmail.status_changed.v1"):
        facts.setdefault(event.data["inmail_id"], set()).add(event.data["status"])
        threads[event.data["inmail_id"]] = event.subject

    def class_of(inmail_id: str) -> str:
        if "undelivered" in facts[inmail_id]:
            return "undelivered"
        if inmail_id in answers:
            return "answered"
        if "withdrawn" in facts[inmail_id]:
            return "withdrawn"
        return "overtaken" if threads[inmail_id] in talking else "awaiting"

    return {inmail_id: class_of(inmail_id) for inmail_id, known in facts.items() if "sent" in known}


def answered(expected: Expectation, observed: Observed) -> Line:
    """Every reply is recorded once, for the InMail it answers, as what it is (R3, R9, R12)."""
    wanted = [(r.id, r.inmail_id, r.content) for t in expected.threads.values() for r in t.replies]
    wanted += [(r, i, "automated") for t in expected.threads.values() for r, i in t.automated.items()]
    found = [
        (e.data["reply_id"], e.data["inmail_id"], e.data["content"])
        for e in observed.of_type(CONVERSATION_EVENTS, "reply.recorded.v1")
    ]
    return same("every reply answers its InMail, read as what it is", wanted, found, "replies")


def awaiting(expected: Expectation, observed: Observed) -> Line:
    """The awaiting-reply folders hold exactly the threads that wait, the old ones marked as lapsed (R30)."""
    wanted = [
        (t.owner, t.id, "lapsed" if expected.until - _last_inmail(t) > CREDIT_WINDOW else "in time")
        for t in expected.threads.values()
        if t.inmails and not t.replies and t.unanswered_status == "awaiting_reply"
    ]
    found = [
        (seat_id, item["thread_id"], "lapsed" if item["lapsed"] else "in time")
        for seat_id, items in observed.answers.awaiting.items()
        for item in items
    ]
    return same("awaiting-reply folders hold the threads that wait", wanted, found, "threads")


def _last_inmail(thread: Thread) -> Any:
    return max(inmail.sent_at for inmail in thread.inmails.values() if inmail.waits and inmail.sent_at)


def audiences(expected: Expectation, observed: Observed) -> Line:
    """The last word on a thread's audience is its owner and followers."""
    wanted = [(t.id, t.owner, tuple(sorted(t.audience))) for t in expected.threads.values() if t.inmails]
    newest = {e.subject: e.data for e in observed.of_type(CONVERSATION_EVENTS, "thread.audience_changed.v1")}
    found = [
        (thread_id, data["owner_seat_id"], tuple(sorted({data["owner_seat_id"], *data["follower_seat_ids"]})))
        for thread_id, data in newest.items()
    ]
    return same("every thread has its owner and followers", wanted, found, "threads")


def locks(expected: Expectation, observed: Observed) -> Line:
    """Threads that end in a bare refusal are locked, and no others (R4 to R6)."""
    newest = {
        e.subject: e.type for e in observed.of_type(CONVERSATION_EVENTS, "thread.locked.v1", "thread.unlocked.v1")
    }
    return same(
        "locked are the threads whose last reply is a bare refusal",
        [thread.id for thread in expected.threads.values() if thread.locked],
        [thread_id for thread_id, type_name in newest.items() if type_name == "thread.locked.v1"],
        "locked threads",
    )


def cancelled(expected: Expectation, observed: Observed) -> Line:
    """Follow-ups that a reply made pointless are cancelled once (R16)."""
    wanted = [inmail.id for inmail in expected.inmails if inmail.cancelled]
    found = [e.data["inmail_id"] for e in observed.of_type(CONVERSATION_EVENTS, "follow_up.cancelled.v1")]
    return same("follow-ups that a reply made pointless are cancelled", wanted, found, "follow-ups")


def recruiter_messages(expected: Expectation, observed: Observed) -> Line:
    """Recruiters' further messages are accepted, or rejected for the right reason (R4, R20)."""
    wanted = [
        (message_id, reason or "accepted")
        for thread in expected.threads.values()
        for message_id, reason in thread.messages.items()
    ]
    found = [
        (e.data["message_id"], e.data.get("reason", "accepted"))
        for e in observed.of_type(CONVERSATION_EVENTS, "recruiter_message.accepted.v1", "recruiter_message.rejected.v1")
    ]
    return same("recruiters' messages are let through or rejected with the reason", wanted, found, "messages")


def drafts(expected: Expectation, observed: Observed) -> Line:
    """The compose view shows the newest draft until there is a reply (R2)."""
    found = observed.answers.selected
    wanted = {thread_id: expected.threads[thread_id].selected for thread_id in found}
    return same("the compose view shows the draft that stands", wanted.items(), found.items(), "threads asked")


def states(expected: Expectation, observed: Observed) -> Line:
    """The newest state of each thread on the topic is what the rules say of it."""
    outcomes = {e.subject: e.data["outcome"] for e in observed.of_type("inmail.outcome.events", "outcome.decided.v1")}
    wanted = [_expected_state(t, outcomes.get(t.id)) for t in expected.threads.values() if t.inmails]
    found = [_state(event.data) for event in _newest_states(observed).values()]
    return same("the newest state of every thread is what the rules say", wanted, found, "threads")


def _expected_state(thread: Thread, outcome: Outcome | None) -> tuple[Any, ...]:
    first = min((reply.sent_at for reply in thread.replies), default=None)
    inmail = next(iter(thread.inmails.values()))
    return (
        thread.id,
        thread.owner,
        inmail.contract_id,
        inmail.name or "A candidate",
        thread.unanswered_status if outcome is None else outcome,
        thread.locked,
        bool(thread.replies) and not thread.locked,
        None if first is None else format_instant(first),
    )


def _state(data: Json) -> tuple[Any, ...]:
    names = ("thread_id", "seat_id", "contract_id", "status", "locked", "can_reply")
    thread_id, seat_id, contract_id, status, locked, can_reply = (data[name] for name in names)
    name, first = data["candidate"].get("name"), data.get("first_response_at")
    return thread_id, seat_id, contract_id, name, status, locked, can_reply, first


def _newest_states(observed: Observed) -> dict[str, Derived]:
    """The last record of each key, as a compacted topic keeps it."""
    return {event.subject: event for event in observed.of_type(THREAD_STATES, "thread.state.v1")}


def states_by_http(expected: Expectation, observed: Observed) -> Line:
    """Folders, and the threads that were asked for, show the newest state on the topic."""
    del expected
    newest = {thread_id: event.data for thread_id, event in _newest_states(observed).items()}
    asked = observed.answers.threads
    wanted = [("folder", *_listed(data)) for data in newest.values()]
    wanted += [("thread", *_flat(newest[thread_id])) for thread_id in asked if thread_id in newest]
    found = [("folder", *_listed(item)) for items in observed.answers.folders.values() for item in items]
    found += [("thread", *_flat(answer["state"])) for answer in asked.values()]
    return same("the newest state on the topic is what HTTP answers", wanted, found, "answers")


def _listed(data: Json) -> tuple[Any, ...]:
    """What a folder shows of a state."""
    return (*_state(data), data["last_inmail_at"], data["outcome_version"])


def _flat(data: Json) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(data.items()):
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", v) for inner, v in sorted(value.items()) if v is not None)
        elif value is not None:
            yield name, value


def rates(expected: Expectation, observed: Observed) -> Line:
    """Response rates count each InMail for the seat that sent it (R17 to R19, R31)."""
    wanted = []
    for seat_id in observed.answers.rates:
        counted = [inmail for inmail in expected.inmails if inmail.seat_id == seat_id and inmail.counts]
        in_report = [inmail for inmail in counted if _answered_within_report(inmail)]
        answered_ones = [inmail for inmail in counted if inmail.answers]
        wanted.append((seat_id, len(answered_ones), len(counted), len(in_report), len(counted)))
    found = [
        (
            seat_id,
            rate["pooled"]["numerator"],
            rate["pooled"]["denominator"],
            rate["report_30d"]["numerator"],
            rate["report_30d"]["denominator"],
        )
        for seat_id, rate in observed.answers.rates.items()
    ]
    return same("response rates are answered over sent, per seat", wanted, found, "seats")


def _answered_within_report(inmail: Inmail) -> bool:
    return inmail.sent_at is not None and any(at - inmail.sent_at <= REPORT_WINDOW for at in inmail.answers)

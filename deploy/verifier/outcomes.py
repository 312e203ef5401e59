"""Lines about outcomes. What the model makes of own words cannot be known here; that all of it agrees can."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

from deploy.traffic.expectation import Expectation, Reply, Thread
from deploy.verifier.line import Line, none, same
from deploy.verifier.observation import Derived, Observed
from shared.topics import CLASSIFICATION_REQUESTS, OUTCOME_EVENTS

OUTCOME_OF: Final = {"interested": "accepted", "not_interested": "declined"}
LABELS: Final = ("accepted", "declined")


class Told(NamedTuple):
    """What an outcome event says of a reply."""

    reply_id: str
    decided: bool
    outcome: str
    previous: str | None
    version: int


def of_thread(observed: Observed) -> dict[str, list[Derived]]:
    """The outcome events of each thread, in their order."""
    found: dict[str, list[Derived]] = {}
    for event in observed.of_type(OUTCOME_EVENTS, "outcome.decided.v1", "outcome.unchanged.v1"):
        found.setdefault(event.subject, []).append(event)
    return found


def asked_and_answered(expected: Expectation, observed: Observed) -> Line:
    """Every human reply is a classification request, and every request has exactly one answer."""
    requests = observed.of_type(CLASSIFICATION_REQUESTS, "classification.requested.v1")
    wanted = [("asked", reply.id) for thread in expected.threads.values() for reply in thread.replies]
    wanted += [("answered", event.id) for event in requests]
    answers = observed.of_type(OUTCOME_EVENTS, "outcome.decided.v1", "outcome.unchanged.v1")
    found = [("asked", event.data["reply_id"]) for event in requests]
    found += [("answered", event.cause[1]) for event in answers]
    return same("every classification request is answered exactly once", wanted, found, "requests and answers")


def choices(expected: Expectation, observed: Observed) -> Line:
    """An explicit choice decides at once and for certain, and stands where it is the last word (R1, R8)."""
    newest = {subject: _last_decided(events) for subject, events in of_thread(observed).items()}
    decided = {event.data["reply_id"]: event.data for events in of_thread(observed).values() for event in events}
    wanted: list[tuple[Any, ...]] = []
    found: list[tuple[Any, ...]] = []
    for thread in expected.threads.values():
        for place, reply in enumerate(thread.replies):
            if reply.choice is None or any(other.place > reply.place for other in thread.replies[:place]):
                continue
            data = decided.get(reply.id, {})
            wanted.append((reply.id, OUTCOME_OF[reply.choice], "choice", 1.0))
            found.append((reply.id, data.get("outcome"), data.get("source"), data.get("confidence")))
        last = thread.newest_reply
        if last is not None and last.choice is not None:
            wanted.append((thread.id, OUTCOME_OF[last.choice]))
            found.append((thread.id, newest.get(thread.id)))
    return same("explicit choices have the outcome that was chosen", wanted, found, "choices and last words")


def _last_decided(events: Sequence[Derived]) -> str | None:
    return next((e.data["outcome"] for e in reversed(events) if e.type == "outcome.decided.v1"), None)


def own_words(expected: Expectation, observed: Observed) -> Line:
    """For some reading of every text, all outcome events of a thread are what R8 makes of it, in order."""
    told = of_thread(observed)
    faults = [
        f"{thread.id} fits no reading of its {len(thread.replies)} replies"
        for thread in expected.threads.values()
        if thread.replies and not _fits(thread, [_told(event) for event in told.get(thread.id, [])])
    ]
    faults += [f"{thread_id} has an outcome" for thread_id in told if not expected.threads[thread_id].replies]
    line = none("own words are read once, and outcomes follow from all that was said", faults, "contradiction")
    read = sum(reply.choice is None for thread in expected.threads.values() for reply in thread.replies)
    return Line(line.name, line.holds, line.expected, f"{line.actual}; {read:,} texts read")


def _told(event: Derived) -> Told:
    data = event.data
    decided = event.type == "outcome.decided.v1"
    return Told(data["reply_id"], decided, data["outcome"], data.get("previous"), data["version"])


def _fits(thread: Thread, told: Sequence[Told]) -> bool:
    unknown = [reply.id for reply in thread.replies if reply.choice is None]
    known = {reply.id: OUTCOME_OF[reply.choice] for reply in thread.replies if reply.choice is not None}
    return any(
        list(_expected(thread.replies, known | dict(zip(unknown, labels, strict=True)))) == list(told)
        for labels in product(LABELS, repeat=len(unknown))
    )


def _expected(replies: Sequence[Reply], labels: Mapping[str, str]) -> Iterator[Told]:
    """Fold the replies as they arrived, one more each time (R8)."""
    standing, version = None, 0
    for place, reply in enumerate(replies):
        outcome = _fold(replies[: place + 1], labels)
        on_time = all(other.place < reply.place for other in replies[:place])
        if outcome != standing or (reply.choice is not None and on_time):
            version += 1
            yield Told(reply.id, decided=True, outcome=outcome, previous=standing, version=version)
        else:
            yield Told(reply.id, decided=False, outcome=outcome, previous=None, version=version)
        standing = outcome


def _fold(replies: Sequence[Reply], labels: Mapping[str, str]) -> str:
    """The outcome of a thread: an explicit choice decides, a message only turns a refusal or what is still open."""
    outcome = ""
    for reply in sorted(replies, key=lambda each: each.place):
        if reply.choice is not None or outcome != "accepted":
            outcome = labels[reply.id]
    return outcome

"""The outcome of a thread: what its replies, in the order they were sent, say taken together (R1, R7, R8, R29).

A thread's outcome is a fold over its replies in the order (responded_at, reply_id). It is published in versions:
whoever read the versions in order ends with the fold's outcome, however the replies arrived.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal
from uuid import UUID, uuid5

from shared.events import (
    Candidate,
    Choice,
    ClassificationRequestedV1,
    CorrectionRejection,
    Outcome,
    OutcomeCorrectionRejectedV1,
    OutcomeCorrectionRequestedV1,
    OutcomeDecidedV1,
    OutcomeSource,
    OutcomeUnchangedV1,
)
from shared.rules import OUTCOME_OF_CHOICE, correction_rejection

Place = tuple[datetime, str]
"""Where a reply stands among the replies of its thread: (responded_at, reply_id)."""

OUTCOME_OF_LABEL: Final[dict[Literal["accept", "decline"], Outcome]] = {"accept": "accepted", "decline": "declined"}
_OUTCOME_IDS: Final = UUID("8a0e1f5e-6f0b-5c11-9f0c-3c6f0d1f4a77")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one reply, or one human, says by itself."""

    outcome: Outcome
    source: OutcomeSource
    confidence: float
    needs_confirmation: bool = False
    signals: tuple[str, ...] = ()
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it is kept: its place and its verdict, never its text."""

    reply_id: str
    responded_at: datetime
    verdict: Verdict

    @property
    def place(self) -> Place:
        """Where it stands in its thread."""
        return (self.responded_at, self.reply_id)


@dataclass(frozen=True, slots=True)
class Correction:
    """A human's word: it stands after every reply that was known when it was taken."""

    outcome: Outcome
    after: Place


@dataclass(frozen=True, slots=True)
class Folded:
    """A thread's outcome after some of its replies."""

    outcome: Outcome
    by_human: bool
    """Only an explicit choice changes it now."""
    reply: Reply | None
    """The reply that set it; None for a human's word."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest published version of a thread's outcome, and the reply it was published for."""

    outcome_id: str
    version: int
    verdict: Verdict
    reply_id: str
    inmail_id: str
    contract_id: str
    seat_id: str
    candidate_id: str
    thread_version: int
    responded_at: datetime


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread with at least one reply. The fold's outcome is always that of the newest version."""

    standing: Standing
    newest: Place
    """Of its replies, the last in order."""
    by_human: bool
    """Whether the fold ends in a human's word. The version's source does not tell: when a late choice agrees with a
    correction no version is published, but later messages count again."""
    correction: Correction | None = None
    """The newest one; those before it no longer matter, for it stands after all that they stand after."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The thread as it is now, and the one event that answers the request."""

    thread: Thread
    event: OutcomeDecidedV1 | OutcomeUnchangedV1


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a correction: the thread as it is now (None for one without replies), and the event."""

    thread: Thread | None
    event: OutcomeDecidedV1 | OutcomeCorrectionRejectedV1


def chosen(choice: Choice) -> Verdict:
    """R1: a smart reply says what its choice says, whatever its text."""
    return Verdict(outcome=OUTCOME_OF_CHOICE[choice], source="choice", confidence=1.0)


def fold(replies: Iterable[Reply], correction: Correction | None = None) -> Folded | None:
    """Give the outcome of a thread whose replies came in any order; None without a reply."""
    folded = None if correction is None else Folded(correction.outcome, by_human=True, reply=None)
    for reply in sorted(replies, key=lambda each: each.place):
        if correction is None or reply.place > correction.after:
            folded = _after(folded, reply)
    return folded


def _after(folded: Folded | None, reply: Reply) -> Folded:
    """R8 and R29, for one reply more, later than all before it."""
    verdict = reply.verdict
    if folded is None or verdict.source == "choice":
        return Folded(verdict.outcome, by_human=False, reply=reply)
    if folded.by_human or folded.outcome == "accepted" or verdict.outcome == "declined":
        return folded
    return Folded(verdict.outcome, by_human=False, reply=reply)


def is_late(thread: Thread | None, request: ClassificationRequestedV1) -> bool:
    """Whether a reply that comes later in the thread has been answered already: only then its history matters."""
    return thread is not None and place_of(request) <= thread.newest


def place_of(request: ClassificationRequestedV1) -> Place:
    """Where the requested reply stands in its thread."""
    return (request.responded_at, request.reply_id)


def answer(
    thread: Thread | None,
    request: ClassificationRequestedV1,
    verdict: Verdict,
    *,
    name: str | None,
    history: Sequence[Reply] = (),
) -> Answer:
    """Decide a reply that was not answered before.

    `history` are the thread's answered replies; it is looked at only when `is_late`. `name` is the candidate's, None
    when it may not be told any more.
    """
    reply = Reply(request.reply_id, request.responded_at, verdict)
    if thread is None:
        thread_after = Thread(_first(request, verdict), newest=reply.place, by_human=False)
        return Answer(
            thread_after, _decided(thread_after.standing, request.thread_id, name, request.responded_at, None)
        )
    if is_late(thread, request):
        folded = fold((*history, reply), thread.correction)
        changed = folded is not None and folded.outcome != thread.standing.verdict.outcome
    else:
        folded = _after(Folded(thread.standing.verdict.outcome, thread.by_human, reply=None), reply)
        changed = folded.reply is reply  # an explicit choice sets a version even when it is an equal one
    if folded is None:
        message = f"a thread with replies has no outcome: {request.thread_id}"
        raise AssertionError(message)
    after = replace(thread, newest=max(thread.newest, reply.place), by_human=folded.by_human)
    if not changed:
        return Answer(after, _unchanged(thread.standing, request, name))
    if folded.reply is None:
        message = f"a late reply changed the outcome to a human's: {request.reply_id}"
        raise AssertionError(message)
    standing = _next(thread.standing, request, folded.reply.verdict)
    previous = thread.standing.verdict.outcome
    event = _decided(standing, request.thread_id, name, request.responded_at, previous)
    return Answer(replace(after, standing=standing), event)


def correct(thread: Thread | None, command: OutcomeCorrectionRequestedV1, *, name: str | None) -> Ruling:
    """R29: take a human's correction of a classifier's outcome, or say why not."""
    reason = rejection(thread, command)
    if thread is None or reason is not None:
        rejected = OutcomeCorrectionRejectedV1(
            thread_id=command.thread_id,
            version=command.version,
            outcome=command.outcome,
            corrected_by=command.corrected_by,
            reason=reason or "NOT_CLASSIFIED",
            thread_version=0 if thread is None else thread.standing.thread_version,
            at=command.requested_at,
        )
        return Ruling(thread, rejected)
    version = thread.standing.version + 1
    standing = replace(
        thread.standing,
        outcome_id=outcome_id(command.thread_id, version),
        version=version,
        verdict=Verdict(command.outcome, source="human", confidence=1.0),
    )
    corrected = replace(
        thread, standing=standing, by_human=True, correction=Correction(command.outcome, after=thread.newest)
    )
    previous = thread.standing.verdict.outcome
    return Ruling(corrected, _decided(standing, command.thread_id, name, command.requested_at, previous))


def rejection(thread: Thread | None, command: OutcomeCorrectionRequestedV1) -> CorrectionRejection | None:
    """Say why a correction is not taken; None when it is."""
    if thread is None:
        return "NOT_CLASSIFIED"
    verdict = thread.standing.verdict
    return correction_rejection(
        outcome=verdict.outcome,
        source=verdict.source,
        version=thread.standing.version,
        seen_version=command.version,
        wanted=command.outcome,
    )


def outcome_id(thread_id: str, version: int) -> str:
    """Name a version of a thread's outcome: the same one in every run."""
    return str(uuid5(_OUTCOME_IDS, f"{version}\n{thread_id}"))


def _first(request: ClassificationRequestedV1, verdict: Verdict) -> Standing:
    return Standing(
        outcome_id=outcome_id(request.thread_id, 1),
        version=1,
        verdict=verdict,
        reply_id=request.reply_id,
        inmail_id=request.inmail_id,
        contract_id=request.contract_id,
        seat_id=request.seat_id,
        candidate_id=request.candidate.id,
        thread_version=request.thread_version,
        responded_at=request.responded_at,
    )


def _next(standing: Standing, request: ClassificationRequestedV1, verdict: Verdict) -> Standing:
    version = standing.version + 1
    return replace(_first(request, verdict), outcome_id=outcome_id(request.thread_id, version), version=version)


def _decided(
    standing: Standing, thread_id: str, name: str | None, decided_at: datetime, previous: Outcome | None
) -> OutcomeDecidedV1:
    verdict = standing.verdict
    return OutcomeDecidedV1(
        outcome_id=standing.outcome_id,
        thread_id=thread_id,
        inmail_id=standing.inmail_id,
        reply_id=standing.reply_id,
        contract_id=standing.contract_id,
        seat_id=standing.seat_id,
        candidate=Candidate(id=standing.candidate_id, name=name),
        outcome=verdict.outcome,
        previous=previous,
        source=verdict.source,
        confidence=verdict.confidence,
        needs_confirmation=verdict.needs_confirmation,
        signals=verdict.signals,
        model_version=verdict.model_version,
        version=standing.version,
        thread_version=standing.thread_version,
        responded_at=standing.responded_at,
        decided_at=decided_at,
    )


def _unchanged(standing: Standing, request: ClassificationRequestedV1, name: str | None) -> OutcomeUnchangedV1:
    verdict = standing.verdict
    return OutcomeUnchangedV1(
        outcome_id=standing.outcome_id,
        thread_id=request.thread_id,
        inmail_id=request.inmail_id,
        reply_id=request.reply_id,
        contract_id=request.contract_id,
        seat_id=request.seat_id,
        candidate=Candidate(id=request.candidate.id, name=name),
        outcome=verdict.outcome,
        source=verdict.source,
        confidence=verdict.confidence,
        needs_confirmation=verdict.needs_confirmation,
        signals=verdict.signals,
        model_version=verdict.model_version,
        version=standing.version,
        thread_version=request.thread_version,
        responded_at=request.responded_at,
        decided_at=request.responded_at,
    )

"""Outcomes of threads, their versions, and human corrections."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.events.base import Candidate, EventData, Id, Number, NumberOrNone, Outcome
from shared.events.times import Instant

OutcomeSource = Literal["choice", "classifier", "human"]
CorrectionRejection = Literal["STALE_VERSION", "NOT_CLASSIFIED", "SAME_VALUE"]
Confidence = Annotated[float, Field(ge=0.0, le=1.0)]


class _Outcome(EventData):
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "decided_at"

    outcome_id: Id
    thread_id: Id
    inmail_id: Id
    reply_id: Id
    contract_id: Id
    seat_id: Id
    candidate: Candidate
    outcome: Outcome
    source: OutcomeSource
    confidence: Confidence
    needs_confirmation: bool
    signals: tuple[str, ...]
    model_version: str | None = None
    version: Number
    thread_version: Number
    responded_at: Instant
    decided_at: Instant


class OutcomeDecidedV1(_Outcome):
    """A thread has a new version of its outcome; `previous` is that of the version before."""

    type: ClassVar[str] = "outcome.decided.v1"

    previous: Outcome | None = None


class OutcomeUnchangedV1(_Outcome):
    """A reply left the outcome as it stands.

    reply_id, inmail_id, thread_version, responded_at and decided_at are the reply's, the rest the standing outcome's.
    """

    type: ClassVar[str] = "outcome.unchanged.v1"


class OutcomeCorrectionRequestedV1(EventData):
    """A human says that the outcome of `version` should be another one (R29)."""

    type: ClassVar[str] = "outcome.correction_requested.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "requested_at"

    thread_id: Id
    outcome: Outcome
    corrected_by: Id
    version: Number
    requested_at: Instant


class OutcomeCorrectionRejectedV1(EventData):
    """A correction was not taken.

    `thread_version` is that of the reply that the standing outcome answers, 0 where there is none.
    """

    type: ClassVar[str] = "outcome.correction_rejected.v1"
    key_field: ClassVar[str] = "thread_id"
    time_field: ClassVar[str | None] = "at"

    thread_id: Id
    version: Number
    outcome: Outcome
    corrected_by: Id
    reason: CorrectionRejection
    thread_version: NumberOrNone
    at: Instant

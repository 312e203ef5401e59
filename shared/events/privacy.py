"""Erasures."""

from typing import ClassVar

from shared.events.base import EventData, Id
from shared.events.times import Instant


class CandidateErasedV1(EventData):
    """A candidate's name and words must no longer be shown (R32)."""

    type: ClassVar[str] = "candidate.erased.v1"
    key_field: ClassVar[str] = "candidate_id"
    time_field: ClassVar[str | None] = "erased_at"

    candidate_id: Id
    erased_at: Instant

"""The newest state of each thread."""

from typing import ClassVar, Literal

from shared.events.base import Candidate, EventData, Id, Number, NumberOrNone
from shared.events.times import Instant

ThreadStatus = Literal["scheduled", "awaiting_reply", "accepted", "declined", "responded", "closed"]


class ThreadStateV1(EventData):
    """What a thread looks like now. `seat_id` is its owner; `outcome_version` is 0 before the first outcome."""

    type: ClassVar[str] = "thread.state.v1"
    key_field: ClassVar[str] = "thread_id"

    thread_id: Id
    contract_id: Id
    seat_id: Id
    candidate: Candidate
    status: ThreadStatus
    locked: bool
    can_reply: bool
    last_inmail_at: Instant
    first_response_at: Instant | None = None
    outcome_version: NumberOrNone
    thread_version: Number

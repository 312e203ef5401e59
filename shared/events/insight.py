"""Live windowed rates."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.events.base import Count, EventData, Id, Part
from shared.events.times import Instant

Window = Literal["5m", "1h", "1d"]
Seconds = Annotated[float, Field(ge=0.0)]


class ResponseSeconds(Part):
    """Quantiles of the time from an InMail to its answer; absent while nothing was answered."""

    p50: Seconds | None = None
    p95: Seconds | None = None


class InsightWindowV1(EventData):
    """A seat's counts in one window; the newest per (seat_id, window, window_start) counts.

    `low_confidence` says that the window holds too few InMails for its rates to mean much.
    """

    type: ClassVar[str] = "insight.window.v1"
    key_field: ClassVar[str] = "seat_id"

    seat_id: Id
    contract_id: Id
    window: Window
    window_start: Instant
    sent: Count
    answered: Count
    accepted: Count
    declined: Count
    response_seconds: ResponseSeconds
    low_confidence: bool

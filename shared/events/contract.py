"""Contracts, their credits' refreshes, seats and preferences, as upstream tells them."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from shared.events.base import Count, EventData, Id, Part
from shared.events.times import Instant

CAP_MULTIPLE_DEFAULT = 4

PushedChannel = Literal["push", "email", "webhook"]
Digest = Literal["off", "hourly", "daily"]
Period = Annotated[
    str,
    Field(pattern=r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])$", description="A month of UTC.", examples=["2026-01"]),
]
ClockTime = Annotated[
    str,
    Field(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="In the seat's time zone.", examples=["08:00", "23:59"]
    ),
]


class ContractStartedV1(EventData):
    """A customer's contract began. Its first period's credits are granted with it (R23)."""

    type: ClassVar[str] = "contract.started.v1"
    key_field: ClassVar[str] = "contract_id"
    time_field: ClassVar[str | None] = "started_at"

    contract_id: Id
    name: str
    monthly_allotment: Count
    cap_multiple: Count = CAP_MULTIPLE_DEFAULT
    started_at: Instant


class CreditsRefreshedV1(EventData):
    """A contract's credits of a month are due."""

    type: ClassVar[str] = "credits.refreshed.v1"
    key_field: ClassVar[str] = "contract_id"
    time_field: ClassVar[str | None] = "refreshed_at"

    contract_id: Id
    period: Period
    refreshed_at: Instant


class ContractEndedV1(EventData):
    """A contract is over."""

    type: ClassVar[str] = "contract.ended.v1"
    key_field: ClassVar[str] = "contract_id"
    time_field: ClassVar[str | None] = "ended_at"

    contract_id: Id
    ended_at: Instant


class SeatAssignedV1(EventData):
    """A recruiter holds a seat of a contract. `monthly_limit` is in InMails; absent means none."""

    type: ClassVar[str] = "seat.assigned.v1"
    key_field: ClassVar[str] = "contract_id"
    time_field: ClassVar[str | None] = "assigned_at"

    seat_id: Id
    contract_id: Id
    name: str
    locale: str | None = None
    time_zone: str | None = None
    monthly_limit: Count | None = None
    assigned_at: Instant


class QuietHours(Part):
    """From `start` until `end` in the seat's time zone, across midnight where `end` is the earlier one."""

    start: ClockTime
    end: ClockTime


def _as_set(channels: tuple[PushedChannel, ...]) -> tuple[PushedChannel, ...]:
    return tuple(sorted(set(channels)))


class SeatPreferencesSetV1(EventData):
    """How a seat wants to be notified. `channels` is a set: sorted, without repeats."""

    type: ClassVar[str] = "seat.preferences_set.v1"
    key_field: ClassVar[str] = "contract_id"
    time_field: ClassVar[str | None] = "set_at"

    seat_id: Id
    contract_id: Id
    channels: Annotated[tuple[PushedChannel, ...], AfterValidator(_as_set)]
    quiet_hours: QuietHours | None = None
    digest: Digest
    set_at: Instant

"""The customers of a scenario: contracts with their credits, seats and preferences, and what becomes of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from deploy.traffic.records import Fact
from deploy.traffic.talk import Desk

STARTED_BEFORE: Final = timedelta(days=125)
CAP_MULTIPLE: Final = 4
# What a large contract's InMails leave of its credits at the most: some reserve for chance.
RESERVE: Final = 1.4
ALLOTMENT_MIN: Final = 10

_ZONES: Final = ("Europe/London", "Europe/Madrid", "Europe/Paris", "Europe/Berlin", "America/Sao_Paulo")
_RECRUITERS: Final = ("Robin Archer", "Nuria Costa", "Elias Brandt", "Margaux Petit", "Tomás Leal")
# Channels beside the thread itself, and quiet hours, dealt out in turn.
_PREFERENCES: Final[tuple[tuple[tuple[str, ...], tuple[str, str] | None], ...]] = (
    (("push", "email"), ("20:00", "07:30")),
    (("email",), None),
    ((), None),
    (("webhook", "push"), None),
    (("push",), ("22:00", "06:00")),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A contract. `fate` says what is special: it is small, has ended, ends later, or is told of too late (R21)."""

    contract_id: str
    name: str
    seats: int
    fate: str = "ordinary"

    @property
    def seat_ids(self) -> list[str]:
        """Its recruiters."""
        return [f"{self.contract_id}/seat-{number}" for number in range(1, self.seats + 1)]

    def desk(self, number: int) -> Desk:
        """Give one recruiter's desk."""
        seat_ids = self.seat_ids
        own = seat_ids[number % len(seat_ids)]
        return Desk(self.contract_id, own, tuple(seat_id for seat_id in seat_ids if seat_id != own))


LARGE: Final = (
    Place("northwind", "Northwind Robotics", 5),
    Place("alder", "Alder & Finch", 5),
    Place("kepler", "Kepler Analytik GmbH", 5),
    Place("lumiere", "Lumière Santé", 4, fate="ends later"),
)
SMALL: Final = (
    Place("bakery", "Baker Street Bakery", 3, fate="small"),
    Place("harbour", "Old Harbour Shipping", 3, fate="ended"),
    Place("morgenrot", "Morgenrot Energie", 3, fate="told late"),
)
SMALL_ALLOTMENT: Final = 2


@dataclass(frozen=True, slots=True)
class Calendar:
    """When contracts begin, are refreshed and end, counted back from the scenario's end."""

    until: datetime

    @property
    def started_at(self) -> datetime:
        """The start of every contract."""
        return self.until - STARTED_BEFORE

    def refreshes(self) -> list[datetime]:
        """The first instant of each month after the start's."""
        found, at = list[datetime](), self.started_at
        while True:
            first = (at.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
            if first > self.until:
                return found
            found.append(first)
            at = first


def before(places: tuple[Place, ...], calendar: Calendar, *, allotment: int) -> Iterator[Fact]:
    """Tell of all contracts but the one that is told of too late: starts, seats, preferences, all months but one."""
    for place in places:
        if place.fate == "told late":
            continue
        yield from _began(place, calendar, allotment)
        yield from _preferences(place, calendar)
        refreshes = calendar.refreshes()[:-1]
        if place.fate != "ended":
            yield from (_refresh(place, at) for at in refreshes)
        else:
            yield _refresh(place, refreshes[0])
            yield _fact(place, "contract.ended.v1", "ended_at", refreshes[0] + timedelta(days=1))


def afterwards(places: tuple[Place, ...], calendar: Calendar, *, allotment: int) -> Iterator[Fact]:
    """Tell of the late contract, refresh the newest month, and end what ends."""
    for place in places:
        if place.fate == "told late":
            yield from _began(place, calendar, allotment)
        if place.fate != "ended":
            yield _refresh(place, calendar.refreshes()[-1])
        if place.fate == "ends later":
            yield _fact(place, "contract.ended.v1", "ended_at", calendar.until)


def _began(place: Place, calendar: Calendar, allotment: int) -> Iterator[Fact]:
    monthly = SMALL_ALLOTMENT if place.fate == "small" else allotment
    yield _fact(
        place,
        "contract.started.v1",
        "started_at",
        calendar.started_at,
        name=place.name,
        monthly_allotment=monthly,
        cap_multiple=CAP_MULTIPLE,
    )
    for number, seat_id in enumerate(place.seat_ids):
        yield _fact(
            place,
            "seat.assigned.v1",
            "assigned_at",
            calendar.started_at,
            seat_id=seat_id,
            name=_RECRUITERS[number % len(_RECRUITERS)],
            locale="en",
            time_zone=_ZONES[number % len(_ZONES)],
        )


def _preferences(place: Place, calendar: Calendar) -> Iterator[Fact]:
    """Every seat but the last says how it wants to be told."""
    for number, seat_id in enumerate(place.seat_ids[:-1]):
        channels, quiet = _PREFERENCES[number % len(_PREFERENCES)]
        hours = {} if quiet is None else {"quiet_hours": {"start": quiet[0], "end": quiet[1]}}
        yield _fact(
            place,
            "seat.preferences_set.v1",
            "set_at",
            calendar.started_at + timedelta(hours=1),
            seat_id=seat_id,
            channels=list(channels),
            digest="off",
            **hours,
        )


def _refresh(place: Place, at: datetime) -> Fact:
    return _fact(place, "credits.refreshed.v1", "refreshed_at", at, period=f"{at:%Y-%m}")


def _fact(place: Place, type_name: str, time_field: str, at: datetime, **data: Any) -> Fact:
    fact_id = f"{place.contract_id}/{type_name}/{data.get('seat_id', '')}{at:%Y%m%d%H%M}"
    return Fact(type_name, fact_id, at, {"contract_id": place.contract_id, **data, time_field: at})

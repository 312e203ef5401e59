"""When a seat is told (R27): arithmetic of wall clocks, time zones, quiet hours and digests.

Everything rests on one question: when does a zone's wall clock first show a time or a later one. A time inside a gap
is answered with the first instant after it, one inside a fold with its first occurrence. Quiet hours are therefore
spans of instants and not of wall times: they end once, also in the night in which the clock shows their end twice.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from shared.events import Digest

DIGEST_OF_DAY: Final = time(8, 0)

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_ZONES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` up to, not including, `end` on the seat's wall clock, past midnight where `end` is the earlier one.

    Equal ones mean no quiet hours: a seat that is never to be told has no channels.
    """

    start: time
    end: time


@lru_cache(_ZONES_MAX)
def zone_named(name: str) -> ZoneInfo | None:
    """Give the time zone of that name, None where there is none."""
    if name == "localtime":
        return None  # on some systems a zone file, which says where the machine stands and not the seat
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a name at all, a folder of zones or too long for a file
        return None


def first_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Give the first instant at which the clock of `zone` shows `wall` (without tzinfo) or a later time."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if _wall(instant, zone) == wall:
        return instant
    # In a gap. Read with the offset after it, the time lies before the gap; with the offset before it, after the gap.
    before, after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if _wall(middle, zone) < wall:
            before = middle
        else:
            after = middle
    return after


def quiet_until(instant: datetime, quiet: QuietHours | None, zone: tzinfo) -> datetime | None:
    """Give the end of the quiet hours that `instant` lies in, None where it lies in none."""
    if quiet is None:
        return None
    until, ended = instant, _end_of_span(instant, quiet, zone)
    while ended is not None:  # a gap can bring one day's end and the next start together
        until, ended = ended, _end_of_span(ended, quiet, zone)
    return until if until > instant else None


def deliver_after(instant: datetime, *, quiet: QuietHours | None, digest: Digest, zone: tzinfo) -> datetime | None:
    """Say until when a request of `instant` waits, None where it can go out at once."""
    if digest == "hourly":
        return _next_hour(instant, quiet, zone)
    if digest == "daily":
        return _next_morning(instant, quiet, zone)
    return quiet_until(instant, quiet, zone)


def _next_hour(instant: datetime, quiet: QuietHours | None, zone: tzinfo) -> datetime:
    """The first full hour after `instant` that is not quiet; where all are, the end of the quiet hours."""
    hour = _full_hour(instant + _MILLISECOND, zone)
    ended = quiet_until(hour, quiet, zone)
    if ended is None:
        return hour
    hour = _full_hour(ended, zone)
    return hour if quiet_until(hour, quiet, zone) is None else ended


def _next_morning(instant: datetime, quiet: QuietHours | None, zone: tzinfo) -> datetime:
    """The first 08:00 after `instant`; where that is quiet, the end of those quiet hours."""
    morning = datetime.combine(_wall(instant, zone).date() - _DAY, DIGEST_OF_DAY)  # yesterday's may be put off till now
    while True:
        due = first_instant(morning, zone)
        due = quiet_until(due, quiet, zone) or due
        if due > instant:
            return due
        morning += _DAY


def _end_of_span(instant: datetime, quiet: QuietHours, zone: tzinfo) -> datetime | None:
    """Give the end of the span that began last, None where it has ended: the ones before it ended no later."""
    # From tomorrow on: where the clock is set back over midnight, tomorrow's may have begun.
    today = _wall(instant, zone).date()
    for day in (today + _DAY, today, today - _DAY):
        if first_instant(datetime.combine(day, quiet.start), zone) <= instant:
            overnight = _DAY if quiet.end < quiet.start else timedelta()
            end = first_instant(datetime.combine(day + overnight, quiet.end), zone)
            return end if instant < end else None
    return None


def _full_hour(instant: datetime, zone: tzinfo) -> datetime:
    """The first instant from `instant` on at which the wall clock shows a full hour."""
    wall = _wall(instant, zone)
    past = wall - wall.replace(minute=0, second=0, microsecond=0)
    # Again, because some clocks are moved by half an hour.
    return _full_hour(instant + _HOUR - past, zone) if past else instant


def _wall(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)

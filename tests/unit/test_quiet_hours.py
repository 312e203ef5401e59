"""Quiet hours and digests on real time zones; each case is a line that anybody can check with a calendar."""

from datetime import UTC, datetime, time

import pytest

from services.notification.quiet_hours import QuietHours, deliver_after, first_instant, quiet_until, zone_named
from shared.events import Digest


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(text: str) -> QuietHours:
    start, end = text.split("-")
    return QuietHours(time.fromisoformat(start), time.fromisoformat(end))


def waits(instant: str, quiet: str | None, zone: str, digest: Digest = "off") -> str | None:
    """Until when a request of `instant` waits; both in UTC."""
    found = zone_named(zone)
    assert found is not None
    due = deliver_after(utc(instant), quiet=None if quiet is None else hours(quiet), digest=digest, zone=found)
    return None if due is None else due.replace(tzinfo=None).isoformat(" ", "milliseconds").removesuffix(":00.000")


@pytest.mark.parametrize(
    ("instant", "quiet", "zone", "until"),
    [
        ("2026-01-15 20:59:59.999", "22:00-07:00", "Europe/Berlin", None),
        ("2026-01-15 21:00", "22:00-07:00", "Europe/Berlin", "2026-01-16 06:00"),
        ("2026-01-15 23:30", "22:00-07:00", "Europe/Berlin", "2026-01-16 06:00"),  # past midnight there
        ("2026-01-16 05:59:59.999", "22:00-07:00", "Europe/Berlin", "2026-01-16 06:00"),
        ("2026-01-16 06:00", "22:00-07:00", "Europe/Berlin", None),
        ("2026-07-15 20:00", "22:00-07:00", "Europe/Berlin", "2026-07-16 05:00"),  # summer time
        ("2026-01-15 12:30", "12:00-13:00", "UTC", "2026-01-15 13:00"),
        ("2026-01-15 13:30", "12:00-13:00", "UTC", None),
        ("2026-01-15 12:30", "12:00-13:00", "Asia/Kathmandu", None),  # 18:15 there
        ("2026-01-15 06:30", "12:00-13:00", "Asia/Kathmandu", "2026-01-15 07:15"),
        ("2026-01-15 23:30", "23:00-00:00", "UTC", "2026-01-16 00:00"),
        ("2026-01-15 00:00", "00:00-06:00", "UTC", "2026-01-15 06:00"),
        ("2026-01-15 12:00", "08:00-08:00", "UTC", None),  # equal: no quiet hours
    ],
)
def test_r27_a_request_in_quiet_hours_waits_for_their_end(
    instant: str, quiet: str, zone: str, until: str | None
) -> None:
    assert waits(instant, quiet, zone) == until


@pytest.mark.parametrize(
    ("instant", "quiet", "zone", "until"),
    [
        # Berlin, 29 March 2026: 02:00 CET is followed by 03:00 CEST, at 01:00 UTC.
        ("2026-03-28 22:00", "22:00-07:00", "Europe/Berlin", "2026-03-29 05:00"),  # the night is an hour shorter
        ("2026-03-28 22:00", "22:00-02:30", "Europe/Berlin", "2026-03-29 01:00"),  # the end is not shown that night
        ("2026-03-29 01:00", "22:00-02:30", "Europe/Berlin", None),
        ("2026-03-29 00:59:59.999", "02:30-04:00", "Europe/Berlin", None),
        ("2026-03-29 01:00", "02:30-04:00", "Europe/Berlin", "2026-03-29 02:00"),  # nor is the start
        ("2026-03-29 01:00", "02:10-02:40", "Europe/Berlin", None),  # nor anything of it
        # Two spans that the gap brings together are one: whoever is told at the first's end is told in the second.
        ("2026-03-28 22:00", "02:50-02:10", "Europe/Berlin", "2026-03-30 00:10"),
        # Berlin, 25 October 2026: 03:00 CEST is followed by 02:00 CET, at 01:00 UTC.
        ("2026-10-24 22:00", "22:00-07:00", "Europe/Berlin", "2026-10-25 06:00"),  # an hour longer
        ("2026-10-24 22:00", "22:00-02:30", "Europe/Berlin", "2026-10-25 00:30"),  # the first 02:30
        ("2026-10-25 00:45", "22:00-02:30", "Europe/Berlin", None),
        ("2026-10-25 01:10", "22:00-02:30", "Europe/Berlin", None),  # the second 02:10: they have ended
        ("2026-10-25 00:29", "02:30-04:00", "Europe/Berlin", None),
        ("2026-10-25 01:10", "02:30-04:00", "Europe/Berlin", "2026-10-25 03:00"),  # the second 02:10: they have begun
        # Set back over midnight: St John's, at 00:01 on 29 October 2006, to 23:01.
        ("2006-10-29 02:40", "00:00-06:00", "America/St_Johns", "2006-10-29 09:30"),  # the second 23:10
        # Lord Howe's clock moves by half an hour: 02:00 is followed by 02:30 (3 October 2026, 15:30 UTC).
        ("2026-10-03 15:00", "22:00-02:15", "Australia/Lord_Howe", "2026-10-03 15:30"),
        # Samoa had no 30 December 2011.
        ("2011-12-30 09:00", "22:00-07:00", "Pacific/Apia", "2011-12-30 17:00"),
    ],
)
def test_r27_daylight_saving_moves_the_end_and_never_repeats_it(
    instant: str, quiet: str, zone: str, until: str | None
) -> None:
    assert waits(instant, quiet, zone) == until


@pytest.mark.parametrize(
    ("instant", "quiet", "zone", "until"),
    [
        ("2026-01-15 10:20", None, "UTC", "2026-01-15 11:00"),
        ("2026-01-15 10:59:59.999", None, "UTC", "2026-01-15 11:00"),
        ("2026-01-15 11:00", None, "UTC", "2026-01-15 12:00"),  # the digest of 11:00 is on its way
        ("2026-01-15 10:20", None, "Asia/Kolkata", "2026-01-15 10:30"),  # 16:00 there
        ("2026-01-15 21:30", "22:00-07:00", "UTC", "2026-01-16 07:00"),  # 22:00 is quiet, their end is a full hour
        ("2026-01-15 23:30", "22:00-06:30", "UTC", "2026-01-16 07:00"),
        ("2026-01-16 06:40", "22:00-06:30", "UTC", "2026-01-16 07:00"),
        ("2026-01-15 12:00", "08:40-08:20", "UTC", "2026-01-16 08:20"),  # every full hour is quiet
        ("2026-10-25 00:10", None, "Europe/Berlin", "2026-10-25 01:00"),  # the second 02:00
        ("2026-04-04 14:40", None, "Australia/Lord_Howe", "2026-04-04 15:30"),  # 01:40, 01:59, 01:30, 02:00
    ],
)
def test_r27_an_hourly_digest_waits_for_the_next_full_hour_after_quiet_hours(
    instant: str, quiet: str | None, zone: str, until: str
) -> None:
    assert waits(instant, quiet, zone, "hourly") == until


@pytest.mark.parametrize(
    ("instant", "quiet", "zone", "until"),
    [
        ("2026-01-15 07:59:59.999", None, "UTC", "2026-01-15 08:00"),
        ("2026-01-15 08:00", None, "UTC", "2026-01-16 08:00"),
        ("2026-01-15 20:00", None, "America/New_York", "2026-01-16 13:00"),
        ("2026-03-28 12:00", None, "Europe/Berlin", "2026-03-29 06:00"),
        ("2026-01-15 23:00", "22:00-07:00", "UTC", "2026-01-16 08:00"),
        ("2026-01-15 23:00", "22:00-08:00", "UTC", "2026-01-16 08:00"),
        ("2026-01-15 23:00", "22:00-09:30", "UTC", "2026-01-16 09:30"),  # 08:00 is always quiet: their end
        ("2026-01-15 09:00", "22:00-09:30", "UTC", "2026-01-15 09:30"),
        ("2026-01-15 02:00", "07:00-06:00", "UTC", "2026-01-15 06:00"),  # yesterday's, put off past midnight
    ],
)
def test_r27_a_daily_digest_waits_for_eight_in_the_morning_or_the_end_of_quiet_hours_then(
    instant: str, quiet: str | None, zone: str, until: str
) -> None:
    assert waits(instant, quiet, zone, "daily") == until


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "localtime", "../../etc/passwd", "/etc/localtime", "America", "x" * 10_000, "Zürich"]
)
def test_a_name_that_is_no_time_zone_is_none_and_no_failure(name: str) -> None:
    assert zone_named(name) is None


def test_the_first_instant_is_exact_to_the_second() -> None:
    berlin = zone_named("Europe/Berlin")
    assert berlin is not None
    assert first_instant(datetime(1893, 4, 1, 0, 3), berlin) == utc("1893-03-31 23:06:32")  # noqa: DTZ001  a wall clock
    assert quiet_until(utc("1893-03-31 23:00"), hours("22:00-00:03"), berlin) == utc("1893-03-31 23:06:32")

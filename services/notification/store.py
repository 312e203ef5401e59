"""Every SQL statement of notification. A batch costs a fixed number of them, with rows written in key order."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
import orjson

from services.notification.domain import Assignment, Audience, Deferred, Newest, Preferences, Seats, Thread
from services.notification.quiet_hours import QuietHours
from shared.postgres import columns, execute_rows

# The partition's owner alone writes these rows: the fence has locked out every other, so no row lock is needed. A dry
# run may write beside it, and is rolled back: hence the key order, so that the two cannot deadlock.
_THREADS = """
SELECT thread_id, thread_version, outcome_version, notified, holding FROM thread WHERE thread_id = ANY($1::text[])
"""

_AUDIENCES = """
SELECT thread_id, thread_version, owner_seat_id, follower_seat_ids, changed_at
FROM audience WHERE thread_id = ANY($1::text[]) ORDER BY thread_id, thread_version
"""

_ASSIGNMENTS = "SELECT seat_id, time_zone, assigned_at FROM seat WHERE seat_id = ANY($1::text[])"

_PREFERENCES = """
SELECT seat_id, channels, quiet_start, quiet_end, digest, set_at FROM preference WHERE seat_id = ANY($1::text[])
"""

# Lateral, so that of a long thread only the last row is read.
_NEWEST = """
SELECT n.thread_id, n.seat_id, n.channel, r.version, r.outcome_notification_id
FROM unnest($1::text[], $2::text[], $3::text[]) AS n (thread_id, seat_id, channel), LATERAL (
    SELECT version, outcome_notification_id FROM notification_request
    WHERE thread_id = n.thread_id AND recipient_seat_id = n.seat_id AND channel = n.channel
    ORDER BY version DESC LIMIT 1
) AS r
"""

_DEFERRED = """
SELECT r.thread_id, r.notification_id, r.recipient_seat_id, r.channel, r.version, r.deliver_after
FROM unnest($1::text[], $2::timestamptz[]) AS n (thread_id, earliest), LATERAL (
    SELECT * FROM notification_request
    WHERE thread_id = n.thread_id AND deliver_after > n.earliest AND NOT retracted
) AS r
"""

_MADE = "SELECT thread_id, notification_id FROM notification_request WHERE notification_id = ANY($1::uuid[])"

_SAVE_THREADS = """
INSERT INTO thread (thread_id, thread_version, outcome_version, notified, holding)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::boolean[])
ON CONFLICT (thread_id) DO UPDATE
SET thread_version = excluded.thread_version, outcome_version = excluded.outcome_version,
    notified = excluded.notified, holding = excluded.holding
"""

# `unnest` has no form that keeps arrays whole, so followers come as one JSON text per audience.
_SAVE_AUDIENCES = """
INSERT INTO audience (thread_id, thread_version, owner_seat_id, follower_seat_ids, changed_at)
SELECT n.thread_id, n.thread_version, n.owner_seat_id, ARRAY(SELECT jsonb_array_elements_text(n.followers)),
       n.changed_at
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::jsonb[], $5::timestamptz[])
    AS n (thread_id, thread_version, owner_seat_id, followers, changed_at)
ON CONFLICT (thread_id, thread_version) DO NOTHING  -- a redriven one that was known
"""

_SAVE_REQUESTS = """
INSERT INTO notification_request (notification_id, thread_id, recipient_seat_id, channel, version,
                                  outcome_notification_id, deliver_after)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::uuid[], $7::timestamptz[])
"""

_RETRACT = "UPDATE notification_request SET retracted = true WHERE notification_id = ANY($1::uuid[])"

# A seat's rows may be written by the owners of two contracts' partitions: the condition looks at the row as it is once
# locked, so the newest word stands whoever commits first.
_SAVE_ASSIGNMENTS = """
INSERT INTO seat AS s (seat_id, time_zone, assigned_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
ON CONFLICT (seat_id) DO UPDATE SET time_zone = excluded.time_zone, assigned_at = excluded.assigned_at
WHERE s.assigned_at <= excluded.assigned_at
"""

_SAVE_PREFERENCES = """
INSERT INTO preference AS p (seat_id, channels, quiet_start, quiet_end, digest, set_at)
SELECT n.seat_id, string_to_array(n.channels, ','), n.quiet_start, n.quiet_end, n.digest, n.set_at
FROM unnest($1::text[], $2::text[], $3::time[], $4::time[], $5::text[], $6::timestamptz[])
    AS n (seat_id, channels, quiet_start, quiet_end, digest, set_at)
ON CONFLICT (seat_id) DO UPDATE SET
    channels = excluded.channels, quiet_start = excluded.quiet_start, quiet_end = excluded.quiet_end,
    digest = excluded.digest, set_at = excluded.set_at
WHERE p.set_at <= excluded.set_at
"""


class RequestRow(NamedTuple):
    """A request as it is kept: without its text."""

    notification_id: str
    thread_id: str
    recipient_seat_id: str
    channel: str
    version: int
    outcome_notification_id: str | None
    deliver_after: datetime | None


async def load_threads(tx: asyncpg.Connection, thread_ids: Iterable[str]) -> dict[str, Thread]:
    """Give threads, in key order; one never seen before comes empty."""
    keys = sorted(thread_ids)
    if not keys:
        return {}
    known = {row["thread_id"]: Thread(*row) for row in await tx.fetch(_THREADS, keys)}
    return {key: known.get(key) or Thread(key) for key in keys}


async def load_audiences(tx: asyncpg.Connection, threads: Iterable[Thread]) -> None:
    """Complete threads with the history of their audiences."""
    wanted = {thread.thread_id: thread for thread in threads if thread.thread_version}
    if wanted:
        for thread_id, version, owner, followers, changed_at in await tx.fetch(_AUDIENCES, list(wanted)):
            wanted[thread_id].audiences.append(Audience(version, owner, tuple(followers), changed_at))


async def load_seats(tx: asyncpg.Connection, seat_ids: Iterable[str]) -> Seats:
    """Give what is committed of these seats."""
    keys, seats = list(seat_ids), Seats()
    if keys:
        seats.assignments = {row[0]: Assignment(*row[1:]) for row in await tx.fetch(_ASSIGNMENTS, keys)}
        for seat_id, channels, start, end, digest, set_at in await tx.fetch(_PREFERENCES, keys):
            quiet = None if start is None else QuietHours(start, end)
            seats.preferences[seat_id] = Preferences(tuple(channels), quiet, digest, set_at)
    return seats


async def load_newest(
    tx: asyncpg.Connection, threads: dict[str, Thread], slots: Iterable[tuple[str, str, str]]
) -> None:
    """Complete threads with the newest request of each (thread_id, seat_id, channel)."""
    wanted = list(slots)
    if wanted:
        for thread_id, seat_id, channel, version, told in await tx.fetch(_NEWEST, *columns(wanted)):
            threads[thread_id].newest[seat_id, channel] = Newest(version, None if told is None else str(told))


async def load_deferred(
    tx: asyncpg.Connection, threads: dict[str, Thread], changes: Iterable[tuple[str, datetime]]
) -> None:
    """Complete threads with the requests that wait beyond the earliest change of their outcome (thread_id, instant)."""
    wanted = list(changes)
    if wanted:
        for thread_id, made, *waits in await tx.fetch(_DEFERRED, *columns(wanted)):
            threads[thread_id].deferred.append(Deferred(str(made), *waits))


async def load_made(tx: asyncpg.Connection, threads: dict[str, Thread], ids: Iterable[str]) -> None:
    """Complete threads with those of the given ids that were requested before."""
    wanted = list(ids)
    if wanted:
        for thread_id, made in await tx.fetch(_MADE, wanted):
            threads[thread_id].made.add(str(made))


async def save_threads(tx: asyncpg.Connection, threads: Sequence[Thread]) -> None:
    """Write back threads, but for their parts."""
    rows = [(t.thread_id, t.thread_version, t.outcome_version, t.notified, t.holding) for t in threads]
    await execute_rows(tx, _SAVE_THREADS, rows)


async def save_audiences(tx: asyncpg.Connection, audiences: Sequence[tuple[str, Audience]]) -> None:
    """Add audiences (thread_id, audience) to the histories."""
    rows = [
        (thread_id, a.thread_version, a.owner_seat_id, orjson.dumps(a.follower_seat_ids).decode(), a.changed_at)
        for thread_id, a in audiences
    ]
    await execute_rows(tx, _SAVE_AUDIENCES, rows)


async def save_requests(tx: asyncpg.Connection, requests: Sequence[RequestRow], retracted_ids: Sequence[str]) -> None:
    """Add requests, then mark those that were retracted.

    Raises:
        asyncpg.UniqueViolationError: one was made before, which the thread should have shown.
    """
    await execute_rows(tx, _SAVE_REQUESTS, requests)
    if retracted_ids:
        await tx.execute(_RETRACT, retracted_ids)


async def save_seats(tx: asyncpg.Connection, seats: Seats) -> None:
    """Write what changed of seats, unless somebody else has written something newer."""
    assigned = [(seat_id, seats.assignments[seat_id]) for seat_id in sorted(seats.changed_assignments)]
    await execute_rows(tx, _SAVE_ASSIGNMENTS, [(seat_id, a.time_zone, a.assigned_at) for seat_id, a in assigned])
    rows = []
    for seat_id in sorted(seats.changed_preferences):
        p = seats.preferences[seat_id]
        start, end = (None, None) if p.quiet_hours is None else (p.quiet_hours.start, p.quiet_hours.end)
        rows.append((seat_id, ",".join(p.channels), start, end, p.digest, p.set_at))
    await execute_rows(tx, _SAVE_PREFERENCES, rows)

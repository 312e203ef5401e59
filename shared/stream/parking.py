"""Records that wait for a fact which has not come: kept with their original bytes, in the order of arrival."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson

from shared.events import CATALOGUE, Headers
from shared.postgres import columns, execute_rows
from shared.stream.inbox import business_identity
from shared.stream.records import (
    AnyIncoming,
    Decoded,
    Incoming,
    Position,
    RawRecord,
    Rejected,
    decoded,
    packed,
    unpacked,
)

_INSERT = """
INSERT INTO parked (topic, partition, "offset", wait_key, record_timestamp, expires_at, redriven, key, value, headers)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                     $7::boolean[], $8::bytea[], $9::bytea[], $10::bytea[])
ON CONFLICT DO NOTHING
"""

_COLUMNS = 'topic, partition, "offset", wait_key, record_timestamp, redriven, key, value, headers'

# By the broker's timestamps, but each partition in its own order: that clock may step back with another leader.
_LOAD = f"""
SELECT {_COLUMNS} FROM parked WHERE wait_key = ANY($1)
ORDER BY max(record_timestamp) OVER (PARTITION BY topic, partition ORDER BY "offset"), topic, partition, "offset"
"""  # noqa: S608  only constants are put in

_DELETE = """
DELETE FROM parked p USING unnest($1::text[], $2::int[], $3::bigint[]) AS n (topic, partition, "offset")
WHERE p.topic = n.topic AND p.partition = n.partition AND p."offset" = n."offset"
"""

_EXPIRED_AT_ONCE_MAX = 500
"""Of one partition: after a long absence all that waited may be due. The rest comes with the next batch or sweep."""
_EXPIRED = f"""
DELETE FROM parked p USING (
    SELECT d.topic, d.partition, d."offset"
    FROM unnest($1::text[], $2::int[], $3::timestamptz[]) AS n (topic, partition, clock), LATERAL (
        SELECT * FROM parked
        WHERE topic = n.topic AND partition = n.partition AND expires_at <= n.clock
        ORDER BY expires_at LIMIT {_EXPIRED_AT_ONCE_MAX}
    ) AS d
) AS due
WHERE (p.topic, p.partition, p."offset") = (due.topic, due.partition, due."offset")
RETURNING {", ".join("p." + column for column in _COLUMNS.split(", "))}
"""  # noqa: S608  only constants are put in

_NEXT = """
SELECT n.topic, n.partition, first.expires_at
FROM unnest($1::text[], $2::int[]) AS n (topic, partition), LATERAL (
    SELECT expires_at FROM parked WHERE topic = n.topic AND partition = n.partition ORDER BY expires_at LIMIT 1
) AS first
"""


async def load_parked(tx: asyncpg.Connection, wait_keys: Iterable[str]) -> dict[str, list[AnyIncoming]]:
    """The records that wait for any of `wait_keys`, by key, in order of arrival.

    One that can no longer be read, as after a stricter release, is left where it is until its time is over: whoever
    frees it is not to blame.
    """
    parked: dict[str, list[AnyIncoming]] = {}
    for row in await tx.fetch(_LOAD, list(wait_keys)):
        if isinstance(item := _decoded(row), Incoming):
            parked.setdefault(row["wait_key"], []).append(item)
    return parked


async def store_parked(
    tx: asyncpg.Connection, parked: Sequence[tuple[AnyIncoming, str]], *, seconds_max: float
) -> None:
    """Keep records until a fact comes, or `seconds_max` after their own timestamps."""
    kept = timedelta(seconds=seconds_max)
    rows = [
        (
            incoming.position.topic,
            incoming.position.partition,
            incoming.position.offset,
            wait_key,
            incoming.timestamp,
            incoming.timestamp + kept,
            incoming.redriven,
            incoming.key,
            incoming.value,
            packed(incoming.headers),
        )
        for incoming, wait_key in parked
    ]
    await execute_rows(tx, _INSERT, rows)


async def delete_parked(tx: asyncpg.Connection, positions: Sequence[Position]) -> None:
    """Forget parked records that were handled."""
    await execute_rows(tx, _DELETE, positions)


async def expire_parked(tx: asyncpg.Connection, clocks: Sequence[tuple[str, int, datetime]]) -> list[Decoded]:
    """Take out the records whose time is over by the clock of their partition (topic, partition, clock)."""
    rows = await tx.fetch(_EXPIRED, *columns(clocks))
    return [_decoded(row) for row in sorted(rows, key=lambda r: (r["topic"], r["partition"], r["offset"]))]


async def next_expiries(tx: asyncpg.Connection, slots: Sequence[tuple[str, int]]) -> dict[tuple[str, int], datetime]:
    """When the first parked record of each of these partitions expires; one that has none is left out."""
    rows = await tx.fetch(_NEXT, *columns(slots))
    return {(row["topic"], row["partition"]): row["expires_at"] for row in rows}


def _decoded(row: Any) -> Decoded:
    position, headers = Position(row["topic"], row["partition"], row["offset"]), unpacked(row["headers"])
    item = decoded(RawRecord(position, row["record_timestamp"], row["key"], row["value"], headers))
    if isinstance(item, Rejected):
        return replace(item, business=_business_of(row["value"], headers))
    item.redriven = row["redriven"]
    return item


def _business_of(value: bytes, headers: Headers) -> bytes | None:
    """Find the identity of a fact that can no longer be read whole: it was taken once, and is to come back."""
    try:
        document = orjson.loads(value)
        event_type = document["type"] if "data" in document else (dict(headers)["ce_type"] or b"").decode()
        name = CATALOGUE[event_type].business_id_field
        return None if name is None else business_identity(event_type, document.get("data", document)[name])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None

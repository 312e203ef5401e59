"""The outbox: what a batch publishes, committed with its effects and deleted once the broker has acknowledged it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from shared.events import Headers
from shared.stream.effects import OutboxRows
from shared.stream.offsets import Claim, TopicPartition
from shared.stream.records import packed, unpacked

_INSERT = """
INSERT INTO outbox (source_topic, source_partition, topic, keys, payloads, headers)
VALUES ($1, $2, $3, $4, $5, $6) RETURNING outbox_id
"""
PAGE_ROWS: Final = 8
"""Rows read at once of what was left behind; each may hold a batch's records."""
_DELETE = "DELETE FROM outbox WHERE outbox_id = ANY($1)"
_LEFT = """
SELECT outbox_id, topic, keys, payloads, headers FROM outbox
WHERE ((source_topic, source_partition) IN (SELECT * FROM unnest($1::text[], $2::int[]))
       OR (source_topic IS NULL AND $3))
  AND created_at <= clock_timestamp() - make_interval(secs => $4)
  AND outbox_id > $5
ORDER BY outbox_id LIMIT $6
"""
_BACKLOG = """
SELECT coalesce(sum(cardinality(keys)), 0)::bigint AS records,
       coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age_seconds
FROM outbox
"""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A committed row: records for one topic, in order. `headers` per record, None for a structured CloudEvent's."""

    outbox_id: int
    topic: str
    keys: Sequence[bytes | None]
    payloads: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """Rows to publish in order, and the claims under which they were written."""

    rows: Sequence[OutboxRow]
    claims: Sequence[Claim] = ()
    begun_at: float = field(default_factory=time.monotonic)
    """When their transaction began: a process that was frozen while it awaited the commit must not seem young."""


async def enqueue(tx: asyncpg.Connection, topic: str, key: bytes, payload: bytes) -> OutboxRow:
    """Write one structured event from outside the stream (an HTTP request); publish the row after the commit."""
    outbox_id = await tx.fetchval(_INSERT, None, None, topic, [key], [payload], None)
    return OutboxRow(outbox_id, topic, [key], [payload])


async def store_outgoing(tx: asyncpg.Connection, outgoing: dict[tuple[str, int, str], OutboxRows]) -> list[OutboxRow]:
    """Write one row per source partition and topic, all in one round trip."""
    if not outgoing:
        return []
    slots = list(outgoing.items())
    arguments = [(topic, partition, target, r.keys, r.payloads, None) for (topic, partition, target), r in slots]
    ids = await tx.fetchmany(_INSERT, arguments)
    return [
        OutboxRow(row["outbox_id"], target, r.keys, r.payloads)
        for row, ((_, _, target), r) in zip(ids, slots, strict=True)
    ]


async def store_raw(
    tx: asyncpg.Connection,
    source: TopicPartition,
    topic: str,
    records: Sequence[tuple[bytes | None, bytes | None, Headers]],
) -> OutboxRow:
    """Write records that keep bytes and headers of their own: dead letters."""
    keys, payloads = [key for key, _, _ in records], [value for _, value, _ in records]
    stored = [packed(headers) for _, _, headers in records]
    outbox_id = await tx.fetchval(_INSERT, *source, topic, keys, payloads, stored)
    return OutboxRow(outbox_id, topic, keys, payloads, [headers for _, _, headers in records])


async def delete_sent(tx: asyncpg.Connection, outbox_ids: Sequence[int]) -> None:
    """Forget rows that the broker has acknowledged."""
    if outbox_ids:
        await tx.execute(_DELETE, outbox_ids)


async def left_behind(
    connection: asyncpg.Connection,
    slots: Iterable[TopicPartition],
    *,
    unsourced: bool,
    age_seconds_min: float = 0,
    after: int = 0,
) -> list[OutboxRow]:
    """A page of what the last owner of these partitions committed and may not have published, in order of ids."""
    wanted = list(slots)
    rows = await connection.fetch(
        _LEFT, [t for t, _ in wanted], [p for _, p in wanted], unsourced, age_seconds_min, after, PAGE_ROWS
    )
    return [_row(row) for row in rows]


async def backlog(connection: asyncpg.Connection) -> tuple[int, float]:
    """Records that wait in the outbox, and the age of the oldest in seconds."""
    (row,) = await connection.fetch(_BACKLOG)
    return row["records"], row["age_seconds"]


def _row(row: Any) -> OutboxRow:
    stored = row["headers"]
    headers = None if stored is None else [unpacked(item) for item in stored]
    return OutboxRow(row["outbox_id"], row["topic"], row["keys"], row["payloads"], headers)

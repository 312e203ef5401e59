"""Dead letters: what could not be processed, kept with its original bytes and published for the operators."""

from collections import Counter
from collections.abc import Sequence

import asyncpg

from shared.events.times import format_instant
from shared.postgres import columns
from shared.stream.effects import DeadLetter
from shared.stream.header_names import printable
from shared.stream.records import LEFT_OUT_HEADER, REDRIVE_HEADER, AnyIncoming, Header, Position, RawRecord
from shared.topics import DEAD_LETTER_BYTES_MAX

_INSERT = """
INSERT INTO dead_letter AS known (identity, content_hash, reason, topic, partition, "offset", first_seen)
SELECT DISTINCT ON (identity, content_hash) identity, content_hash, reason, topic, partition, "offset", first_seen
FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::timestamptz[])
    WITH ORDINALITY AS n (identity, content_hash, reason, topic, partition, "offset", first_seen, number)
ORDER BY identity, content_hash, number
ON CONFLICT (identity, content_hash) DO UPDATE
SET reason = excluded.reason, topic = excluded.topic, partition = excluded.partition, "offset" = excluded."offset",
    first_seen = excluded.first_seen
WHERE excluded.reason = 'ORPHANED' AND known.reason <> 'ORPHANED'
RETURNING topic, partition, "offset"
"""
_KNOWN = """
SELECT identity, content_hash FROM dead_letter
WHERE (identity, content_hash) IN (SELECT * FROM unnest($1::bytea[], $2::bytea[]))
"""
_DIED_HERE = """
SELECT n.topic, n.partition, n."offset" FROM dead_letter d
JOIN unnest($1::bytea[], $2::bytea[], $3::text[], $4::int[], $5::bigint[], $6::timestamptz[])
    AS n (identity, content_hash, topic, partition, "offset", seen)
ON d.identity = n.identity AND d.content_hash = n.content_hash AND d.topic = n.topic AND d.partition = n.partition
WHERE d."offset" >= n."offset" AND d.first_seen >= n.seen
"""
_REVIVE = """
DELETE FROM dead_letter d USING unnest($1::bytea[], $2::bytea[]) AS n (identity, content_hash)
WHERE d.identity = n.identity AND d.content_hash = n.content_hash
"""


async def store_dead_letters(tx: asyncpg.Connection, dead: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Keep the dead letters and return those not known before: only they are published.

    Each is known by its event's identity and by its fact's: neither may come back (R11).
    An orphan is new in any case: it was taken in as the first, and what died meanwhile was a spoilt copy of it.
    """
    if not dead:
        return []
    rows = [
        (
            identity,
            d.content_hash,
            d.reason,
            d.record.position.topic,
            d.record.position.partition,
            d.record.position.offset,
            d.record.timestamp,
        )
        for d in dead
        for identity in _identities(d)
    ]
    inserted = await tx.fetch(_INSERT, *columns(rows))
    new = Counter(Position(row["topic"], row["partition"], row["offset"]) for row in inserted)
    return [d for d in dead if new[d.record.position] == len(_identities(d))]


def _identities(dead: DeadLetter) -> list[bytes]:
    return [dead.identity] if dead.business is None else [dead.identity, dead.business]


async def any_known(tx: asyncpg.Connection) -> bool:
    """Whether this service has ever given a record up."""
    return bool(await tx.fetchval("SELECT EXISTS (SELECT FROM dead_letter)"))


async def known_of(tx: asyncpg.Connection, identities: Sequence[tuple[bytes, bytes]]) -> set[tuple[bytes, bytes]]:
    """Tell which of these (identity, content hash) are dead letters."""
    rows = await tx.fetch(_KNOWN, [i for i, _ in identities], [h for _, h in identities])
    return {(row["identity"], row["content_hash"]) for row in rows}


async def died_here(
    tx: asyncpg.Connection, records: Sequence[AnyIncoming | RawRecord], identities: Sequence[tuple[bytes, bytes]]
) -> set[Position]:
    """Tell which redriven records died again already, as a replay brings them: at their position or behind it.

    By their time too: where a topic is made anew, positions begin at 0 again.
    """
    if not records:
        return set()
    rows = [(*i, *r.position, r.timestamp) for r, i in zip(records, identities, strict=True)]
    return {Position(*row) for row in await tx.fetch(_DIED_HERE, *columns(rows))}


async def revive(tx: asyncpg.Connection, identities: Sequence[tuple[bytes, bytes]]) -> None:
    """Forget dead letters (identity, content hash) that an operator sent back, so that a new failure is seen again."""
    if identities:
        await tx.execute(_REVIVE, [i for i, _ in identities], [h for _, h in identities])


def dead_letter_record(dead: DeadLetter) -> tuple[bytes | None, bytes | None, list[Header]]:
    """Key, value and headers of the published letter: the original ones, which a redrive needs, and why and where.

    A record larger than a dead letter may be (it came compressed) stays where it is, and the letter says so.
    """
    record = dead.record
    headers = [
        (printable(name), text)
        for name, text in record.headers
        if name != REDRIVE_HEADER and not name.startswith("dlq-")
    ]
    said: list[Header] = [
        ("dlq-reason", dead.reason.encode()),
        ("dlq-detail", dead.detail.encode()),
        ("dlq-topic", record.position.topic.encode()),
        ("dlq-partition", str(record.position.partition).encode()),
        ("dlq-offset", str(record.position.offset).encode()),
        ("dlq-first-seen", format_instant(record.timestamp).encode()),
    ]
    size = sum(map(len, (record.key or b"", record.value or b"")))
    size += sum(len(name) + len(text or b"") for name, text in headers)
    if size > DEAD_LETTER_BYTES_MAX:
        return None, None, [*said, (LEFT_OUT_HEADER, str(size).encode())]
    return record.key, record.value, [*headers, *said]

"""The inbox: an event has its effect once, however often it comes and under whatever event id its fact returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b

import asyncpg

from shared.stream.records import AnyIncoming, Position

# One round trip: enters event and business identities, in order so that two processes cannot deadlock; returns those
# that were known before, and what is known of dead letters (told apart by the hash). Nearly always that is nothing.
_ENTER = """
WITH given AS MATERIALIZED (
    SELECT *, $4::date AS expires_on FROM unnest($1::bytea[], $2::bytea[]) AS n (identity, content_hash)
    UNION ALL
    SELECT *, NULL FROM unnest($3::bytea[], $2::bytea[]) AS n (identity, content_hash) WHERE identity IS NOT NULL
), entered AS (
    INSERT INTO inbox (identity, content_hash, expires_on) SELECT * FROM given ORDER BY identity
    ON CONFLICT (identity) DO NOTHING
    RETURNING identity
)
SELECT identity, NULL AS dead_hash FROM given WHERE NOT EXISTS (SELECT FROM entered e WHERE e.identity = given.identity)
UNION ALL
SELECT identity, content_hash FROM dead_letter WHERE identity = ANY($1 || $3)
"""
_SELECT = "SELECT identity, content_hash FROM inbox WHERE identity = ANY($1)"
_DELETE = "DELETE FROM inbox WHERE identity = ANY($1)"
_PURGE = """
DELETE FROM inbox WHERE identity = ANY(ARRAY(SELECT identity FROM inbox WHERE expires_on < $1 LIMIT $2))
"""

_PURGE_ROWS_MAX = 5_000


def event_identity(source: str, event_id: str) -> bytes:
    """16 bytes that stand for (`source`, `id`)."""
    return blake2b(f"event\0{source}\0{event_id}".encode(), digest_size=16).digest()


def business_identity(event_type: str, business_id: str) -> bytes:
    """16 bytes that stand for (type, business id)."""
    return blake2b(f"business\0{event_type}\0{business_id}".encode(), digest_size=16).digest()


@dataclass(slots=True)
class Candidate:
    """An event with what identifies it."""

    incoming: AnyIncoming
    identity: bytes
    business: bytes | None
    content_hash: bytes


class BatchCutError(Exception):
    """Two records of one batch claim the same identity: the second, at `position`, must see the first one's end."""

    def __init__(self, position: Position) -> None:
        super().__init__(f"cut the batch before {position}")
        self.position = position


@dataclass(slots=True)
class Screened:
    """What the inbox says of a batch."""

    fresh: list[Candidate] = field(default_factory=list)
    duplicates: list[Candidate] = field(default_factory=list)
    conflicts: list[Candidate] = field(default_factory=list)


async def screen(tx: asyncpg.Connection, candidates: Sequence[Candidate], *, expires_on: date) -> Screened:
    """Enter new identities and tell new events from repeats and from conflicts (R11).

    Raises:
        BatchCutError: the batch holds one identity with two contents, or a redriven repeat.

    """
    firsts, screened = _first_of_each(candidates)
    known, dead = await _enter(tx, firsts, expires_on)
    if not known and not dead:
        screened.fresh = firsts
        return screened
    forget: list[bytes] = []
    for c in firsts:
        stored = known.get(c.identity)
        stored_business = known.get(c.business) if c.business is not None else None
        entered = [i for i in (c.identity, c.business) if i is not None and i not in known]
        if c.content_hash in (stored, stored_business) and stored in (None, c.content_hash):
            screened.duplicates.append(c)
        elif stored is not None or stored_business is not None:
            screened.conflicts.append(c)
            forget += entered
        elif not c.incoming.redriven and not dead.isdisjoint((i, c.content_hash) for i in (c.identity, c.business)):
            screened.duplicates.append(c)
            forget += entered
        else:
            screened.fresh.append(c)
    await forget_identities(tx, forget)
    return screened


async def forget_identities(tx: asyncpg.Connection, identities: Sequence[bytes]) -> None:
    """Free identities again, because their record became a dead letter."""
    if identities:
        await tx.execute(_DELETE, identities)


async def purge(connection: asyncpg.Connection, before: date) -> bool:
    """Forget some of the event identities that expired before `before`; tell whether there may be more.

    Bounded, so that it never holds others up.
    """
    return bool(await connection.execute(_PURGE, before, _PURGE_ROWS_MAX) == f"DELETE {_PURGE_ROWS_MAX}")


def _first_of_each(candidates: Sequence[Candidate]) -> tuple[list[Candidate], Screened]:
    screened = Screened()
    firsts: list[Candidate] = []
    seen: dict[bytes, bytes] = {}
    for c in candidates:
        hashes = {seen[i] for i in (c.identity, c.business) if i is not None and i in seen}
        if not hashes:
            firsts.append(c)
        elif hashes == {c.content_hash} and not c.incoming.redriven and c.identity in seen:
            screened.duplicates.append(c)
        else:
            raise BatchCutError(c.incoming.position)
        seen[c.identity] = c.content_hash
        if c.business is not None:
            seen[c.business] = c.content_hash
    return firsts, screened


async def _enter(
    tx: asyncpg.Connection, candidates: Sequence[Candidate], expires_on: date
) -> tuple[dict[bytes, bytes], set[tuple[bytes, bytes]]]:
    """Insert identities; return the hashes of those known before, and the dead letters (identity, hash) among them."""
    rows = await tx.fetch(
        _ENTER,
        [c.identity for c in candidates],
        [c.content_hash for c in candidates],
        [c.business for c in candidates],
        expires_on,
    )
    dead = {(row["identity"], row["dead_hash"]) for row in rows if row["dead_hash"] is not None}
    before = [row["identity"] for row in rows if row["dead_hash"] is None]
    if not before:
        return {}, dead
    return {row["identity"]: row["content_hash"] for row in await tx.fetch(_SELECT, before)}, dead

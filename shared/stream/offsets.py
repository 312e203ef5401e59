"""The fence: a partition's position moves only for the owner that holds it, from where that owner left it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

TopicPartition = tuple[str, int]

LONG_AGO = datetime.min.replace(tzinfo=UTC)


class FenceRejectedError(Exception):
    """Another process owns a partition of this batch: nothing of the batch may stand."""


class RetentionPassedError(Exception):
    """The topic does not hold the record at the stored position: some are lost, or it is another topic."""


@dataclass(slots=True)
class Claim:
    """A partition held by this process: the next offset it expects, under its epoch."""

    topic: str
    partition: int
    next_offset: int
    epoch: int
    newest_timestamp: datetime = LONG_AGO

    @property
    def slot(self) -> TopicPartition:
        """The partition."""
        return self.topic, self.partition


@dataclass(frozen=True, slots=True)
class Move:
    """A claim's step to `next_offset`, the offset after the last record of the batch."""

    claim: Claim
    next_offset: int
    newest_timestamp: datetime


_CLAIM = """
INSERT INTO consumer_offset AS o (consumer, topic, partition, next_offset)
SELECT $1, n.topic, n.partition, n.beginning
FROM unnest($2::text[], $3::int[], $4::bigint[]) AS n (topic, partition, beginning)
ORDER BY n.topic, n.partition
ON CONFLICT (consumer, topic, partition) DO UPDATE SET owner_epoch = o.owner_epoch + 1
RETURNING topic, partition, next_offset, owner_epoch, nullif(newest_timestamp, '-infinity') AS newest_timestamp
"""

# Rows are locked in key order first, so that two owners of overlapping sets cannot deadlock.
_FENCE = """
WITH step AS (
    SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[])
        AS n (topic, partition, expected, epoch, next_offset, newest)
), held AS (
    SELECT o.topic, o.partition
    FROM consumer_offset o JOIN step USING (topic, partition)
    WHERE o.consumer = $1 AND o.next_offset = step.expected AND o.owner_epoch = step.epoch
    ORDER BY o.topic, o.partition
    FOR UPDATE OF o
)
UPDATE consumer_offset o
SET next_offset = step.next_offset, newest_timestamp = greatest(o.newest_timestamp, step.newest)
FROM step JOIN held USING (topic, partition)
WHERE o.consumer = $1 AND o.topic = step.topic AND o.partition = step.partition
  AND o.next_offset = step.expected AND o.owner_epoch = step.epoch
"""

_STANDING = """
SELECT count(*) FROM consumer_offset o
JOIN unnest($2::text[], $3::int[], $4::bigint[]) AS n (topic, partition, epoch) USING (topic, partition)
WHERE o.consumer = $1 AND o.owner_epoch = n.epoch
"""


async def claim(tx: asyncpg.Connection, consumer: str, beginnings: dict[TopicPartition, int]) -> list[Claim]:
    """Take partitions over: whoever held them before is fenced from now on.

    `beginnings` gives the oldest offset the broker still holds; a partition never seen before starts there.

    Raises:
        RetentionPassedError: the stored position is older than what the broker holds.

    """
    slots = sorted(beginnings)
    rows = await tx.fetch(
        _CLAIM, consumer, [t for t, _ in slots], [p for _, p in slots], [beginnings[slot] for slot in slots]
    )
    claims = []
    for row in rows:
        held = Claim(
            topic=row["topic"],
            partition=row["partition"],
            next_offset=row["next_offset"],
            epoch=row["owner_epoch"],
            newest_timestamp=row["newest_timestamp"] or LONG_AGO,
        )
        if held.next_offset < beginnings[held.slot]:
            message = (
                f"{held.topic}[{held.partition}]: stored position {held.next_offset} is older than the oldest record "
                f"{beginnings[held.slot]} the broker holds, so records are lost. Restore the topic, or accept the loss "
                f"with `inmail replay --consumer {consumer} --from-oldest`"
            )
            raise RetentionPassedError(message)
        claims.append(held)
    return claims


def check_ends(consumer: str, claims: Iterable[Claim], ends: Mapping[TopicPartition, int]) -> None:
    """See that no position lies beyond its partition's end: a topic made anew begins at 0 again.

    Asked after the claims, since until then the last owner may still move its positions.

    Raises:
        RetentionPassedError: one does; what the new topic holds would be passed over.

    """
    for held in claims:
        if held.next_offset > ends[held.slot]:
            message = (
                f"{held.topic}[{held.partition}]: stored position {held.next_offset} lies beyond the last record "
                f"({ends[held.slot]} is the next), so it is not the topic that was read before. Restore that one, or "
                f"read this one with `inmail replay --consumer {consumer} --from-oldest`"
            )
            raise RetentionPassedError(message)


async def fence(tx: asyncpg.Connection, consumer: str, moves: Sequence[Move]) -> None:
    """Move the positions, each from where its owner left it.

    Raises:
        FenceRejectedError: a partition has another owner or position by now; the transaction must roll back.

    """
    ordered = sorted(moves, key=lambda move: move.claim.slot)
    status = await tx.execute(
        _FENCE,
        consumer,
        [m.claim.topic for m in ordered],
        [m.claim.partition for m in ordered],
        [m.claim.next_offset for m in ordered],
        [m.claim.epoch for m in ordered],
        [m.next_offset for m in ordered],
        [m.newest_timestamp for m in ordered],
    )
    if status != f"UPDATE {len(ordered)}":
        message = f"{consumer}: {status} of {len(ordered)} partitions; another process owns the others"
        raise FenceRejectedError(message)


async def standing(connection: asyncpg.Connection, consumer: str, claims: Sequence[Claim]) -> bool:
    """Whether every claim is still this process's."""
    count = await connection.fetchval(
        _STANDING,
        consumer,
        [c.topic for c in claims],
        [c.partition for c in claims],
        [c.epoch for c in claims],
    )
    return bool(count == len(claims))

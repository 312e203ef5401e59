"""A service's real transaction without a broker: events in, effects in a real Postgres, emitted events out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from shared.bulkhead import Bulkhead
from shared.events import STRUCTURED_HEADERS, Event, Headers, encode
from shared.metrics import Metrics
from shared.postgres import create_pool, transaction
from shared.settings import Settings
from shared.stream.effects import DeadLetter
from shared.stream.offsets import Claim, claim
from shared.stream.outbox import Publication
from shared.stream.processor import Outcome, Processor
from shared.stream.records import Position, RawRecord
from shared.stream.service import Resources, ServiceSpec

PARTITION = 0


@dataclass(slots=True)
class Harness:
    """Feeds one service. Use `await Harness.open(SPEC, dsn)`, then `feed`, then `close`."""

    spec: ServiceSpec
    resources: Resources
    processor: Processor
    claims: dict[tuple[str, int], Claim]
    emitted: list[tuple[str, Event[Any]]] = field(default_factory=list)
    """Everything emitted so far, with its topic."""
    dead: list[DeadLetter] = field(default_factory=list)
    results: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    async def open(cls, spec: ServiceSpec, dsn: str, **overrides: Any) -> "Harness":
        """Connect with the service's schema; `overrides` are settings."""
        settings = Settings(postgres_dsn=dsn, **overrides)
        pool = await create_pool(settings, service=spec.name)
        resources = Resources(spec.name, settings, Metrics(spec.name), pool, Bulkhead(settings))

        async def publish(_: Publication) -> None:
            """Nothing to publish to: the outcome carries what was emitted."""

        processor = Processor(
            service=spec.name,
            reads=spec.reads,
            handler=spec.handler(resources),
            pool=pool,
            settings=settings,
            metrics=resources.metrics,
            publish=publish,
            tidy=spec.tidy,
        )
        async with transaction(pool) as connection:
            held = await claim(connection, spec.name, {(read.topic, PARTITION): 0 for read in spec.reads})
        return cls(spec, resources, processor, {c.slot: c for c in held})

    async def feed(
        self, topic: str, *events: Event[Any], batch_records: int | None = None, timestamp: datetime | None = None
    ) -> list[Event[Any]]:
        """Process events in batches of `batch_records` (default: one batch); return what they emitted.

        `timestamp` is the broker's (default: now).
        """
        values = [(event.subject.encode(), encode(event)) for event in events]
        return await self.feed_raw(topic, values, batch_records=batch_records, timestamp=timestamp)

    async def feed_raw(
        self,
        topic: str,
        records: Sequence[tuple[bytes | None, bytes | None]],
        *,
        batch_records: int | None = None,
        timestamp: datetime | None = None,
        headers: Headers = tuple(STRUCTURED_HEADERS),
    ) -> list[Event[Any]]:
        """The same for (key, value) bytes as they would stand on the broker."""
        start = self.claims[topic, PARTITION].next_offset
        at = timestamp or datetime.now(UTC)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        raw = [
            RawRecord(Position(topic, PARTITION, start + i), at, key, value, tuple(headers))
            for i, (key, value) in enumerate(records)
        ]
        before = len(self.emitted)
        size = batch_records or max(len(raw), 1)
        for i in range(0, len(raw), size):
            for outcome in await self.processor.process(raw[i : i + size], self.claims):
                self._note(outcome)
        return [event for _, event in self.emitted[before:]]

    async def expire(self, clock: datetime) -> None:
        """Let the wall clock of all partitions stand at `clock`, as in an idle hour."""
        await self.processor.sweep(self.claims, dict.fromkeys(self.claims, clock))

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Read the service's tables."""
        return list(await self.resources.pool.fetch(sql, *arguments))

    async def dead_reasons(self, topic: str | None = None) -> list[str]:
        """Give the reason of each record given up that is remembered, of one topic if given.

        Its event's identity is remembered and, unless an id was in dispute, its fact's: it is told once all the same.
        """
        rows = await self.fetch(
            'SELECT DISTINCT ON (topic, partition, "offset") reason FROM dead_letter WHERE topic = coalesce($1, topic)',
            topic,
        )
        return [row["reason"] for row in rows]

    def on(self, topic: str) -> list[Event[Any]]:
        """What was emitted to one topic."""
        return [event for name, event in self.emitted if name == topic]

    async def close(self) -> None:
        """Give the connections back."""
        await self.resources.closing.aclose()
        await self.resources.pool.close()

    def _note(self, outcome: Outcome) -> None:
        self.emitted += [(topic, event) for topic, event, _ in outcome.effects.emitted]
        self.dead += outcome.dead
        for key, count in outcome.results.items():
            self.results += [key] * count

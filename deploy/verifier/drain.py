"""How far the services are: what they have not read yet, and what they have not published yet."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.verifier.target import Target
from shared.topics import TOPICS

POLL_SECONDS: Final = 0.1


class NotDrainedError(Exception):
    """The services did not come to rest in time."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A look at the whole system. `records` per topic; `lag` per service and topic; `outbox` rows per service."""

    records: Mapping[str, int] = field(default_factory=dict)
    lag: Mapping[tuple[str, str], int] = field(default_factory=dict)
    outbox: Mapping[str, int] = field(default_factory=dict)

    @property
    def at_rest(self) -> bool:
        """Whether everything was read and everything published."""
        return not any(self.lag.values()) and not any(self.outbox.values())

    def waiting(self, topic: str) -> int:
        """Records of a topic that its slowest reader has not processed."""
        return max((lag for (_, of), lag in self.lag.items() if of == topic), default=0)


class Gauge(AbstractAsyncContextManager["Gauge"]):
    """Looks at a system again and again over the same connections."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._partitions = [TopicPartition(t.name, p) for t in TOPICS.values() for p in range(t.partitions)]
        self._consumer = AIOKafkaConsumer(bootstrap_servers=target.kafka, client_id="gauge")
        self._connection: asyncpg.Connection | None = None

    async def look(self) -> Standing:
        """Take the positions first and the ends of the topics after them: what is equal then was at rest."""
        assert self._connection is not None  # noqa: S101  used as a context manager
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            positions: dict[tuple[str, str, int], int] = {}
            outbox: dict[str, int] = {}
            for schema in self._target.schemas:
                rows = await self._connection.fetch(
                    f"SELECT topic, partition, next_offset FROM {schema}.consumer_offset"  # noqa: S608  a known name
                )
                positions |= {(schema, row["topic"], row["partition"]): row["next_offset"] for row in rows}
                outbox[schema] = await self._connection.fetchval(f"SELECT count(*) FROM {schema}.outbox")  # noqa: S608
        ends = await self._consumer.end_offsets(self._partitions)
        return Standing(_records(ends), self._lag(positions, ends), outbox)

    async def rest(self, *, seconds_max: float, seen: Callable[[Standing], None] | None = None) -> Standing:
        """Look until the system is at rest; `seen` is told of every look.

        Raises:
            NotDrainedError: it was not within `seconds_max`; the message says what is left.
        """
        deadline = time.monotonic() + seconds_max
        while True:
            now = await self.look()
            if seen is not None:
                seen(now)
            if now.at_rest:
                return now
            if time.monotonic() > deadline:
                raise NotDrainedError(f"after {seconds_max:g} s: {describe(now)}")
            await asyncio.sleep(POLL_SECONDS)

    def _lag(
        self, positions: Mapping[tuple[str, str, int], int], ends: Mapping[TopicPartition, int]
    ) -> dict[tuple[str, str], int]:
        """A reader that the registry names and that has no position yet has read nothing."""
        reading = {(service, topic) for service, topic, _ in positions}
        reading |= {
            (service, t.name) for t in TOPICS.values() for service in t.readers if service in self._target.schemas
        }
        lag: dict[tuple[str, str], int] = dict.fromkeys(reading, 0)
        for service, topic in reading:
            for partition in range(TOPICS[topic].partitions):
                end = ends[TopicPartition(topic, partition)]
                lag[service, topic] += max(0, end - positions.get((service, topic, partition), 0))
        return lag

    async def __aenter__(self) -> Self:
        self._connection = await asyncpg.connect(self._target.postgres)
        await self._consumer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()
        if self._connection is not None:
            await self._connection.close()


async def standing(target: Target) -> Standing:
    """Look once."""
    async with Gauge(target) as gauge:
        return await gauge.look()


async def drained(target: Target, *, seconds_max: float) -> Standing:
    """Wait until the services are at rest.

    Raises:
        NotDrainedError: they were not within `seconds_max`; the message says what is left.
    """
    async with Gauge(target) as gauge:
        return await gauge.rest(seconds_max=seconds_max)


def describe(seen: Standing) -> str:
    """Say what is left to do."""
    left = [f"{service} has {lag} of {topic} to read" for (service, topic), lag in seen.lag.items() if lag]
    left += [f"{service} has {rows} outbox rows to publish" for service, rows in seen.outbox.items() if rows]
    return "; ".join(left) or "at rest"


def _records(ends: Mapping[TopicPartition, int]) -> dict[str, int]:
    records: dict[str, int] = dict.fromkeys(TOPICS, 0)
    for partition, end in ends.items():
        records[partition.topic] += end
    return records

"""What an upstream platform publishes, and how it is put on the wire: by the public CloudEvents library."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from typing import Any, Final, Literal

from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

MESSAGING: Final = "inmail.messaging.events"
CONTRACTS: Final = "inmail.contract.events"
MESSAGING_SOURCE: Final = "/upstream/messaging"
CONTRACTS_SOURCE: Final = "/upstream/contracts"

Mode = Literal["structured", "binary"]
Leaning = Literal["accept", "decline", "unclear"]
Service = Literal["ingestion", "credits"]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened upstream. Instants in `data` are datetimes.

    `content` (how R3 must read a reply) and `leaning` (what its own words mean) are known from how it was made.
    """

    type: str
    id: str
    time: datetime
    data: Mapping[str, Any]
    content: str | None = None
    leaning: Leaning | None = None

    @property
    def topic(self) -> str:
        """Where it is published."""
        return CONTRACTS if self.type.startswith(("contract.", "credits.", "seat.")) else MESSAGING

    @property
    def source(self) -> str:
        """Who publishes it."""
        return CONTRACTS_SOURCE if self.topic == CONTRACTS else MESSAGING_SOURCE

    @property
    def key(self) -> str:
        """The record's key, which is also the event's subject."""
        key = self.data["contract_id" if self.topic == CONTRACTS else "thread_id"]
        assert isinstance(key, str)  # noqa: S101  a slip of the scenario
        return key

    def later(self, delta: timedelta) -> "Fact":
        """Give the same fact, happening that much later."""
        data = {name: value + delta if isinstance(value, datetime) else value for name, value in self.data.items()}
        return replace(self, time=self.time + delta, data=data)


@dataclass(frozen=True, slots=True)
class Wire:
    """A record as the broker is given it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Poison:
    """Why a record must become a dead letter, and whose."""

    reason: str
    service: Service = "ingestion"


@dataclass(frozen=True)
class Record:
    """One record of a scenario.

    It says `fact`, unless it is `poison` or a `repeat` of an earlier record. `raw` stands for what no client library
    would write. `offset_minutes` is the UTC offset in which its times are written.
    """

    fact: Fact | None
    mode: Mode = "structured"
    offset_minutes: int = 0
    traceparent: str | None = None
    repeat: bool = False
    poison: Poison | None = None
    raw: Wire | None = field(default=None, repr=False)

    @cached_property
    def wire(self) -> Wire:
        """Topic, key, value and headers."""
        if self.raw is not None:
            return self.raw
        assert self.fact is not None  # noqa: S101  a slip of the scenario
        message = self._message(self.fact)
        assert isinstance(message.key, str)  # noqa: S101  the key mapper below gives one
        return Wire(self.fact.topic, message.key.encode(), message.value, tuple(message.headers.items()))

    @property
    def says_something(self) -> bool:
        """Whether it tells a fact that was not told before."""
        return self.fact is not None and self.poison is None and not self.repeat

    def _message(self, fact: Fact) -> KafkaMessage:
        zone = timezone(timedelta(minutes=self.offset_minutes)) if self.offset_minutes else UTC
        attributes = {
            "id": fact.id,
            "source": fact.source,
            "type": fact.type,
            "subject": fact.key,
            "time": fact.time.astimezone(zone),
            "datacontenttype": "application/json",
        }
        if self.traceparent is not None:
            attributes["traceparent"] = self.traceparent
        data = {n: v.astimezone(zone).isoformat() if isinstance(v, datetime) else v for n, v in fact.data.items()}
        convert = to_binary_event if self.mode == "binary" else to_structured_event
        return convert(CloudEvent(attributes, data), key_mapper=lambda _: fact.key)

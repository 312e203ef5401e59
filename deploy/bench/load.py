"""The events of the benchmarks: InMails of some contracts and seats, and a reply to each, every second in own words."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

from aiokafka import AIOKafkaProducer

from services.classification.model import corpus
from shared.events import Candidate, Event, to_instant
from shared.testing import builders

CONTRACTS: Final = 20
SEATS_PER_CONTRACT: Final = 5
ALLOTMENT: Final = 10_000_000
_DAYS_BACK: Final = 10

AnyEvent = Event[Any]
Record = tuple[bytes, bytes, list[tuple[str, bytes]]]
"""Key, value and headers."""


@lru_cache(maxsize=1)
def own_words() -> Sequence[str]:
    """All replies of people that the classifier is trained and measured on, in mixed order.

    Two thirds are hard to read, so they take more of the model's time than most; they are more than its service keeps
    predictions of, so each one that comes again is judged again.
    """
    rows = [*corpus.load("train"), *corpus.load("test")]
    return sorted({row.text for row in rows if row.label != "auto_reply"}, key=lambda text: crc32(text.encode()))


def start_of(now: datetime) -> datetime:
    """When the InMails of a run were sent: long enough ago that no reply lies in the future."""
    return to_instant(now - timedelta(days=_DAYS_BACK))


def contracts(start: datetime) -> list[AnyEvent]:
    """Contracts with more credits than a run can use, and their seats."""
    events: list[AnyEvent] = []
    for number in range(CONTRACTS):
        contract_id = f"contract-{number}"
        events.append(
            builders.contract_started(
                contract_id=contract_id, monthly_allotment=ALLOTMENT, at=start - timedelta(days=1)
            )
        )
        events += [
            builders.seat_assigned(
                contract_id=contract_id, seat_id=_seat(contract_id, seat), at=start - timedelta(days=1)
            )
            for seat in range(SEATS_PER_CONTRACT)
        ]
    return events


def inmails(start: datetime, count: int, *, first: int = 0) -> Iterator[AnyEvent]:
    """One InMail per thread, each sent a millisecond after the one before."""
    for n in range(first, first + count):
        contract_id = f"contract-{n % CONTRACTS}"
        yield builders.sent(
            inmail_id=f"inmail-{n}",
            thread_id=f"thread-{n}",
            contract_id=contract_id,
            seat_id=_seat(contract_id, n % SEATS_PER_CONTRACT),
            candidate=Candidate(id=f"candidate-{n}", name=f"Candidate {n}", locale="en", time_zone=None),
            at=start + timedelta(milliseconds=n),
        )


def replies(start: datetime, count: int, *, first: int = 0) -> Iterator[AnyEvent]:
    """A reply to each of those InMails, a day later: smart replies and own words in turn."""
    texts = own_words()
    for n in range(first, first + count):
        in_own_words = n % 2 == 0
        yield builders.reply(
            reply_id=f"reply-{n}",
            thread_id=f"thread-{n}",
            candidate_id=f"candidate-{n}",
            choice=None if in_own_words else ("interested", "not_interested")[n // 2 % 2],
            text=texts[n // 2 % len(texts)] if in_own_words else "",
            at=start + timedelta(days=1, milliseconds=n),
        )


def encoded(events: Iterable[AnyEvent]) -> list[Record]:
    """Write events as records before they are sent: what that takes is the upstream's time, not the system's."""
    return [builders.record(event) for event in events]


async def publish(bootstrap: str, topic: str, records: Sequence[Record]) -> None:
    """Send records as fast as the broker takes them."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, max_batch_size=262_144)
    await producer.start()
    try:
        sent = [await producer.send(topic, key=key, value=value, headers=headers) for key, value, headers in records]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def now() -> datetime:
    """The clock of the benchmark."""
    return datetime.now(UTC)


def _seat(contract_id: str, number: int) -> str:
    return f"{contract_id}-seat-{number}"

"""What can be seen of a system from outside: its topics, its HTTP answers, and the books in its database."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import asyncpg
import httpx
import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from deploy.verifier.drain import Standing, standing
from deploy.verifier.target import Target
from shared.events import format_instant
from shared.topics import CONTRACT_EVENTS, MESSAGING_EVENTS, TOPICS

UPSTREAM: Final = (MESSAGING_EVENTS, CONTRACT_EVENTS)
HTTP_SECONDS_MAX: Final = 30.0
HTTP_AT_ONCE: Final = 8
PAGE: Final = 200
# Every thread is compared with the folders; so many are asked for one by one as well.
THREADS_ASKED_MAX: Final = 120
_STRUCTURED: Final = b"application/cloudevents+json"
_POLL_MS: Final = 200
# The end is known, so there is nothing to wait for.
_FETCH_WAIT_MS: Final = 10

Headers = tuple[tuple[str, bytes], ...]
Json = dict[str, Any]


class Seen(NamedTuple):
    """A record as the broker has it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Derived:
    """An event that a service has published; absent attributes are empty."""

    topic: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    cause: tuple[str, str]
    root_id: str
    data: Json


class DeadLetter(NamedTuple):
    """A dead letter; `origin` is the topic, partition and offset that it names."""

    service: str
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    origin: tuple[str, int, int]


@dataclass(slots=True)
class Books:
    """The ledger in Postgres: per contract the balances that credits keeps, and the sums of its postings."""

    balances: dict[str, dict[str, int]] = field(default_factory=dict)
    postings: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Answers:
    """What inbox answers: credits by contract, rates and whole folders by seat, threads and drafts by thread."""

    credits: dict[str, Json] = field(default_factory=dict)
    rates: dict[str, Json] = field(default_factory=dict)
    folders: dict[str, list[Json]] = field(default_factory=dict)
    awaiting: dict[str, list[Json]] = field(default_factory=dict)
    threads: dict[str, Json] = field(default_factory=dict)
    selected: dict[str, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class Observed:
    """Everything that was seen. `derived` holds each event once, in the order of its partition.

    `repeats` counts events that were on the wire again, `unequal` names those whose bytes differed then, `malformed`
    the records that are no structured events. `parked` are the values of the records that wait, by service.
    """

    upstream: list[Seen] = field(default_factory=list)
    derived: dict[str, list[Derived]] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    repeats: int = 0
    unequal: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    standing: Standing = field(default_factory=Standing)
    parked: dict[str, list[bytes]] = field(default_factory=dict)
    books: Books = field(default_factory=Books)
    answers: Answers = field(default_factory=Answers)

    def of_type(self, topic: str, *types: str) -> list[Derived]:
        """The events of a topic that are of these types."""
        return [event for event in self.derived.get(topic, []) if event.type in types]


async def observe(target: Target, *, as_of: datetime) -> Observed:
    """Look at a system at rest; `as_of` is the instant for which credits and rates are asked."""
    observed = Observed(standing=await standing(target))
    await _read_topics(target, observed)
    await _read_database(target, observed)
    if "inbox" in target.services:
        observed.answers = await _ask(target.services["inbox"], observed, as_of)
    return observed


# Topics


async def _read_topics(target: Target, observed: Observed) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=target.kafka,
        group_id=None,
        client_id="verifier",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        fetch_max_bytes=64 * 1024 * 1024,
        fetch_max_wait_ms=_FETCH_WAIT_MS,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(t.name, p) for t in TOPICS.values() for p in range(t.partitions)]
        ends = {tp: end for tp, end in (await consumer.end_offsets(partitions)).items() if end}
        if not ends:
            return
        consumer.assign(list(ends))
        await consumer.seek_to_beginning()
        eyes = _Eyes(observed)
        pending = dict(ends)
        while pending:
            for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                eyes.see(records)
                if await consumer.position(tp) >= ends[tp]:
                    pending.pop(tp, None)
    finally:
        await consumer.stop()


class _Eyes:
    """Sorts records into what they are."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._values: dict[tuple[str, str, str], bytes | None] = {}

    def see(self, records: Iterable[ConsumerRecord]) -> None:
        for record in records:
            if record.topic in UPSTREAM:
                self._observed.upstream.append(_seen(record))
            elif record.topic.endswith(".dead-letters"):
                self._observed.dead.append(_dead_letter(record))
            else:
                self._event(record)

    def _event(self, record: ConsumerRecord) -> None:
        event = _derived(record)
        if event is None:
            self._observed.malformed.append(f"{record.topic} {record.partition} {record.offset}")
            return
        identity = (record.topic, event.source, event.id)
        if identity not in self._values:
            self._values[identity] = record.value
            self._observed.derived.setdefault(record.topic, []).append(event)
            return
        self._observed.repeats += 1
        if self._values[identity] != record.value:
            self._observed.unequal.append(" ".join(identity))


def _seen(record: ConsumerRecord) -> Seen:
    return Seen(record.topic, record.partition, record.offset, record.key, record.value, tuple(record.headers))


def _derived(record: ConsumerRecord) -> Derived | None:
    """Read a structured event; None where it is none, or where its key is not its subject."""
    try:
        e = orjson.loads(record.value or b"")
        event = Derived(
            record.topic,
            e["id"],
            e["source"],
            e["type"],
            e["subject"],
            e["time"],
            (e.get("causesource", ""), e.get("causeid", "")),
            e.get("rootid", ""),
            e["data"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    sound = dict(record.headers).get("content-type") == _STRUCTURED and e.get("specversion") == "1.0"
    return event if sound and event.subject.encode() == record.key else None


def _dead_letter(record: ConsumerRecord) -> DeadLetter:
    headers = {name: value.decode() for name, value in record.headers if name.startswith("dlq-")}
    origin = (headers["dlq-topic"], int(headers["dlq-partition"]), int(headers["dlq-offset"]))
    service = record.topic.removeprefix("inmail.").removesuffix(".dead-letters")
    return DeadLetter(service, headers["dlq-reason"], headers["dlq-detail"], record.key, record.value, origin)


# The database

_BALANCES: Final = "SELECT contract_id, granted, available, held, taken, expired FROM credits.contract"
_POSTINGS: Final = """
SELECT contract_id, account, sum(amount)::bigint AS amount FROM credits.posting GROUP BY contract_id, account
"""


async def _read_database(target: Target, observed: Observed) -> None:
    connection = await asyncpg.connect(target.postgres)
    try:
        for schema in target.schemas:
            rows = await connection.fetch(f"SELECT value FROM {schema}.parked")  # noqa: S608  a known name
            observed.parked[schema] = [row["value"] for row in rows]
        if "credits" in target.schemas:
            for row in await connection.fetch(_BALANCES):
                balances = dict(row)
                observed.books.balances[balances.pop("contract_id")] = balances
            for row in await connection.fetch(_POSTINGS):
                observed.books.postings.setdefault(row["contract_id"], {})[row["account"]] = row["amount"]
    finally:
        await connection.close()


# HTTP


async def _ask(url: str, observed: Observed, as_of: datetime) -> Answers:
    """Ask for what the topics speak of: contracts, seats that own threads or sent InMails, and some threads."""
    contracts = sorted({seen.key.decode() for seen in observed.upstream if seen.topic == CONTRACT_EVENTS and seen.key})
    states = observed.of_type("inmail.thread.states", "thread.state.v1")
    statuses = observed.of_type("inmail.conversation.events", "inmail.status_changed.v1")
    seats = sorted({event.data["seat_id"] for event in (*states, *statuses)})
    drafted = sorted({e.subject for e in observed.of_type("inmail.conversation.events", "reply.draft_changed.v1")})
    threads = sorted({event.subject for event in states})
    every = max(1, len(threads) // THREADS_ASKED_MAX)
    answers = Answers()
    async with httpx.AsyncClient(base_url=url, timeout=HTTP_SECONDS_MAX) as client:
        asking = _Asking(client, asyncio.Semaphore(HTTP_AT_ONCE), {"as_of": format_instant(as_of)})
        await asyncio.gather(
            *(asking.into(answers.credits, c, f"/v1/contracts/{quote(c, safe='')}/credits") for c in contracts),
            *(asking.into(answers.rates, s, f"/v1/seats/{quote(s, safe='')}/response-rate") for s in seats),
            *(asking.folder(answers.folders, s, "all") for s in seats),
            *(asking.folder(answers.awaiting, s, "awaiting-reply") for s in seats),
            *(asking.into(answers.threads, t, f"/v1/threads/{quote(t, safe='')}") for t in threads[::every]),
            *(asking.selected(answers.selected, t) for t in drafted[:THREADS_ASKED_MAX]),
        )
    return answers


class _Asking(NamedTuple):
    """A few requests at once."""

    client: httpx.AsyncClient
    turn: asyncio.Semaphore
    moment: Mapping[str, str]

    async def get(self, path: str, **parameters: str) -> Json:
        """Ask once; whatever is no answer stops the observation."""
        async with self.turn:
            response = await self.client.get(path, params=parameters)
        response.raise_for_status()
        answer: Json = orjson.loads(response.content)
        return answer

    async def into(self, answers: dict[str, Json], key: str, path: str) -> None:
        answers[key] = await self.get(path, **self.moment)

    async def folder(self, answers: dict[str, list[Json]], seat_id: str, name: str) -> None:
        """Read a folder to its end."""
        items, cursor = answers.setdefault(seat_id, []), dict[str, str]()
        while True:
            path = f"/v1/seats/{quote(seat_id, safe='')}/folders/{name}"
            page = await self.get(path, limit=str(PAGE), **cursor)
            items += page["items"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def selected(self, answers: dict[str, str | None], thread_id: str) -> None:
        found = await self.get(f"/v1/threads/{quote(thread_id, safe='')}/smart-replies")
        answers[thread_id] = found["selected"]

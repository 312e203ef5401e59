"""Ingestion's wiring: messaging events in; the conversation, accounting facts and classification requests out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
from prometheus_client import Counter

from services.ingestion import store
from services.ingestion.domain import Decision, decide
from services.ingestion.state import Thread
from shared.events import ClassificationRequestedV1, EventData, InmailStatusChangedV1, ReplyRecordedV1
from shared.stream.effects import Effects
from shared.stream.parking import load_parked
from shared.stream.processor import Read
from shared.stream.records import AnyIncoming
from shared.stream.service import Resources, ServiceSpec
from shared.topics import ACCOUNTING_FACTS, CLASSIFICATION_REQUESTS, CONVERSATION_EVENTS, MESSAGING_EVENTS

# What makes an InMail known, and so may end the wait of a parked record.
_BRINGS_INMAIL: Final = frozenset({"inmail.scheduled.v1", "inmail.sent.v1"})


class Round:
    """Decides records in the order of arrival, each as if it had come alone.

    `waiting` holds the parked records that may be set free, by thread, in order of arrival.
    """

    def __init__(
        self, threads: Mapping[str, Thread], waiting: Mapping[str, Sequence[AnyIncoming]], effects: Effects
    ) -> None:
        self._threads = threads
        self._waiting = defaultdict(list, {thread_id: list(records) for thread_id, records in waiting.items()})
        self._effects = effects
        self.unknown_templates = 0

    def take(self, incoming: AnyIncoming) -> None:
        """Decide a record, and then what waited for it."""
        thread_id = incoming.event.subject
        decision = self._decide(incoming)
        if decision.verdict == "parked":
            self._effects.park(incoming, thread_id)
            self._waiting[thread_id].append(incoming)
        elif decision.brings_inmail and thread_id in self._waiting:
            self._waiting[thread_id] = [parked for parked in self._waiting[thread_id] if not self._is_over(parked)]

    def _is_over(self, parked: AnyIncoming) -> bool:
        """Decide a parked record again, and say whether its wait is over."""
        over = self._decide(parked).verdict != "parked"
        if over:
            self._effects.release(parked)
        return over

    def _decide(self, incoming: AnyIncoming) -> Decision:
        decision = decide(self._threads[incoming.event.subject], incoming.event)
        for outgoing in decision.outgoing:
            topic, also = _topics(outgoing.data)
            self._effects.emit(topic, incoming, outgoing.data, at=outgoing.at, index=outgoing.index, also=also)
        if decision.verdict == "dead":
            self._effects.dead(incoming, decision.reason, decision.detail)
        self.unknown_templates += decision.unknown_template
        return decision


class IngestionHandler:
    """Brings the threads of a batch into memory, decides the batch, and writes back what changed."""

    def __init__(self, resources: Resources) -> None:
        self._unknown_templates = Counter(
            "inmail_unknown_templates",
            "How many replies name a smart reply that is not known here, and so are read as own words (R3)?",
            registry=resources.metrics.registry,
        )

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:
        """Nothing is slow here."""

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        """Apply a batch to the threads it is about."""
        threads = await store.load(tx, {incoming.event.subject for incoming in batch})
        hopeful = {incoming.event.subject for incoming in batch if incoming.event.type in _BRINGS_INMAIL}
        decided = Round(threads, await load_parked(tx, hopeful) if hopeful else {}, effects)
        for incoming in batch:
            decided.take(incoming)
        await store.save(tx, threads.values())
        effects.tally(self._unknown_templates, decided.unknown_templates)


def _topics(data: EventData) -> tuple[str, str | None]:
    # By `type`, for `isinstance` walks through Python code with pydantic's classes.
    kind = type(data)
    if kind is ClassificationRequestedV1:
        return CLASSIFICATION_REQUESTS, None
    if kind is InmailStatusChangedV1 or (kind is ReplyRecordedV1 and getattr(data, "content", "") != "automated"):
        return CONVERSATION_EVENTS, ACCOUNTING_FACTS
    return CONVERSATION_EVENTS, None


SPEC: Final = ServiceSpec(
    name="ingestion",
    reads=(Read(MESSAGING_EVENTS, dedupe=True, upstream=True),),
    handler=IngestionHandler,
    gather_ms=60,  # the path's one wait: what it emits comes to the others in batches already
    hurried=True,
)

"""Wiring of notification: conversation, outcomes and contract events in; notification requests out.

Conversation and outcomes are both keyed by thread_id and worked in one loop, so one process owns a thread. Seats and
their preferences come by contract: what is committed of them when an outcome is decided is what counts.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg
from prometheus_client import Counter

from services.notification import store
from services.notification.domain import (
    Audience,
    Decision,
    OutcomeData,
    Seats,
    Thread,
    decide,
    notification_id,
    recipients_of,
)
from services.notification.store import RequestRow
from shared.events import (
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
    SeatAssignedV1,
    SeatPreferencesSetV1,
    ThreadAudienceChangedV1,
)
from shared.stream.effects import Effects
from shared.stream.parking import load_parked
from shared.stream.processor import Read
from shared.stream.records import AnyIncoming, Incoming, in_order_of_arrival
from shared.stream.service import Resources, ServiceSpec
from shared.topics import CONTRACT_EVENTS, CONVERSATION_EVENTS, NOTIFICATION_REQUESTS, OUTCOME_EVENTS


class Round:
    """Decides records one after the other, each as if it had come alone, and notes what is to be written.

    `threads` and `seats` are those that the records are about; `waiting` holds the parked outcomes, by thread, in order
    of arrival.
    """

    def __init__(
        self,
        threads: Mapping[str, Thread],
        seats: Seats,
        waiting: Mapping[str, Sequence[AnyIncoming]],
        effects: Effects,
    ) -> None:
        self.threads = threads
        self.seats = seats
        self.waiting = {thread_id: list(records) for thread_id, records in waiting.items()}
        self.audiences: list[tuple[str, Audience]] = []
        self.requests: list[RequestRow] = []
        self.retracted_ids: list[str] = []
        self.gaps = 0
        self.unknown_time_zones = 0
        self._effects = effects

    def take(self, incoming: AnyIncoming) -> None:
        """Decide one record, and then what waited for it."""
        data = incoming.event.data
        if isinstance(data, OutcomeDecidedV1 | OutcomeUnchangedV1):
            self._take_outcome(incoming)
        elif incoming.position.topic == CONVERSATION_EVENTS:
            self._take_conversation(incoming)
        elif isinstance(data, SeatAssignedV1):
            self.unknown_time_zones += not self.seats.assign(data)
        elif isinstance(data, SeatPreferencesSetV1):
            self.seats.prefer(data)

    def _take_conversation(self, incoming: AnyIncoming) -> None:
        data = incoming.event.data
        thread = self.threads[data.thread_id]
        late = data.thread_version <= thread.thread_version
        if late and not incoming.redriven:
            self._effects.duplicate(incoming)
            return
        if not late:
            self.gaps += data.thread_version - thread.thread_version - 1
            thread.thread_version = data.thread_version
        if isinstance(data, ThreadAudienceChangedV1):
            audience = Audience(data.thread_version, data.owner_seat_id, data.follower_seat_ids, data.at)
            insort(thread.audiences, audience, key=lambda known: known.thread_version)
            self.audiences.append((thread.thread_id, audience))
        self._resume(thread)

    def _take_outcome(self, incoming: Incoming[OutcomeData]) -> None:
        """Decide an outcome once the view has reached its version, and never before one that came earlier."""
        data = incoming.event.data
        thread = self.threads[data.thread_id]
        waiting = self.waiting.setdefault(data.thread_id, [])
        if waiting or data.thread_version > thread.thread_version:
            self._effects.park(incoming, data.thread_id)
            waiting.append(incoming)
            self._resume(thread)
        else:
            self._decide(thread, incoming)

    def _resume(self, thread: Thread) -> None:
        """Decide what waited, up to the first whose version is not reached yet."""
        waiting = self.waiting.get(thread.thread_id, [])
        while waiting and waiting[0].event.data.thread_version <= thread.thread_version:
            incoming = waiting.pop(0)
            self._effects.release(incoming)
            self._decide(thread, incoming)

    def _decide(self, thread: Thread, incoming: Incoming[OutcomeData]) -> None:
        before = thread.outcome_version
        decision = decide(thread, self.seats, incoming.event)
        if decision is None:
            self._effects.duplicate(incoming)
            return
        self.gaps += max(0, thread.outcome_version - before - 1)
        self._publish(thread, incoming, decision)

    def _publish(self, thread: Thread, incoming: Incoming[OutcomeData], decision: Decision) -> None:
        at = incoming.event.data.decided_at
        for index, retraction in enumerate(decision.retractions):
            self._effects.emit(NOTIFICATION_REQUESTS, incoming, retraction, at=at, index=index)
            self.retracted_ids.append(retraction.notification_id)
        for request in decision.requests:
            data = request.data
            self._effects.emit(NOTIFICATION_REQUESTS, incoming, data, at=at, index=request.index)
            seat_id = data.recipient.seat_id
            told = thread.newest[seat_id, data.channel].outcome_notification_id
            self.requests.append(
                RequestRow(
                    data.notification_id,
                    thread.thread_id,
                    seat_id,
                    data.channel,
                    data.version,
                    told,
                    data.deliver_after,
                )
            )


class NotificationHandler:
    """Brings what a batch is about into memory, decides the batch in order of arrival, and writes what changed."""

    def __init__(self, resources: Resources) -> None:
        self._gaps = resources.metrics.gaps
        self._unknown_time_zones = Counter(
            "inmail_unknown_time_zones",
            "How many seats were assigned with a time zone that does not exist here, and so are told by UTC?",
            registry=resources.metrics.registry,
        )

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:
        """Nothing is slow here."""

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        """Apply a batch to the threads and seats it is about."""
        threads, seats, waiting = await load(tx, batch)
        work = Round(threads, seats, waiting, effects)
        for incoming in in_order_of_arrival(batch):
            work.take(incoming)
        for thread in threads.values():
            thread.holding = bool(work.waiting.get(thread.thread_id))
        await store.save_threads(tx, list(threads.values()))
        await store.save_audiences(tx, work.audiences)
        await store.save_requests(tx, work.requests, work.retracted_ids)
        await store.save_seats(tx, seats)
        effects.tally(self._gaps, work.gaps)
        effects.tally(self._unknown_time_zones, work.unknown_time_zones)


async def load(
    tx: asyncpg.Connection, batch: Sequence[AnyIncoming]
) -> tuple[dict[str, Thread], Seats, dict[str, list[AnyIncoming]]]:
    """Lock the threads of a batch and read all that deciding it needs: threads, seats, parked outcomes by thread."""
    by_thread = [i for i in batch if i.position.topic in {CONVERSATION_EVENTS, OUTCOME_EVENTS}]
    threads = await store.load_threads(tx, {i.event.subject for i in by_thread})
    holding = [t.thread_id for t in threads.values() if t.holding]
    waiting = await load_parked(tx, holding) if holding else {}
    parked = [incoming for records in waiting.values() for incoming in records]
    outcomes = [i for i in (*parked, *by_thread) if isinstance(i.event.data, OutcomeDecidedV1 | OutcomeUnchangedV1)]
    concerned = {thread_id: threads[thread_id] for thread_id in {o.event.data.thread_id for o in outcomes}}
    await store.load_audiences(tx, concerned.values())
    recipients = _possible_recipients(concerned, outcomes, by_thread)
    contract_data = [i.event.data for i in batch if i.position.topic == CONTRACT_EVENTS]
    told = [data for data in contract_data if isinstance(data, SeatAssignedV1 | SeatPreferencesSetV1)]
    seats = await store.load_seats(
        tx, {s for ids in recipients.values() for s in ids} | {data.seat_id for data in told}
    )
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for data in told:
        if isinstance(data, SeatPreferencesSetV1):
            wanted[data.seat_id].update(data.channels)
    await _load_requests(tx, concerned, outcomes=outcomes, recipients=recipients, seats=seats, wanted=wanted)
    return threads, seats, waiting


def _possible_recipients(
    threads: Mapping[str, Thread], outcomes: Iterable[AnyIncoming], by_thread: Iterable[AnyIncoming]
) -> dict[str, set[str]]:
    """Everybody to whom the outcomes of these threads may be told, whichever version they name."""
    recipients: defaultdict[str, set[str]] = defaultdict(set)
    for thread_id, thread in threads.items():
        for audience in thread.audiences:
            recipients[thread_id].update(audience.recipients)
    for outcome in outcomes:
        recipients[outcome.event.subject].add(outcome.event.data.seat_id)
    for incoming in by_thread:
        data = incoming.event.data
        if isinstance(data, ThreadAudienceChangedV1) and data.thread_id in threads:
            recipients[data.thread_id].update((data.owner_seat_id, *data.follower_seat_ids))
    return recipients


async def _load_requests(
    tx: asyncpg.Connection,
    threads: Mapping[str, Thread],
    *,
    outcomes: Iterable[AnyIncoming],
    recipients: Mapping[str, Iterable[str]],
    seats: Seats,
    wanted: Mapping[str, set[str]],
) -> None:
    """Complete the threads that have requests: newest ones, deferred ones, and those that a repeat would make again."""
    notified = {thread_id: thread for thread_id, thread in threads.items() if thread.notified}
    if not notified:
        return
    slots = [
        (thread_id, seat_id, channel)
        for thread_id in notified
        for seat_id in recipients[thread_id]
        for channel in {*seats.channels_of(seat_id), *wanted.get(seat_id, ())}
    ]
    await store.load_newest(tx, notified, slots)
    earliest: dict[str, datetime] = {}
    unchanged_ids = []
    for outcome in outcomes:
        data = outcome.event.data
        if data.thread_id not in notified:
            continue
        if isinstance(data, OutcomeDecidedV1):
            earliest[data.thread_id] = min(earliest.get(data.thread_id, data.decided_at), data.decided_at)
        else:
            first = recipients_of(notified[data.thread_id], data)[0]
            unchanged_ids.append(notification_id(outcome.event, first, "in_thread"))
    await store.load_deferred(tx, notified, earliest.items())
    await store.load_made(tx, notified, unchanged_ids)


SPEC: Final = ServiceSpec(
    name="notification",
    reads=(
        Read(CONVERSATION_EVENTS, dedupe=False, waits=True),
        Read(OUTCOME_EVENTS, dedupe=False),
        Read(CONTRACT_EVENTS, dedupe=True, upstream=True, owns_dead_letters=False),
    ),
    handler=NotificationHandler,
)

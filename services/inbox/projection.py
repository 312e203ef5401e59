"""How a batch of events changes what the inbox knows, and which thread states it publishes."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

import asyncpg

from services.inbox import private, store
from services.inbox.domain import Inmail, Thread, is_reached, learn_fact, learn_outcome, thread_state
from services.inbox.in_flight import StatesInFlight
from shared.events import (
    CreditPostedV1,
    Event,
    InmailStatusChangedV1,
    NotificationRequestedV1,
    OutcomeCorrectionRejectedV1,
    ReplyDraftChangedV1,
)
from shared.metrics import Metrics
from shared.stream.effects import Effects
from shared.stream.parking import load_parked
from shared.stream.records import AnyIncoming
from shared.topics import CONVERSATION_EVENTS, CREDIT_EVENTS, NOTIFICATION_REQUESTS, OUTCOME_EVENTS, THREAD_STATES

logger = logging.getLogger(__name__)

_PRIVATE: Final = {"candidate", "text"}
"""The fields of consumed events that name a person or hold a text: they are not kept with the facts."""


@dataclass(slots=True)
class _Turn:
    """One batch: what was loaded, and what is to be written at its end."""

    tx: asyncpg.Connection
    effects: Effects
    threads: dict[str, Thread] = field(default_factory=dict)
    changed: dict[str, AnyIncoming] = field(default_factory=dict)
    """By thread, the event that brought it into its newest state."""
    inmails: dict[str, Inmail] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    answered_at: dict[str, datetime] = field(default_factory=dict)
    facts: list[store.FactRow] = field(default_factory=list)

    def thread(self, thread_id: str) -> Thread:
        """The thread, also one of which nothing is known yet."""
        thread = self.threads.get(thread_id)
        if thread is None:
            thread = self.threads[thread_id] = Thread(thread_id)
        return thread


class Projection:
    """The inbox's handler. Conversation comes before outcomes, so that fewer of these have to wait."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._in_flight = StatesInFlight()

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:
        """Nothing is slow here."""

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        """Apply a batch: a fixed number of statements, whatever its size."""
        topics: dict[str, list[AnyIncoming]] = {}
        for incoming in batch:
            topics.setdefault(incoming.position.topic, []).append(incoming)
        conversation, outcomes = topics.get(CONVERSATION_EVENTS, []), topics.get(OUTCOME_EVENTS, [])
        turn = _Turn(tx, effects)
        await self._load(turn, conversation, outcomes)
        advanced = self._learn_facts(turn, conversation)
        await self._learn_outcomes(turn, await self._released(turn, advanced), outcomes)
        turn.facts += [_notification_row(incoming.event) for incoming in topics.get(NOTIFICATION_REQUESTS, [])]
        await self._save(turn)
        await _save_ledger(tx, topics.get(CREDIT_EVENTS, []))
        # Judged before this batch's own states are in flight: what was read cannot be one of them.
        behind = self._in_flight.read(topics.get(THREAD_STATES, []))
        self._publish(turn)
        await self._send_again(turn, behind)

    async def _load(self, turn: _Turn, conversation: Sequence[AnyIncoming], outcomes: Sequence[AnyIncoming]) -> None:
        turn.threads = await store.load_threads(
            turn.tx, {incoming.event.subject for incoming in (*conversation, *outcomes)}
        )
        sent_again = {i.event.subject for i in conversation if type(i.event.data) is InmailStatusChangedV1}
        await store.load_inmails(turn.tx, [turn.threads[known] for known in sent_again & turn.threads.keys()])

    def _learn_facts(self, turn: _Turn, conversation: Iterable[AnyIncoming]) -> list[str]:
        """Add conversation events to their threads; returns the threads, for whose outcomes may have waited."""
        advanced = dict[str, None]()
        for incoming in conversation:
            event = incoming.event
            data = event.data
            thread = turn.thread(data.thread_id)
            name, version = thread.candidate_name, thread.version
            if not learn_fact(thread, data, redriven=incoming.redriven):
                turn.effects.duplicate(incoming)
                continue
            if data.thread_version > version + 1:
                turn.effects.tally(self._metrics.gaps, data.thread_version - version - 1)
            turn.changed[data.thread_id] = incoming
            advanced[data.thread_id] = None
            kind = type(data)
            if kind is InmailStatusChangedV1:
                turn.inmails[data.inmail_id] = thread.inmails[data.inmail_id]
                if thread.candidate_name is not None and thread.candidate_name != name:
                    turn.names[data.thread_id] = thread.candidate_name
            if kind is not ReplyDraftChangedV1:  # drafts show in the compose view and nowhere else (R2)
                turn.facts.append(_fact_row(event, data.thread_version))
        return list(advanced)

    async def _released(self, turn: _Turn, advanced: Sequence[str]) -> list[AnyIncoming]:
        """The outcomes that have waited for what these threads have reached now, in order of arrival."""
        if not advanced:
            return []
        waiting = await load_parked(turn.tx, advanced)
        released = [
            incoming
            for thread_id in advanced
            for incoming in waiting.get(thread_id, ())
            if is_reached(turn.thread(thread_id), incoming.event.data)
        ]
        for incoming in released:
            turn.effects.release(incoming)
        return released

    async def _learn_outcomes(
        self, turn: _Turn, released: Sequence[AnyIncoming], outcomes: Sequence[AnyIncoming]
    ) -> None:
        for incoming in (*released, *outcomes):
            event = incoming.event
            data = event.data
            if type(data) is OutcomeCorrectionRejectedV1:
                turn.facts.append(_fact_row(event, data.version))
                continue
            thread = turn.thread(data.thread_id)
            if not is_reached(thread, data):
                turn.effects.park(incoming, data.thread_id)
                continue
            if learn_outcome(thread, data):
                turn.changed[data.thread_id] = incoming
            known = turn.answered_at.get(data.inmail_id)
            turn.answered_at[data.inmail_id] = data.responded_at if known is None else min(known, data.responded_at)
            turn.facts.append(_fact_row(event, data.version))

    async def _save(self, turn: _Turn) -> None:
        await store.save_threads(turn.tx, [turn.threads[thread_id] for thread_id in turn.changed])
        await private.save_names(turn.tx, turn.names)
        await store.save_inmails(turn.tx, turn.inmails.values())
        await store.save_answers(turn.tx, turn.answered_at)
        await store.add_facts(turn.tx, turn.facts)

    def _publish(self, turn: _Turn) -> None:
        """Publish each changed thread once, in its newest state: the topic keeps no other."""
        for thread_id, cause in turn.changed.items():
            self._emit(turn.effects, turn.threads[thread_id], cause)

    async def _send_again(self, turn: _Turn, behind: dict[str, AnyIncoming]) -> None:
        """Send states whose newest record on the topic is an older one than the table's.

        A process that was frozen between commit and publish may have written behind its successor.
        """
        suspects = behind.keys() - turn.changed.keys()
        if not suspects:
            return
        threads = await store.load_threads(turn.tx, suspects)
        for thread_id in sorted(threads):
            thread, cause = threads[thread_id], behind[thread_id]
            seen = cause.event.data
            if seen.thread_version < thread.version or seen.outcome_version < thread.outcome_version:
                self._emit(turn.effects, thread, cause)

    def _emit(self, effects: Effects, thread: Thread, cause: AnyIncoming) -> None:
        state = thread_state(thread)
        if state is not None:
            # The number tells the states apart that one event brings about when batches fall differently.
            effects.emit(THREAD_STATES, cause, state, at=cause.event.time, index=thread.state_number)
            effects.once_committed.append(partial(self._in_flight.sent, state))


async def _save_ledger(tx: asyncpg.Connection, credit_events: Iterable[AnyIncoming]) -> None:
    entries, denials = [], []
    for incoming in credit_events:
        data = incoming.event.data
        if type(data) is CreditPostedV1:
            entries.append(
                store.EntryRow(
                    data.contract_id,
                    data.entry_number,
                    data.entry_id,
                    data.seat_id,
                    data.inmail_id,
                    data.kind,
                    data.amount,
                    data.balance_after.available,
                    data.balance_after.held,
                    data.cause_id,
                    data.effective_at,
                )
            )
        else:
            denials.append(store.DenialRow(data.inmail_id, data.contract_id, data.seat_id, data.reason, data.at))
    await store.add_entries(tx, entries)
    await store.add_denials(tx, denials)


def _notification_row(event: Event[Any]) -> store.FactRow:
    data = event.data
    # A retraction names its thread by the subject alone.
    thread_id = data.thread_id if type(data) is NotificationRequestedV1 and data.thread_id else data.subject_key
    return _fact_row(event, data.version, thread_id=thread_id)


def _fact_row(event: Event[Any], number: int, *, thread_id: str | None = None) -> store.FactRow:
    return store.FactRow(
        thread_id or event.subject,
        event.id,
        event.type,
        event.time,
        number,
        event.causeid,
        event.rootid,
        event.data.model_dump_json(exclude=_PRIVATE, exclude_none=True),
    )

"""Wiring of credits: contract events and accounting facts in, ledger postings and denials out.

Both topics are keyed by contract_id and worked in one loop, so one process owns a contract, and one order decides it.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from math import nan
from typing import get_args

import asyncpg
from prometheus_client import Counter, Gauge

from services.credits import store
from services.credits.book import Book
from services.credits.domain import Denial, Entry
from shared.events import Balance, CreditDeniedV1, CreditPostedV1, LedgerKind, derived_id
from shared.stream.effects import Effects
from shared.stream.processor import Read
from shared.stream.records import AnyIncoming, in_order_of_arrival
from shared.stream.service import Resources, ServiceSpec
from shared.topics import ACCOUNTING_FACTS, CONTRACT_EVENTS, CREDIT_EVENTS

logger = logging.getLogger(__name__)

AUDIT_SECONDS_MIN = 15.0
"""Time between two audits of the ledger: often enough for an alert, seldom enough not to be felt."""
AUDIT_CONTRACTS_MAX = 2_000
"""An audit looks at so many in turn, at as many that changed and at as many that differed: a batch waits meanwhile."""


class Audit:
    """Keeps the gauge of what balances and the ledger's sums differ by: where they changed, and in turn everywhere."""

    def __init__(self, pool: asyncpg.Pool, gauge: Gauge) -> None:
        self._pool = pool
        self._gauge = gauge
        self._next_at = 0.0
        self._changed: set[str] = set()
        self._differing: dict[str, int] = {}
        self._after = ""
        self._begun = False

    def note(self, contract_ids: Iterable[str]) -> None:
        """Look at these next. Those that are too many, or whose batch commits only after that, come in turn."""
        self._changed.update(islice(contract_ids, max(0, AUDIT_CONTRACTS_MAX - len(self._changed))))

    async def run_if_due(self) -> None:
        """Audit what was committed, unless that was done a moment ago. A failure is logged: no record is to blame."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + AUDIT_SECONDS_MIN
        try:
            await self._run()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            logger.warning("the ledger could not be audited: %s", type(error).__name__)
            # That all was right may be true no more; what differed is still to be looked into.
            self._gauge.set(sum(self._differing.values()) or nan)
            return
        imbalance = sum(self._differing.values())
        self._gauge.set(imbalance)
        if imbalance:
            logger.error("balances and ledger differ by %d credits in all", imbalance)

    async def _run(self) -> None:
        if not self._begun:  # what a process before this one found is found again
            self.note(await store.unexplained(self._pool, limit=AUDIT_CONTRACTS_MAX))
        in_turn = await store.contract_ids(self._pool, after=self._after, limit=AUDIT_CONTRACTS_MAX)
        changed, self._changed = self._changed, set()  # what changes meanwhile is for the next
        wanted = {*in_turn, *changed, *islice(self._differing, AUDIT_CONTRACTS_MAX)}
        try:
            found = await store.audit(self._pool, sorted(wanted))
        except BaseException:
            self.note(changed)
            raise
        self._begun = True
        self._after = in_turn[-1] if len(in_turn) == AUDIT_CONTRACTS_MAX else ""
        for contract_id in wanted:
            self._differing.pop(contract_id, None)
        self._differing |= found  # at the end, for those that had to wait come first


class LedgerKeeper:
    """Decides batches of contract events and accounting facts."""

    def __init__(self, audit: Audit, posted_credits: Counter) -> None:
        self._audit = audit
        self._posted_credits = posted_credits

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:  # noqa: ARG002  the audit is about earlier batches
        """Audit the ledger now and then."""
        await self._audit.run_if_due()

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        """Decide the batch in the order of arrival, write what changed and say what is published."""
        records = in_order_of_arrival(batch)
        book = await store.load(tx, records)
        waited = {key: list(kept) for key, kept in book.waiting.items()}
        book.take(records)
        self._audit.note(book.changed_contracts)
        posted = publish(book, effects)
        await store.save(tx, book, posted)
        moved: dict[LedgerKind, int] = {}
        for entry, _ in posted:
            moved[entry.kind] = moved.get(entry.kind, 0) + entry.amount
        for kind, credits_moved in moved.items():
            effects.tally(self._posted_credits.labels(kind), credits_moved)
        for record in book.repeats:
            effects.duplicate(record)
        keep_waiting(book, waited, effects)
        for record in book.misfits:
            effects.dead(record, "INVALID_EVENT", "data.contract_id: the InMail belongs to another contract")


def publish(book: Book[AnyIncoming], effects: Effects) -> list[tuple[Entry, store.Posted]]:
    """Emit postings and denials in order; return the entries with the ids they are published under."""
    posted: list[tuple[Entry, store.Posted]] = []
    last: AnyIncoming | None = None
    index = 0
    for cause, effect in book.effects:
        at = cause.event.time
        if isinstance(effect, Denial):
            denied = CreditDeniedV1(
                contract_id=effect.contract_id,
                seat_id=effect.seat_id,
                inmail_id=effect.inmail_id,
                reason=effect.reason,
                at=at,
            )
            effects.emit(CREDIT_EVENTS, cause, denied, at=at)
            continue
        # All that one cause posts stands together, so the count does not depend on the batch.
        index = index + 1 if cause is last else 0
        last = cause
        known_as = store.Posted(
            derived_id(cause.event.source, cause.event.id, CreditPostedV1.type, index), cause.event.id, at
        )
        line = CreditPostedV1(
            entry_id=known_as.entry_id,
            entry_number=effect.number,
            contract_id=effect.contract_id,
            seat_id=effect.seat_id,
            inmail_id=effect.inmail_id,
            kind=effect.kind,
            amount=effect.amount,
            balance_after=Balance(available=effect.available, held=effect.held),
            cause_id=known_as.cause_id,
            effective_at=at,
        )
        effects.emit(CREDIT_EVENTS, cause, line, at=at, index=index)
        posted.append((effect, known_as))
    return posted


def keep_waiting(book: Book[AnyIncoming], waited: dict[str, list[AnyIncoming]], effects: Effects) -> None:
    """Release what no longer waits under the key it `waited` under before; park what waits under a new one."""
    before = {record.position: key for key, kept in waited.items() for record in kept}
    after = {record.position: key for key, kept in book.waiting.items() for record in kept}
    for record in (record for kept in waited.values() for record in kept):
        if after.get(record.position) != before[record.position]:
            effects.release(record)
    for key, kept in book.waiting.items():
        for record in kept:
            if before.get(record.position) != key:
                effects.park(record, key)


def make_handler(resources: Resources) -> LedgerKeeper:
    """Build the handler and its metrics."""
    gauge = Gauge(
        "inmail_ledger_imbalance_credits",
        "By how many credits do stored balances differ from the sums of the ledger? Anything but 0 is a defect.",
        registry=resources.metrics.registry,
    )
    posted_credits = Counter(
        "inmail_ledger_posted_credits",
        "How many credits did the ledger move, by kind of line?",
        ["kind"],
        registry=resources.metrics.registry,
    )
    for kind in get_args(LedgerKind):
        posted_credits.labels(kind)
    return LedgerKeeper(Audit(resources.pool, gauge), posted_credits)


SPEC = ServiceSpec(
    name="credits",
    reads=(
        Read(CONTRACT_EVENTS, dedupe=True, upstream=True, owns_dead_letters=True),
        Read(ACCOUNTING_FACTS, dedupe=False),
    ),
    handler=make_handler,
    gather_ms=250,  # nobody waits for it within a blink
)

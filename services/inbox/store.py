"""The SQL that writes: what a batch of events reads and changes. A fixed number of statements, rows in key order."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

import asyncpg

from services.inbox import private
from services.inbox.domain import Inmail, Thread
from shared.postgres import execute_rows

# Whoever holds the thread's partition is the only writer; the lock makes one that lost it unawares wait or fail.
_LOAD_THREADS = """
SELECT thread_id, version, contract_id, candidate_id, named_at, locale, located_at, owner_seat_id, phase,
       last_inmail_at, first_response_at, locked, draft_choice, outcome_version, outcome, outcome_source
FROM thread WHERE thread_id = ANY($1::text[]) ORDER BY thread_id FOR NO KEY UPDATE
"""

_LOAD_INMAILS = """
SELECT inmail_id, thread_id, contract_id, seat_id, kind, automated, credit_cost,
       scheduled_at, sent_at, undelivered_at, withdrawn_at, cancelled_at
FROM inmail WHERE thread_id = ANY($1::text[])
"""

_SAVE_THREADS = """
INSERT INTO thread (thread_id, version, contract_id, candidate_id, named_at, locale, located_at, owner_seat_id, phase,
                    last_inmail_at, first_response_at, locked, draft_choice, outcome_version, outcome, outcome_source,
                    status)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::timestamptz[],
                     $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::boolean[], $13::text[],
                     $14::bigint[], $15::text[], $16::text[], $17::text[])
ON CONFLICT (thread_id) DO UPDATE SET
    version = excluded.version, contract_id = excluded.contract_id, candidate_id = excluded.candidate_id,
    named_at = excluded.named_at, locale = excluded.locale, located_at = excluded.located_at,
    owner_seat_id = excluded.owner_seat_id, phase = excluded.phase, last_inmail_at = excluded.last_inmail_at,
    first_response_at = excluded.first_response_at, locked = excluded.locked, draft_choice = excluded.draft_choice,
    outcome_version = excluded.outcome_version, outcome = excluded.outcome, outcome_source = excluded.outcome_source,
    status = excluded.status
"""

_SAVE_INMAILS = """
INSERT INTO inmail (inmail_id, thread_id, contract_id, seat_id, kind, automated, credit_cost,
                    scheduled_at, sent_at, undelivered_at, withdrawn_at, cancelled_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::integer[],
                     $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[])
ON CONFLICT (inmail_id) DO UPDATE SET
    thread_id = excluded.thread_id, contract_id = excluded.contract_id, seat_id = excluded.seat_id,
    kind = excluded.kind, automated = excluded.automated, credit_cost = excluded.credit_cost,
    scheduled_at = excluded.scheduled_at, sent_at = excluded.sent_at, undelivered_at = excluded.undelivered_at,
    withdrawn_at = excluded.withdrawn_at, cancelled_at = excluded.cancelled_at
"""

_SAVE_ANSWERS = """
UPDATE inmail SET answered_at = n.answered_at
FROM unnest($1::text[], $2::timestamptz[]) AS n (inmail_id, answered_at)
WHERE inmail.inmail_id = n.inmail_id AND (inmail.answered_at IS NULL OR inmail.answered_at > n.answered_at)
"""

_ADD_FACTS = """
INSERT INTO fact (thread_id, event_id, type, at, number, cause_id, root_id, data)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::text[], $7::text[],
                     $8::json[])
ON CONFLICT DO NOTHING
"""

_ADD_ENTRIES = """
INSERT INTO entry (contract_id, entry_number, entry_id, seat_id, inmail_id, kind, amount, available, held, cause_id,
                   effective_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                     $8::bigint[], $9::bigint[], $10::text[], $11::timestamptz[])
ON CONFLICT DO NOTHING
"""

_ADD_DENIALS = """
INSERT INTO denial (inmail_id, contract_id, seat_id, reason, at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
ON CONFLICT DO NOTHING
"""

_ADD_CORRECTION = """
INSERT INTO correction (command_id, thread_id, version, outcome, corrected_by, requested_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING RETURNING command_id
"""


class FactRow(NamedTuple):
    """An event about a thread as it is kept; `data` is JSON without names and texts."""

    thread_id: str
    event_id: str
    type: str
    at: datetime
    number: int
    cause_id: str | None
    root_id: str | None
    data: str


class EntryRow(NamedTuple):
    """A line of a contract's ledger; the balances are those after it."""

    contract_id: str
    entry_number: int
    entry_id: str
    seat_id: str | None
    inmail_id: str | None
    kind: str
    amount: int
    available: int
    held: int
    cause_id: str
    effective_at: datetime


class DenialRow(NamedTuple):
    """A schedule for which no credit was held."""

    inmail_id: str
    contract_id: str
    seat_id: str
    reason: str
    at: datetime


class CorrectionRow(NamedTuple):
    """A correction that a human asked for; `version` is that of the outcome to be corrected."""

    command_id: str
    thread_id: str
    version: int
    outcome: str
    corrected_by: str
    requested_at: datetime


async def load_threads(tx: asyncpg.Connection, thread_ids: Iterable[str]) -> dict[str, Thread]:
    """Give the known ones of some threads, without their InMails, and hold their rows until the commit."""
    wanted = sorted(thread_ids)
    if not wanted:
        return {}
    rows = await tx.fetch(_LOAD_THREADS, wanted)
    threads = {row["thread_id"]: Thread(**row) for row in rows}
    named = [thread.thread_id for thread in threads.values() if thread.named_at is not None]
    if named:
        for thread_id, name in (await private.load_names(tx, named)).items():
            threads[thread_id].candidate_name = name
    return threads


async def load_inmails(tx: asyncpg.Connection, threads: Sequence[Thread]) -> None:
    """Put the InMails of some threads into them."""
    if not threads:
        return
    by_id = {thread.thread_id: thread for thread in threads}
    for row in await tx.fetch(_LOAD_INMAILS, sorted(by_id)):
        by_id[row["thread_id"]].inmails[row["inmail_id"]] = Inmail(**row)


async def save_threads(tx: asyncpg.Connection, threads: Iterable[Thread]) -> None:
    """Write threads, without names and InMails."""
    await _write(
        tx,
        _SAVE_THREADS,
        (
            (
                t.thread_id,
                t.version,
                t.contract_id,
                t.candidate_id,
                t.named_at,
                t.locale,
                t.located_at,
                t.owner_seat_id,
                t.phase,
                t.last_inmail_at,
                t.first_response_at,
                t.locked,
                t.draft_choice,
                t.outcome_version,
                t.outcome,
                t.outcome_source,
                t.status,
            )
            for t in threads
        ),
    )


async def save_inmails(tx: asyncpg.Connection, inmails: Iterable[Inmail]) -> None:
    """Write the facts of InMails; when they were answered stays as it is."""
    await _write(
        tx,
        _SAVE_INMAILS,
        (
            (
                i.inmail_id,
                i.thread_id,
                i.contract_id,
                i.seat_id,
                i.kind,
                i.automated,
                i.credit_cost,
                i.scheduled_at,
                i.sent_at,
                i.undelivered_at,
                i.withdrawn_at,
                i.cancelled_at,
            )
            for i in inmails
        ),
    )


async def save_answers(tx: asyncpg.Connection, answered_at: Mapping[str, datetime]) -> None:
    """Note when InMails were answered, by InMail; the earliest time stands."""
    await _write(tx, _SAVE_ANSWERS, answered_at.items())


async def add_facts(tx: asyncpg.Connection, facts: Iterable[FactRow]) -> None:
    """Keep events; one that is there already stays as it is."""
    await _write(tx, _ADD_FACTS, facts)


async def add_entries(tx: asyncpg.Connection, entries: Iterable[EntryRow]) -> None:
    """Keep ledger lines; one that is there already stays as it is."""
    await _write(tx, _ADD_ENTRIES, entries)


async def add_denials(tx: asyncpg.Connection, denials: Iterable[DenialRow]) -> None:
    """Keep denials; one that is there already stays as it is."""
    await _write(tx, _ADD_DENIALS, denials)


async def add_correction(tx: asyncpg.Connection, correction: CorrectionRow) -> bool:
    """Keep a correction; False if it is there already."""
    return await tx.fetchval(_ADD_CORRECTION, *correction) is not None


async def _write(tx: asyncpg.Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Run a statement on columns, the rows in the order of their first two fields, which hold the key."""
    await execute_rows(tx, statement, sorted(rows, key=_key))


_key = itemgetter(0, 1)

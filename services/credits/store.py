"""Every SQL statement of credits. A batch costs a fixed number of them, with rows read and written in key order."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from services.credits.book import Book, Seat, contract_key, seat_key
from services.credits.domain import Contract, Entry, InMail, month
from shared.events import ContractStartedV1, CreditsRefreshedV1, InmailStatusChangedV1, ReplyRecordedV1, SeatAssignedV1
from shared.postgres import columns, execute_rows
from shared.stream.parking import load_parked
from shared.stream.records import AnyIncoming

# Whoever moves a contract's credits holds its row; key order keeps two of them from waiting for each other.
_LOCK_CONTRACTS = """
SELECT contract_id, monthly_allotment, cap_multiple, started_at, ended_at, entry_number,
       granted, available, held, taken, expired
FROM contract WHERE contract_id = ANY($1::text[]) ORDER BY contract_id FOR UPDATE
"""

_SEATS = """
SELECT contract_id, seat_id, monthly_limit, assigned_at
FROM seat JOIN unnest($1::text[], $2::text[]) AS n (contract_id, seat_id) USING (contract_id, seat_id)
"""

_INMAILS = """
SELECT inmail_id, contract_id, seat_id, credit_cost, thread_version, scheduled, denied, sent_at, stopped, undelivered,
       answered
FROM inmail WHERE inmail_id = ANY($1::text[])
"""

_GRANTED = """
SELECT contract_id, period
FROM granted_period JOIN unnest($1::text[], $2::text[]) AS n (contract_id, period) USING (contract_id, period)
"""

_WRITE_CONTRACTS = """
INSERT INTO contract (contract_id, monthly_allotment, cap_multiple, started_at, ended_at, entry_number,
                      granted, available, held, taken, expired)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::bigint[],
                     $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
ON CONFLICT (contract_id) DO UPDATE SET
    monthly_allotment = excluded.monthly_allotment, cap_multiple = excluded.cap_multiple,
    started_at = excluded.started_at, ended_at = excluded.ended_at, entry_number = excluded.entry_number,
    granted = excluded.granted, available = excluded.available, held = excluded.held, taken = excluded.taken,
    expired = excluded.expired
"""

_WRITE_SEATS = """
INSERT INTO seat (contract_id, seat_id, monthly_limit, assigned_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])
ON CONFLICT (contract_id, seat_id) DO UPDATE SET
    monthly_limit = excluded.monthly_limit, assigned_at = excluded.assigned_at
"""

# An InMail stays with the contract that it was first known under: the row of another contract is not touched.
_WRITE_INMAILS = """
INSERT INTO inmail AS i (inmail_id, contract_id, seat_id, credit_cost, thread_version, scheduled, denied, sent_at,
                         stopped, undelivered, answered)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::bigint[], $6::boolean[], $7::boolean[],
                     $8::timestamptz[], $9::boolean[], $10::boolean[], $11::boolean[])
ON CONFLICT (inmail_id) DO UPDATE SET
    seat_id = excluded.seat_id, credit_cost = excluded.credit_cost, thread_version = excluded.thread_version,
    scheduled = excluded.scheduled, denied = excluded.denied, sent_at = excluded.sent_at, stopped = excluded.stopped,
    undelivered = excluded.undelivered, answered = excluded.answered
WHERE i.contract_id = excluded.contract_id
"""

_WRITE_PERIODS = """
INSERT INTO granted_period (contract_id, period) SELECT * FROM unnest($1::text[], $2::text[])
"""

_POST = """
INSERT INTO ledger_entry (contract_id, entry_number, kind, amount, available_after, held_after, inmail_id, seat_id,
                          entry_id, cause_id, effective_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                     $8::text[], $9::uuid[], $10::text[], $11::timestamptz[])
"""

_CONTRACT_IDS = "SELECT contract_id FROM contract WHERE contract_id > $1 ORDER BY contract_id LIMIT $2"

_UNEXPLAINED = """
SELECT contract_id FROM contract c LEFT JOIN audited a USING (contract_id)
WHERE (c.entry_number, c.granted, c.available, c.held, c.taken, c.expired)
    IS DISTINCT FROM (a.entry_number, a.granted, a.available, a.held, a.taken, a.expired)
ORDER BY contract_id LIMIT $1
"""

# Adds up the lines since the last audit and holds them against the balances, all in one snapshot. Contracts that agree
# are remembered up to their newest line. Lateral, so that a ledger of any size is read through its key. A line moves a
# credit or more: each number without a line, or line beyond the newest number, counts as one where the sums agree.
_AUDIT = """
WITH summed AS (
    SELECT c.*, a.entry_number IS DISTINCT FROM c.entry_number AS moved,
           coalesce(a.entry_number, 0) + fresh.lines AS lines,
           coalesce(fresh.newest, a.entry_number, 0) AS newest,
           coalesce(a.granted, 0) + coalesce(fresh.granted, 0) AS granted_sum,
           coalesce(a.available, 0) + coalesce(fresh.available, 0) AS available_sum,
           coalesce(a.held, 0) + coalesce(fresh.held, 0) AS held_sum,
           coalesce(a.taken, 0) + coalesce(fresh.taken, 0) AS taken_sum,
           coalesce(a.expired, 0) + coalesce(fresh.expired, 0) AS expired_sum
    FROM contract c LEFT JOIN audited a USING (contract_id), LATERAL (
        SELECT count(DISTINCT p.entry_number) AS lines,
               max(p.entry_number) AS newest,
               -sum(p.amount) FILTER (WHERE p.account = 'granted') AS granted,
               sum(p.amount) FILTER (WHERE p.account = 'available') AS available,
               sum(p.amount) FILTER (WHERE p.account = 'held') AS held,
               sum(p.amount) FILTER (WHERE p.account = 'taken') AS taken,
               sum(p.amount) FILTER (WHERE p.account = 'expired') AS expired
        FROM posting p WHERE p.contract_id = c.contract_id AND p.entry_number > coalesce(a.entry_number, 0)
    ) AS fresh
    WHERE c.contract_id = ANY($1::text[])
), compared AS (
    SELECT *, greatest(
        abs(granted - granted_sum) + abs(available - available_sum) + abs(held - held_sum)
            + abs(taken - taken_sum) + abs(expired - expired_sum),
        abs(entry_number - lines), abs(entry_number - newest)
    ) AS credits
    FROM summed
), remembered AS (
    INSERT INTO audited AS a (contract_id, entry_number, granted, available, held, taken, expired)
    SELECT contract_id, entry_number, granted, available, held, taken, expired FROM compared
    WHERE credits = 0 AND moved
    ORDER BY contract_id
    ON CONFLICT (contract_id) DO UPDATE SET
        entry_number = excluded.entry_number, granted = excluded.granted, available = excluded.available,
        held = excluded.held, taken = excluded.taken, expired = excluded.expired
    WHERE excluded.entry_number > a.entry_number
)
SELECT contract_id, credits::bigint FROM compared WHERE credits <> 0
"""


class Posted(NamedTuple):
    """What a ledger line is known by outside: the id of its event and of its cause, and the event time of the cause."""

    entry_id: str
    cause_id: str
    effective_at: datetime


class ContractMismatchError(Exception):
    """An InMail was entered under another contract meanwhile; deciding the batch again finds that row."""


async def load(tx: asyncpg.Connection, records: Sequence[AnyIncoming]) -> Book[AnyIncoming]:
    """Lock the contracts of `records` and read all that deciding them needs, with what waits for them."""
    contracts = await _lock_contracts(tx, sorted({record.event.subject for record in records}))
    started = {contract.contract_id for contract in contracts}
    waiting = await _load_waiting(tx, records, started)
    every = [record.event.data for record in records]
    every += [record.event.data for kept in waiting.values() for record in kept]

    facts = [data for data in every if isinstance(data, InmailStatusChangedV1 | ReplyRecordedV1)]
    seats = {(data.contract_id, data.seat_id) for data in every if isinstance(data, SeatAssignedV1)}
    seats.update((fact.contract_id, fact.seat_id) for fact in facts)
    months = {(data.contract_id, month(data.started_at)) for data in every if isinstance(data, ContractStartedV1)}
    months.update((data.contract_id, data.period) for data in every if isinstance(data, CreditsRefreshedV1))
    return Book(
        contracts=contracts,
        seats=await _load_seats(tx, sorted(seats)),
        inmails=await _load_inmails(tx, sorted({fact.inmail_id for fact in facts})),
        granted=await _load_granted(tx, sorted(months)),
        waiting=waiting,
    )


async def save(tx: asyncpg.Connection, book: Book[AnyIncoming], posted: Sequence[tuple[Entry, Posted]]) -> None:
    """Write what deciding the batch has changed.

    `posted` are the book's entries with the ids of their events.

    Raises:
        ContractMismatchError: an InMail has come to belong to another contract since `load`; nothing may stand.
        asyncpg.UniqueViolationError: a line exists already, which the facts in the book should have shown.

    """
    contracts = [book.contracts[key] for key in sorted(book.changed_contracts)]
    await execute_rows(tx, _WRITE_CONTRACTS, contracts)
    await execute_rows(tx, _POST, [(*entry, *known_as) for entry, known_as in posted])
    inmails = [book.inmails[key] for key in sorted(book.changed_inmails)]
    if inmails:
        status = await tx.execute(_WRITE_INMAILS, *columns(inmails))
        if status != f"INSERT 0 {len(inmails)}":
            message = f"{status} of {len(inmails)} InMails: another contract has taken the others meanwhile"
            raise ContractMismatchError(message)
    await execute_rows(tx, _WRITE_PERIODS, sorted(book.changed_periods))
    await execute_rows(tx, _WRITE_SEATS, [book.seats[key] for key in sorted(book.changed_seats)])


async def unexplained(pool: asyncpg.Pool, *, limit: int) -> list[str]:
    """Name contracts that stand otherwise than when they were last found right. Reads all, but none of their lines."""
    return [row[0] for row in await pool.fetch(_UNEXPLAINED, limit)]


async def contract_ids(pool: asyncpg.Pool, *, after: str, limit: int) -> list[str]:
    """Name the contracts that come next in the order of their ids."""
    return [row[0] for row in await pool.fetch(_CONTRACT_IDS, after, limit)]


async def audit(pool: asyncpg.Pool, wanted: Sequence[str]) -> dict[str, int]:
    """Give the contracts among `wanted` that the ledger does not explain, with the credits they differ by."""
    return {row[0]: row[1] for row in await pool.fetch(_AUDIT, wanted)}


async def _lock_contracts(tx: asyncpg.Connection, contract_ids: Sequence[str]) -> list[Contract]:
    return [Contract(*row) for row in await tx.fetch(_LOCK_CONTRACTS, contract_ids)]


async def _load_waiting(
    tx: asyncpg.Connection, records: Sequence[AnyIncoming], started: set[str]
) -> dict[str, list[AnyIncoming]]:
    """Read what waits for the contracts that start and the seats that are assigned in this batch."""
    keys = set()
    for record in records:
        data = record.event.data
        if isinstance(data, ContractStartedV1) and data.contract_id not in started:
            keys.add(contract_key(data.contract_id))
        elif isinstance(data, SeatAssignedV1):
            keys.add(seat_key(data.contract_id, data.seat_id))
    return await load_parked(tx, sorted(keys)) if keys else {}


async def _load_seats(tx: asyncpg.Connection, slots: Sequence[tuple[str, str]]) -> list[Seat]:
    return [Seat(*row) for row in await tx.fetch(_SEATS, *columns(slots))] if slots else []


async def _load_inmails(tx: asyncpg.Connection, inmail_ids: Sequence[str]) -> list[InMail]:
    return [InMail(*row) for row in await tx.fetch(_INMAILS, inmail_ids)] if inmail_ids else []


async def _load_granted(tx: asyncpg.Connection, months: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in await tx.fetch(_GRANTED, *columns(months))] if months else []

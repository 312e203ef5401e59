"""The SQL that reads: folders, threads, InMails, the ledger and the rates, as the HTTP paths ask for them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

from services.inbox import private
from services.inbox.domain import Inmail, Thread
from services.inbox.ledger import Postings
from services.inbox.rates import Month
from services.inbox.store import CorrectionRow, DenialRow, EntryRow, FactRow
from shared.events import LedgerKind, ThreadStatus
from shared.rules import CREDIT_WINDOW

_INMAIL_KINDS: Final[tuple[LedgerKind, ...]] = ("held", "released", "captured", "charged", "refunded", "returned")
"""The kinds of postings that belong to an InMail."""

_FOLDER = """
SELECT thread_id, contract_id, owner_seat_id, candidate_id, status, locked, last_inmail_at, first_response_at,
       outcome_version
FROM thread
WHERE owner_seat_id = $1 AND status IS NOT NULL AND ($2::text IS NULL OR status = $2)
  AND ($3::timestamptz IS NULL OR (last_inmail_at, thread_id) < ($3, $4))
ORDER BY last_inmail_at DESC, thread_id DESC
LIMIT $5
"""

_THREAD = """
SELECT thread_id, version, contract_id, candidate_id, named_at, locale, located_at, owner_seat_id, phase,
       last_inmail_at, first_response_at, locked, draft_choice, outcome_version, outcome, outcome_source
FROM thread WHERE thread_id = $1 AND status IS NOT NULL
"""

_FACTS = """
SELECT thread_id, event_id, type, at, number, cause_id, root_id, data FROM fact WHERE thread_id = $1
"""

_CORRECTIONS = """
SELECT command_id, thread_id, version, outcome, corrected_by, requested_at FROM correction WHERE thread_id = $1
"""

_INMAIL = """
SELECT inmail_id, thread_id, contract_id, seat_id, kind, automated, credit_cost,
       scheduled_at, sent_at, undelivered_at, withdrawn_at, cancelled_at
FROM inmail WHERE inmail_id = $1
"""

_INMAIL_ENTRIES = """
SELECT contract_id, entry_number, entry_id, seat_id, inmail_id, kind, amount, available, held, cause_id, effective_at
FROM entry WHERE inmail_id = $1 ORDER BY contract_id, entry_number
"""

_DENIAL = "SELECT inmail_id, contract_id, seat_id, reason, at FROM denial WHERE inmail_id = $1"

_ENTRIES = """
SELECT contract_id, entry_number, entry_id, seat_id, inmail_id, kind, amount, available, held, cause_id, effective_at
FROM entry WHERE contract_id = $1 AND entry_number > $2 ORDER BY entry_number LIMIT $3
"""

# An InMail was sent when its credit was taken: the posting is in effect at the time of its cause, the `sent`.
# Kinds as bits, because sets of them are grouped several times as fast as arrays.
_POSTINGS = """
SELECT kinds, in_window, sum(amount)::bigint AS amount
FROM (
    SELECT bit_or(1 << array_position($4::text[], kind)) AS kinds, min(amount) AS amount,
           coalesce(min(effective_at) FILTER (WHERE kind IN ('captured', 'charged')) >= $3, false) AS in_window
    FROM entry
    WHERE contract_id = $1 AND effective_at <= $2 AND inmail_id IS NOT NULL AND kind = ANY($4)
    GROUP BY inmail_id
) AS of_inmail
GROUP BY kinds, in_window
"""

_GRANTS = """
SELECT coalesce(sum(amount) FILTER (WHERE kind = 'granted'), 0)::bigint AS granted,
       coalesce(sum(amount) FILTER (WHERE kind = 'expired'), 0)::bigint AS expired
FROM entry WHERE contract_id = $1 AND effective_at <= $2 AND kind IN ('granted', 'expired')
"""

_MONTHS = """
SELECT count(*) AS sent,
       count(*) FILTER (WHERE answered_at <= $2) AS answered,
       count(*) FILTER (WHERE answered_at <= $2 AND answered_at <= sent_at + interval '720 hours') AS answered_30d
FROM inmail
WHERE seat_id = $1 AND sent_at <= $2 AND (undelivered_at IS NULL OR undelivered_at > $2)
GROUP BY date_trunc('month', sent_at, 'UTC')
"""


class FolderRow(NamedTuple):
    """A thread in a folder; `candidate_name` is None where it is not known."""

    thread_id: str
    contract_id: str
    owner_seat_id: str
    candidate_id: str
    status: ThreadStatus
    locked: bool
    last_inmail_at: datetime
    first_response_at: datetime | None
    outcome_version: int
    candidate_name: str | None


class Place(NamedTuple):
    """Where a page of a folder ended: the next one begins behind it."""

    last_inmail_at: datetime
    thread_id: str


async def folder(
    connection: asyncpg.Connection, seat_id: str, *, status: ThreadStatus | None, after: Place | None, limit: int
) -> list[FolderRow]:
    """Give at most `limit` threads of a seat, newest InMail first; all statuses where None is given."""
    at, thread_id = after or (None, None)
    rows = await connection.fetch(_FOLDER, seat_id, status, at, thread_id, limit)
    names = await private.load_names(connection, [row["thread_id"] for row in rows]) if rows else {}
    return [FolderRow(**row, candidate_name=names.get(row["thread_id"])) for row in rows]


async def thread(connection: asyncpg.Connection, thread_id: str) -> Thread | None:
    """Give a thread of which an InMail is known, without its InMails."""
    row = await connection.fetchrow(_THREAD, thread_id)
    if row is None:
        return None
    names = await private.load_names(connection, [thread_id])
    return Thread(**row, candidate_name=names.get(thread_id))


async def facts(connection: asyncpg.Connection, thread_id: str) -> list[FactRow]:
    """Give all events about a thread, in no order."""
    return [FactRow(**row) for row in await connection.fetch(_FACTS, thread_id)]


async def corrections(connection: asyncpg.Connection, thread_id: str) -> list[CorrectionRow]:
    """Give the corrections that humans asked for in a thread, in no order."""
    return [CorrectionRow(**row) for row in await connection.fetch(_CORRECTIONS, thread_id)]


async def inmail(connection: asyncpg.Connection, inmail_id: str) -> Inmail | None:
    """Give an InMail."""
    row = await connection.fetchrow(_INMAIL, inmail_id)
    return None if row is None else Inmail(**row)


async def inmail_entries(connection: asyncpg.Connection, inmail_id: str) -> list[EntryRow]:
    """Give the ledger's lines about an InMail, in their order."""
    return [EntryRow(**row) for row in await connection.fetch(_INMAIL_ENTRIES, inmail_id)]


async def denial(connection: asyncpg.Connection, inmail_id: str) -> DenialRow | None:
    """Give the denial of an InMail's credit."""
    row = await connection.fetchrow(_DENIAL, inmail_id)
    return None if row is None else DenialRow(**row)


async def entries(connection: asyncpg.Connection, contract_id: str, *, after_number: int, limit: int) -> list[EntryRow]:
    """Give at most `limit` lines of a contract's ledger behind a number, in their order."""
    return [EntryRow(**row) for row in await connection.fetch(_ENTRIES, contract_id, after_number, limit)]


async def postings(
    connection: asyncpg.Connection, contract_id: str, as_of: datetime
) -> tuple[list[Postings], int, int]:
    """Give what was posted for InMails by an instant, counted by kinds, and the sums granted and expired."""
    groups = await connection.fetch(_POSTINGS, contract_id, as_of, as_of - CREDIT_WINDOW, _INMAIL_KINDS)
    sums: Any = await connection.fetchrow(_GRANTS, contract_id, as_of)
    return (
        [Postings(_kinds(row["kinds"]), row["in_window"], row["amount"]) for row in groups],
        sums["granted"],
        sums["expired"],
    )


def _kinds(bits: int) -> frozenset[LedgerKind]:
    return frozenset(kind for place, kind in enumerate(_INMAIL_KINDS, start=1) if bits >> place & 1)


async def months(connection: asyncpg.Connection, seat_id: str, as_of: datetime) -> Sequence[Month]:
    """Count a seat's InMails sent by an instant, and those answered by it, by the UTC month of sending (R31)."""
    return [Month(**row) for row in await connection.fetch(_MONTHS, seat_id, as_of)]

"""Every SQL statement of ingestion, but those on private text.

Set-based: a batch costs the same number of round trips, whatever its size.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

import asyncpg

from services.ingestion import private
from services.ingestion.state import Following, Inmail, Reply, Thread, Unmatched
from shared.events import Template
from shared.postgres import execute_rows

# The partition's owner alone writes these rows: the fence has locked out every other, so no row lock is needed. A dry
# run may write beside it, and is rolled back: hence the key order, so that the two cannot deadlock.
_THREADS = """
SELECT thread_id, thread_version, locked, reassigned_seat_id, reassigned_at, draft_choice, drafted_at
FROM thread WHERE thread_id = ANY($1::text[])
"""

_INMAILS = """
SELECT thread_id, inmail_id, contract_id, seat_id, candidate_id, locale, time_zone, kind, automated, credit_cost,
       scheduled_at, sent_at, undelivered_at, withdrawn_at, cancelled_at
FROM inmail WHERE thread_id = ANY($1::text[])
"""

_REPLIES = """
SELECT thread_id, reply_id, sent_at, inmail_id, locks, template_id, template_version, template_locale
FROM reply WHERE thread_id = ANY($1::text[])
"""

_FOLLOWINGS = "SELECT thread_id, seat_id, said_at, following FROM following WHERE thread_id = ANY($1::text[])"

_SAVE_THREADS = """
INSERT INTO thread (thread_id, thread_version, locked, reassigned_seat_id, reassigned_at, draft_choice, drafted_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::boolean[], $4::text[], $5::timestamptz[], $6::text[],
                     $7::timestamptz[])
ON CONFLICT (thread_id) DO UPDATE
SET thread_version = excluded.thread_version, locked = excluded.locked,
    reassigned_seat_id = excluded.reassigned_seat_id, reassigned_at = excluded.reassigned_at,
    draft_choice = excluded.draft_choice, drafted_at = excluded.drafted_at
"""

_SAVE_INMAILS = """
INSERT INTO inmail (thread_id, inmail_id, contract_id, seat_id, candidate_id, locale, time_zone, kind, automated,
                    credit_cost, scheduled_at, sent_at, undelivered_at, withdrawn_at, cancelled_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::boolean[], $10::integer[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[],
                     $14::timestamptz[], $15::timestamptz[])
ON CONFLICT (thread_id, inmail_id) DO UPDATE
SET contract_id = excluded.contract_id, seat_id = excluded.seat_id, candidate_id = excluded.candidate_id,
    locale = excluded.locale, time_zone = excluded.time_zone, kind = excluded.kind, automated = excluded.automated,
    credit_cost = excluded.credit_cost, scheduled_at = excluded.scheduled_at, sent_at = excluded.sent_at,
    undelivered_at = excluded.undelivered_at, withdrawn_at = excluded.withdrawn_at,
    cancelled_at = excluded.cancelled_at
"""

_SAVE_REPLIES = """
INSERT INTO reply (thread_id, reply_id, sent_at, inmail_id, locks, template_id, template_version, template_locale)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::boolean[], $6::text[], $7::integer[],
                     $8::text[])
ON CONFLICT (thread_id, reply_id) DO UPDATE
SET locks = excluded.locks, template_id = excluded.template_id, template_version = excluded.template_version,
    template_locale = excluded.template_locale
"""

_SAVE_FOLLOWINGS = """
INSERT INTO following (thread_id, seat_id, said_at, following)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::boolean[])
ON CONFLICT (thread_id, seat_id) DO UPDATE SET said_at = excluded.said_at, following = excluded.following
"""

_thread_columns = attrgetter(
    "thread_id", "version", "locked", "reassigned_seat_id", "reassigned_at", "draft_choice", "drafted_at"
)
_inmail_columns = attrgetter(
    "inmail_id",
    "contract_id",
    "seat_id",
    "candidate_id",
    "locale",
    "time_zone",
    "kind",
    "automated",
    "credit_cost",
    "scheduled_at",
    "sent_at",
    "undelivered_at",
    "withdrawn_at",
    "cancelled_at",
)


async def load(tx: asyncpg.Connection, thread_ids: Iterable[str]) -> dict[str, Thread]:
    """Load threads, in key order; one never seen before comes empty."""
    keys = sorted(thread_ids)
    known = {row["thread_id"]: Thread(*row) for row in await tx.fetch(_THREADS, keys)}
    if known:
        await _load_parts(tx, list(known), known)
    return {key: known.get(key) or Thread(key) for key in keys}


async def _load_parts(tx: asyncpg.Connection, known: Sequence[str], threads: dict[str, Thread]) -> None:
    for thread_id, *columns in await tx.fetch(_INMAILS, known):
        inmail = Inmail(*columns)
        threads[thread_id].inmails[inmail.inmail_id] = inmail
    digests: dict[tuple[str, str], str] = {}
    for thread_id, kind, owner_id, content in await private.load(tx, known):
        if kind == "scheduled_name":
            threads[thread_id].inmails[owner_id].scheduled_name = content
        elif kind == "sent_name":
            threads[thread_id].inmails[owner_id].sent_name = content
        else:
            digests[thread_id, owner_id] = content
    for row in await tx.fetch(_REPLIES, known):
        threads[row["thread_id"]].replies.append(_reply(row, digests.get((row["thread_id"], row["reply_id"]))))
    for thread_id, seat_id, said_at, following in await tx.fetch(_FOLLOWINGS, known):
        threads[thread_id].followings[seat_id] = Following(said_at, following)
    for thread in threads.values():
        # Here and not in SQL: Postgres would order ids by the rules of a language, and the domain compares code points.
        thread.replies.sort(key=lambda reply: reply.order)


def _reply(row: asyncpg.Record, digest: str | None) -> Reply:
    unmatched = None
    if row["template_id"] is not None and digest is not None:
        template = Template(id=row["template_id"], version=row["template_version"], locale=row["template_locale"])
        unmatched = Unmatched(template, digest)
    return Reply(row["reply_id"], row["sent_at"], row["inmail_id"], row["locks"], unmatched)


async def save(tx: asyncpg.Connection, threads: Iterable[Thread]) -> None:
    """Write back what changed; the threads come in key order."""
    changed = list(threads)
    inmails = [(t.thread_id, t.inmails[inmail_id]) for t in changed for inmail_id in t.changes.inmail_ids]
    replies = [(t.thread_id, reply) for t in changed for reply in t.changes.replies.values()]
    followings = [(t.thread_id, seat_id, t.followings[seat_id]) for t in changed for seat_id in t.changes.seat_ids]
    await execute_rows(
        tx, _SAVE_THREADS, [_thread_columns(t) for t in changed if t.changes.thread or t.changes.seat_ids]
    )
    await execute_rows(tx, _SAVE_INMAILS, [(thread_id, *_inmail_columns(inmail)) for thread_id, inmail in inmails])
    await execute_rows(tx, _SAVE_REPLIES, [_reply_row(thread_id, reply) for thread_id, reply in replies])
    await execute_rows(tx, _SAVE_FOLLOWINGS, [(t, seat_id, word.at, word.following) for t, seat_id, word in followings])
    await private.save(tx, [*_names(inmails), *_digests(replies)])


def _reply_row(thread_id: str, reply: Reply) -> tuple[object, ...]:
    template = None if reply.unmatched is None else reply.unmatched.template
    named = (None, None, None) if template is None else (template.id, template.version, template.locale)
    return (thread_id, reply.reply_id, reply.sent_at, reply.inmail_id, reply.locks, *named)


def _names(inmails: Iterable[tuple[str, Inmail]]) -> Iterator[private.PrivateText]:
    for thread_id, inmail in inmails:
        if inmail.scheduled_name is not None:
            yield thread_id, "scheduled_name", inmail.inmail_id, inmail.scheduled_name
        if inmail.sent_name is not None:
            yield thread_id, "sent_name", inmail.inmail_id, inmail.sent_name


def _digests(replies: Iterable[tuple[str, Reply]]) -> Iterator[private.PrivateText]:
    for thread_id, reply in replies:
        if reply.unmatched is not None:
            yield thread_id, "unmatched_digest", reply.reply_id, reply.unmatched.digest

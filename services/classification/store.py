"""Every SQL statement of classification but those about names and words. A batch costs a fixed number of them."""

from collections.abc import Collection, Iterable, Mapping

import asyncpg

from services.classification.domain import Correction, Reply, Standing, Thread, Verdict
from shared.events import OutcomeDecidedV1
from shared.postgres import execute_rows

_VERDICT = "outcome, source, confidence, needs_confirmation, signals, model_version"

# The partition's owner alone writes these rows: the fence has locked out every other, so no row lock is needed.
_THREADS = f"""
SELECT thread_id, outcome_id::text, version, {_VERDICT}, reply_id, inmail_id, contract_id, seat_id, candidate_id,
       thread_version, responded_at, newest_at, newest_reply_id, by_human, corrected, corrected_after_at,
       corrected_after_id
FROM thread WHERE thread_id = ANY($1::text[])
"""  # noqa: S608  a list of columns, no value

_ANSWERED = "SELECT reply_id FROM reply WHERE reply_id = ANY($1::text[])"

_HISTORIES = f"SELECT thread_id, reply_id, responded_at, {_VERDICT} FROM reply WHERE thread_id = ANY($1::text[])"  # noqa: S608  the same

# Signals go over the wire as one string a row, for unnest cannot take arrays of different lengths.
_WRITE_THREADS = f"""
INSERT INTO thread (thread_id, outcome_id, version, {_VERDICT}, reply_id, inmail_id, contract_id, seat_id, candidate_id,
                    thread_version, responded_at, newest_at, newest_reply_id, by_human, corrected, corrected_after_at,
                    corrected_after_id)
SELECT thread_id, outcome_id, version, outcome, source, confidence, needs_confirmation,
       string_to_array(signals, ','), model_version, reply_id, inmail_id, contract_id, seat_id, candidate_id,
       thread_version, responded_at, newest_at, newest_reply_id, by_human, corrected, corrected_after_at,
       corrected_after_id
FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::double precision[], $7::boolean[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[],
            $16::timestamptz[], $17::timestamptz[], $18::text[], $19::boolean[], $20::text[], $21::timestamptz[],
            $22::text[])
     AS n (thread_id, outcome_id, version, outcome, source, confidence, needs_confirmation, signals, model_version,
           reply_id, inmail_id, contract_id, seat_id, candidate_id, thread_version, responded_at, newest_at,
           newest_reply_id, by_human, corrected, corrected_after_at, corrected_after_id)
ON CONFLICT (thread_id) DO UPDATE SET
    outcome_id = excluded.outcome_id, version = excluded.version, outcome = excluded.outcome, source = excluded.source,
    confidence = excluded.confidence, needs_confirmation = excluded.needs_confirmation, signals = excluded.signals,
    model_version = excluded.model_version, reply_id = excluded.reply_id, inmail_id = excluded.inmail_id,
    contract_id = excluded.contract_id, seat_id = excluded.seat_id, candidate_id = excluded.candidate_id,
    thread_version = excluded.thread_version, responded_at = excluded.responded_at, newest_at = excluded.newest_at,
    newest_reply_id = excluded.newest_reply_id, by_human = excluded.by_human, corrected = excluded.corrected,
    corrected_after_at = excluded.corrected_after_at, corrected_after_id = excluded.corrected_after_id
"""  # noqa: S608  the same

_WRITE_REPLIES = f"""
INSERT INTO reply (thread_id, reply_id, responded_at, {_VERDICT})
SELECT thread_id, reply_id, responded_at, outcome, source, confidence, needs_confirmation,
       string_to_array(signals, ','), model_version
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::double precision[], $7::boolean[],
            $8::text[], $9::text[])
     AS n (thread_id, reply_id, responded_at, outcome, source, confidence, needs_confirmation, signals, model_version)
"""  # noqa: S608  the same

_WRITE_CORRECTIONS = """
INSERT INTO correction (thread_id, version, reply_id, outcome, requested_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[])
"""


async def load_threads(tx: asyncpg.Connection, thread_ids: Collection[str]) -> dict[str, Thread]:
    """Give the threads that have an outcome."""
    rows = await tx.fetch(_THREADS, list(thread_ids))
    return {row["thread_id"]: _thread(row) for row in rows}


async def load_answered(tx: asyncpg.Connection, reply_ids: Collection[str]) -> set[str]:
    """Give the ids among these whose reply has its answer."""
    return {row["reply_id"] for row in await tx.fetch(_ANSWERED, list(reply_ids))} if reply_ids else set()


async def load_histories(tx: asyncpg.Connection, thread_ids: Collection[str]) -> dict[str, list[Reply]]:
    """Give the answered replies of threads, in no order."""
    histories: dict[str, list[Reply]] = {}
    if thread_ids:
        for row in await tx.fetch(_HISTORIES, list(thread_ids)):
            reply = Reply(row["reply_id"], row["responded_at"], _verdict(row))
            histories.setdefault(row["thread_id"], []).append(reply)
    return histories


async def save_threads(tx: asyncpg.Connection, threads: Mapping[str, Thread]) -> None:
    """Write threads as they stand now."""
    rows = [_thread_row(thread_id, threads[thread_id]) for thread_id in sorted(threads)]
    await execute_rows(tx, _WRITE_THREADS, rows)


async def save_replies(tx: asyncpg.Connection, replies: Mapping[str, Iterable[Reply]]) -> None:
    """Add answered replies, by thread."""
    rows = [
        (thread_id, reply.reply_id, reply.responded_at, *_verdict_row(reply.verdict))
        for thread_id in sorted(replies)
        for reply in replies[thread_id]
    ]
    await execute_rows(tx, _WRITE_REPLIES, rows)


async def save_corrections(tx: asyncpg.Connection, made: Iterable[OutcomeDecidedV1]) -> None:
    """Add the versions that humans have set."""
    rows = [(each.thread_id, each.version, each.reply_id, each.outcome, each.decided_at) for each in made]
    await execute_rows(tx, _WRITE_CORRECTIONS, rows)


def _verdict(row: asyncpg.Record) -> Verdict:
    return Verdict(
        outcome=row["outcome"],
        source=row["source"],
        confidence=row["confidence"],
        needs_confirmation=row["needs_confirmation"],
        signals=tuple(row["signals"]),
        model_version=row["model_version"],
    )


def _thread(row: asyncpg.Record) -> Thread:
    correction = None
    if row["corrected"] is not None:
        correction = Correction(row["corrected"], after=(row["corrected_after_at"], row["corrected_after_id"]))
    return Thread(
        Standing(
            outcome_id=row["outcome_id"],
            version=row["version"],
            verdict=_verdict(row),
            reply_id=row["reply_id"],
            inmail_id=row["inmail_id"],
            contract_id=row["contract_id"],
            seat_id=row["seat_id"],
            candidate_id=row["candidate_id"],
            thread_version=row["thread_version"],
            responded_at=row["responded_at"],
        ),
        newest=(row["newest_at"], row["newest_reply_id"]),
        by_human=row["by_human"],
        correction=correction,
    )


def _verdict_row(verdict: Verdict) -> tuple[object, ...]:
    return (
        verdict.outcome,
        verdict.source,
        verdict.confidence,
        verdict.needs_confirmation,
        ",".join(verdict.signals),
        verdict.model_version,
    )


def _thread_row(thread_id: str, thread: Thread) -> tuple[object, ...]:
    standing, correction = thread.standing, thread.correction
    return (
        thread_id,
        standing.outcome_id,
        standing.version,
        *_verdict_row(standing.verdict),
        standing.reply_id,
        standing.inmail_id,
        standing.contract_id,
        standing.seat_id,
        standing.candidate_id,
        standing.thread_version,
        standing.responded_at,
        *thread.newest,
        thread.by_human,
        None if correction is None else correction.outcome,
        None if correction is None else correction.after[0],
        None if correction is None else correction.after[1],
    )

"""Human corrections of an outcome (R29): judged by what the inbox knows, recorded and sent as a command."""

from datetime import datetime
from uuid import UUID, uuid5

import asyncpg
import orjson

from services.inbox import queries, store
from services.inbox.domain import Thread
from services.inbox.parameters import CorrectionBody
from services.inbox.problems import not_found
from shared.events import CorrectionRejection, Event, Outcome, OutcomeCorrectionRequestedV1, encode, source_of
from shared.problems import ProblemError
from shared.rules import correction_rejection
from shared.stream.outbox import OutboxRow, enqueue
from shared.topics import OUTCOME_COMMANDS

_COMMANDS = UUID("5b7f0c1e-9d0a-5c1b-8a55-0f4f6ad3a9c2")


def command_id(thread_id: str, version: int, outcome: Outcome, corrected_by: str) -> str:
    """The id of a correction: who asks for the same again asks with the same command."""
    return str(uuid5(_COMMANDS, orjson.dumps((thread_id, version, outcome, corrected_by)).decode()))


async def request_correction(
    tx: asyncpg.Connection, thread_id: str, wanted: CorrectionBody, now: datetime
) -> tuple[str, list[OutboxRow]]:
    """Record a correction and put its command into the outbox; return its id and what to publish after the commit.

    Raises:
        ProblemError: the thread is unknown (404), or the correction is refused (409).

    """
    thread = await queries.thread(tx, thread_id)
    if thread is None:
        raise not_found("thread", thread_id)
    earlier = {row.command_id for row in await queries.corrections(tx, thread_id)}
    for version in _versions_meant(thread, wanted):
        known = command_id(thread_id, version, wanted.outcome, wanted.corrected_by)
        if known in earlier:
            return known, []
    version = wanted.version or thread.outcome_version
    rejection = correction_rejection(
        outcome=thread.outcome,
        source=thread.outcome_source,
        version=thread.outcome_version,
        seen_version=version,
        wanted=wanted.outcome,
    )
    if rejection is not None:
        raise _conflict(rejection, thread)
    new_id = command_id(thread_id, version, wanted.outcome, wanted.corrected_by)
    row = store.CorrectionRow(new_id, thread_id, version, wanted.outcome, wanted.corrected_by, now)
    if not await store.add_correction(tx, row):
        return new_id, []  # another request was faster
    return new_id, [await enqueue(tx, OUTCOME_COMMANDS, thread_id.encode(), _encoded(row, wanted.outcome))]


def _versions_meant(thread: Thread, wanted: CorrectionBody) -> list[int]:
    """The versions that a repeat may be about: without one, also the version that its own first time replaced."""
    if wanted.version is not None:
        return [wanted.version]
    before = [thread.outcome_version - 1] if thread.outcome_source == "human" else []
    return [thread.outcome_version, *before]


def _encoded(row: store.CorrectionRow, outcome: Outcome) -> bytes:
    data = OutcomeCorrectionRequestedV1(
        thread_id=row.thread_id,
        outcome=outcome,
        corrected_by=row.corrected_by,
        version=row.version,
        requested_at=row.requested_at,
    )
    return encode(
        Event(
            id=row.command_id,
            source=source_of("inbox"),
            type=data.type,
            subject=row.thread_id,
            time=row.requested_at,
            data=data,
        )
    )


def _conflict(rejection: CorrectionRejection, thread: Thread) -> ProblemError:
    details = {
        "NOT_CLASSIFIED": (
            "Only an outcome that the classifier decided can be corrected; "
            + (
                "this thread has none yet."
                if thread.outcome is None
                else f"the standing one, version {thread.outcome_version}, is by {thread.outcome_source}."
            ),
            "Read the thread; a candidate's own choice stands, an earlier correction until the candidate's next.",
        ),
        "STALE_VERSION": (
            f"The standing outcome is version {thread.outcome_version}.",
            "Read the thread again and correct the version that it shows.",
        ),
        "SAME_VALUE": (f"The outcome is {thread.outcome} already.", "Nothing is left to do."),
    }
    detail, cure = details[rejection]
    return ProblemError(
        409,
        rejection.lower().replace("_", "-"),
        "Correction refused",
        detail=detail,
        cure=cure,
        extra={"reason": rejection, "version": thread.outcome_version},
    )

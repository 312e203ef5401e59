"""Every statement about candidates' names and words: one table, one place to erase.

A name is kept because the event that a correction brings about carries it, and the command does not; a text because,
with a human's correction, it is an example to learn from.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from typing import NamedTuple

import asyncpg

from shared.events import Outcome

_LOAD = "SELECT id, content FROM private_text WHERE kind = 'candidate_name' AND id = ANY($1::text[])"

_SAVE = """
INSERT INTO private_text (kind, id, content)
SELECT 'candidate_name', * FROM unnest($1::text[], $2::text[])
ON CONFLICT (kind, id) DO UPDATE SET content = excluded.content WHERE private_text.content <> excluded.content
"""

_SAVE_TEXTS = """
INSERT INTO private_text (kind, id, content, locale, kept_until)
SELECT 'reply_text', *, $4::date FROM unnest($1::text[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING
"""

_FORGET_TEXTS = """
DELETE FROM private_text WHERE ctid = ANY(ARRAY(SELECT ctid FROM private_text WHERE kept_until < $1 LIMIT $2))
"""

_FORGOTTEN_AT_ONCE_MAX = 10_000

_CORRECTED = """
SELECT t.content, t.locale, c.outcome
FROM correction c
JOIN reply r ON r.reply_id = c.reply_id
JOIN private_text t ON t.kind = 'reply_text' AND t.id = c.reply_id
WHERE c.requested_at >= $1 AND r.source = 'classifier' AND r.outcome <> c.outcome
ORDER BY c.requested_at, c.thread_id
"""


class Corrected(NamedTuple):
    """A reply's words, their locale as the platform gave it, and the outcome that a human gave them."""

    text: str
    locale: str | None
    outcome: Outcome


async def load_names(tx: asyncpg.Connection, thread_ids: Collection[str]) -> dict[str, str]:
    """Give the candidates' names by thread; a thread whose candidate has none is left out."""
    return {row["id"]: row["content"] for row in await tx.fetch(_LOAD, list(thread_ids))} if thread_ids else {}


async def save_names(tx: asyncpg.Connection, names: Mapping[str, str]) -> None:
    """Keep names by thread, instead of what was there."""
    if names:
        ids = sorted(names)
        await tx.execute(_SAVE, ids, [names[thread_id] for thread_id in ids])


async def save_texts(tx: asyncpg.Connection, texts: Mapping[str, tuple[str, str | None]], *, kept_until: date) -> None:
    """Keep texts and their locales by reply, through the given day."""
    if texts:
        ids = sorted(texts)
        await tx.execute(_SAVE_TEXTS, ids, [texts[i][0] for i in ids], [texts[i][1] for i in ids], kept_until)


async def forget_texts(connection: asyncpg.Connection) -> bool:
    """Delete texts whose time is over, so many that it holds nobody up; tell whether there may be more."""
    done = await connection.execute(_FORGET_TEXTS, datetime.now(UTC).date(), _FORGOTTEN_AT_ONCE_MAX)
    return bool(done == f"DELETE {_FORGOTTEN_AT_ONCE_MAX}")


async def load_corrected(connection: asyncpg.Connection, since: datetime) -> list[Corrected]:
    """Give the replies, still kept, whose verdict a human has turned over since then, oldest correction first.

    Left out is a correction of a thread whose standing reply says by itself what the human said: it was another reply
    that the outcome came from.
    """
    return [Corrected(*row) for row in await connection.fetch(_CORRECTED, since)]

"""Every statement about what names a candidate or comes from their words: one table, one place to erase."""

from collections.abc import Iterable
from typing import Literal

import asyncpg

from shared.postgres import execute_rows

Kind = Literal["scheduled_name", "sent_name", "unmatched_digest"]

_LOAD = "SELECT thread_id, kind, id, content FROM private_text WHERE thread_id = ANY($1::text[])"

_SAVE = """
INSERT INTO private_text (thread_id, kind, id, content)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
ON CONFLICT (thread_id, kind, id) DO UPDATE SET content = excluded.content
WHERE private_text.content <> excluded.content
"""

PrivateText = tuple[str, Kind, str, str]
"""thread_id, kind, inmail_id or reply_id, content."""


async def load(tx: asyncpg.Connection, thread_ids: Iterable[str]) -> list[PrivateText]:
    """Give all private text of some threads."""
    return [tuple(row) for row in await tx.fetch(_LOAD, list(thread_ids))]


async def save(tx: asyncpg.Connection, texts: Iterable[PrivateText]) -> None:
    """Keep private text, instead of what was there."""
    await execute_rows(tx, _SAVE, list(texts))

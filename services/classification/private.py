"""Every statement about what names a candidate: one table, one place to erase.

A name is kept because the event that a correction brings about carries it, and the command does not.
"""

from collections.abc import Collection, Mapping

import asyncpg

_LOAD = "SELECT id, content FROM private_text WHERE kind = 'candidate_name' AND id = ANY($1::text[])"

_SAVE = """
INSERT INTO private_text (kind, id, content)
SELECT 'candidate_name', * FROM unnest($1::text[], $2::text[])
ON CONFLICT (kind, id) DO UPDATE SET content = excluded.content WHERE private_text.content <> excluded.content
"""


async def load_names(tx: asyncpg.Connection, thread_ids: Collection[str]) -> dict[str, str]:
    """Give the candidates' names by thread; a thread whose candidate has none is left out."""
    return {row["id"]: row["content"] for row in await tx.fetch(_LOAD, list(thread_ids))} if thread_ids else {}


async def save_names(tx: asyncpg.Connection, names: Mapping[str, str]) -> None:
    """Keep names by thread, instead of what was there."""
    if names:
        ids = sorted(names)
        await tx.execute(_SAVE, ids, [names[thread_id] for thread_id in ids])

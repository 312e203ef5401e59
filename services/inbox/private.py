"""Every statement about candidates' names: one table, so that there is one place to erase. Texts are not kept."""

from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

_CANDIDATE_NAME: Final = "candidate_name"  # by thread_id: each thread shows the name its own InMails gave

_LOAD = "SELECT id, content FROM private_text WHERE kind = $1 AND id = ANY($2::text[])"

_SAVE = """
INSERT INTO private_text (kind, id, content)
SELECT $1, * FROM unnest($2::text[], $3::text[])
ON CONFLICT (kind, id) DO UPDATE SET content = excluded.content
"""


async def load_names(connection: asyncpg.Connection, thread_ids: Iterable[str]) -> dict[str, str]:
    """Give the candidates' names by thread; threads without one are left out."""
    rows = await connection.fetch(_LOAD, _CANDIDATE_NAME, list(thread_ids))
    return {row["id"]: row["content"] for row in rows}


async def save_names(tx: asyncpg.Connection, names: Mapping[str, str]) -> None:
    """Keep the candidates' names, by thread, instead of what was there."""
    if names:
        thread_ids = sorted(names)
        await tx.execute(_SAVE, _CANDIDATE_NAME, thread_ids, [names[thread_id] for thread_id in thread_ids])

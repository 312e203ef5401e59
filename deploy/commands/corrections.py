"""`inmail corrections`: what humans made of the model's verdicts, as examples to train on."""

import asyncio
import json
import re
from datetime import UTC, datetime

import asyncpg
import click

from deploy.commands.stack import postgres_address, postgres_option
from deploy.local.servers import reaching
from services.classification.model.corpus import Example
from services.classification.private import Corrected, load_corrected

AUTHOR = "corrections"
_LANGUAGE = re.compile("[a-z]{2,3}")


@click.command()
@click.option("--since", type=click.DateTime(), default="1970-01-01", help="Only corrections from this time on, UTC.")
@postgres_option
def command(*, since: datetime, postgres: str | None) -> None:
    """Write the corrected replies as JSON Lines, in the form of the model's training data.

    They hold people's words: what is written is to be kept like them. A reply is there for as long as classification
    keeps its text (INMAIL_CLASSIFIED_TEXT_DAYS).
    """
    dsn = postgres_address(postgres)
    with reaching(postgres=dsn):
        found = asyncio.run(_load(dsn, since.replace(tzinfo=UTC)))
    for corrected in found:
        click.echo(json.dumps(row_of(corrected), ensure_ascii=False))
    click.echo(f"{len(found)} corrected replies", err=True)


async def _load(dsn: str, since: datetime) -> list[Corrected]:
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "classification"})
    try:
        return await load_corrected(connection, since)
    finally:
        await connection.close()


def row_of(corrected: Corrected) -> dict[str, object]:
    """Give a row as `services.classification.model.corpus` reads it."""
    language = _LANGUAGE.match((corrected.locale or "").lower())
    example = Example(
        text=corrected.text,
        label="accept" if corrected.outcome == "accepted" else "decline",
        lang=language[0] if language else "und",
        tags=("corrected",),
        author=AUTHOR,
        split="train",
    )
    return {name: getattr(example, name) for name in example.__slots__}

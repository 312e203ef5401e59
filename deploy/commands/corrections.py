"""`inmail corrections`: what humans made of the model's verdicts, as examples to train on."""

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime

import asyncpg
import click

from deploy.commands.stack import postgres_address, postgres_option
from deploy.local.servers import reaching
from services.classification.domain import OUTCOME_OF_LABEL
from services.classification.model.corpus import Example
from services.classification.private import Corrected, load_corrected
from shared.templates import language_of

AUTHOR = "corrections"
_LABELS = {outcome: label for label, outcome in OUTCOME_OF_LABEL.items()}


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
    example = Example(
        text=corrected.text,
        label=_LABELS[corrected.outcome],
        lang=language_of(corrected.locale or "und"),
        tags=("corrected",),
        author=AUTHOR,
        split="train",
    )
    return asdict(example)

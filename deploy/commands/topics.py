"""`inmail topics`: the registry as a table, and what of it is missing on a broker."""

import asyncio
import json

import click
from rich.table import Table

from deploy.commands.stack import kafka_address, kafka_option
from deploy.commands.terminal import output
from deploy.local.servers import reaching
from deploy.topics import create_topics
from shared.topics import DAY_MS, TOPICS


@click.command()
@click.option("--create", is_flag=True, help="Create the topics that are missing on the broker.")
@click.option("--replication", type=click.IntRange(1), default=1, show_default=True, help="Copies of what is created.")
@click.option("--json", "as_json", is_flag=True, help="Print the registry as JSON.")
@kafka_option
def command(*, create: bool, replication: int, as_json: bool, kafka: str | None) -> None:
    """Show every topic with its key, writer and readers."""
    created: list[str] = []
    if create:
        bootstrap = kafka_address(kafka)
        with reaching(kafka=bootstrap):
            created = asyncio.run(create_topics(bootstrap, replication=replication))
    if as_json:
        rows = [
            {
                "name": t.name,
                "key": t.key,
                "partitions": t.partitions,
                "retention_ms": t.retention_ms,
                "cleanup": t.cleanup,
                "writer": t.writer,
                "readers": t.readers,
                "types": t.types,
                "created": t.name in created,
            }
            for t in TOPICS.values()
        ]
        click.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "key", "parts", "kept", "writer", "readers"):
        table.add_column(heading, no_wrap=heading != "readers")
    for t in TOPICS.values():
        kept = "newest per key" if t.cleanup == "compact" else f"{t.retention_ms / DAY_MS:g} days"
        table.add_row(t.name, t.key, str(t.partitions), kept, t.writer, ", ".join(t.readers))
    output().print(table)
    if create:
        click.echo(f"created {len(created)}, there before {len(TOPICS) - len(created)}")

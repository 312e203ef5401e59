"""`inmail replay`: set a service's stored position, so that it reads records again, or goes on after a loss."""

import asyncio
import json

import asyncpg
import click
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.commands.stack import kafka_address, kafka_option, postgres_address, postgres_option
from deploy.commands.terminal import json_option
from deploy.local.servers import reaching
from shared.migrate import SCHEMA_OWNERS

_POSITIONS = """
SELECT topic, partition, next_offset FROM consumer_offset WHERE $1::text IS NULL OR topic = $1 ORDER BY 1, 2
"""
_MOVE = """
UPDATE consumer_offset SET next_offset = $3, owner_epoch = owner_epoch + 1
WHERE topic = $1 AND partition = $2 RETURNING next_offset
"""


@click.command()
@click.option("--consumer", type=click.Choice(SCHEMA_OWNERS), required=True, help="The service.")
@click.option("--topic", help="Only this topic [default: every topic the service has read].")
@click.option("--from-oldest", is_flag=True, required=True, help="Go to the oldest record that the broker still holds.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@json_option
@kafka_option
@postgres_option
def command(
    *,
    consumer: str,
    topic: str | None,
    from_oldest: bool,
    dry_run: bool,
    as_json: bool,
    kafka: str | None,
    postgres: str | None,
) -> None:
    """Move stored positions to the oldest record on the broker.

    What was applied already is recognised and has no second effect. The owner of a partition is fenced by the move
    and claims it anew, so the service may keep running.
    """
    del from_oldest  # the only place there is to go, asked for by name because it is a big step
    bootstrap, dsn = kafka_address(kafka), postgres_address(postgres)
    with reaching(kafka=bootstrap, postgres=dsn):
        moves = asyncio.run(_move(bootstrap, dsn, consumer, topic, dry_run=dry_run))
    if as_json:
        names = ("topic", "partition", "before", "after")
        click.echo(json.dumps({"dry_run": dry_run, "moved": [dict(zip(names, m, strict=True)) for m in moves]}))
        return
    for name, partition, before, after in moves:
        click.echo(f"{'would move' if dry_run else 'moved'} {name}[{partition}] from {before} to {after}")
    if not moves:
        click.echo("every position is there already")


async def _move(
    bootstrap: str, dsn: str, service: str, topic: str | None, *, dry_run: bool
) -> list[tuple[str, int, int, int]]:
    connection = await asyncpg.connect(dsn, server_settings={"search_path": service})
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, client_id="inmail-replay", group_id=None)
    try:
        await consumer.start()
        rows = await connection.fetch(_POSITIONS, topic)
        if topic and not rows:
            raise click.UsageError(f"{service} has read no topic {topic!r}; `inmail topics` lists them")
        oldest = await consumer.beginning_offsets([TopicPartition(r["topic"], r["partition"]) for r in rows])
        moves = [
            (r["topic"], r["partition"], r["next_offset"], oldest[TopicPartition(r["topic"], r["partition"])])
            for r in rows
        ]
        moves = [move for move in moves if move[2] != move[3]]
        if not dry_run:
            async with connection.transaction():
                await connection.executemany(_MOVE, [(name, partition, after) for name, partition, _, after in moves])
        return moves
    finally:
        await consumer.stop()
        await connection.close()

"""The ingestion hop: our service beside other ways to do the same, each in its own process, on the same events."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import asyncpg

from deploy.bench import load
from deploy.local.errors import StackError
from deploy.local.stack import LocalStack
from deploy.local.system import ROOT
from deploy.topics import create_topics
from shared.migrate import SCHEMA_OWNERS, migrate
from shared.testing.databases import with_database
from shared.testing.topics import empty_topics
from shared.topics import MESSAGING_EVENTS

BATCHED: Final = ("limit", "ours", "faststream_batch")
SINGLE: Final = ("aiokafka_single", "faststream_single", "faust_single")
_CONTENDER_SECONDS_MAX = 240.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many events each kind of contender gets, and how often it runs; the median counts."""

    batched: int = 40_000
    single: int = 1_500
    rounds: int = 3


async def measure(stack: LocalStack, sizes: Sizes, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Events per second of every contender, one figure per round; contenders take turns so that drift hits all."""
    await create_topics(stack.kafka_bootstrap)
    rates: dict[str, list[float]] = {name: [] for name in (*BATCHED, *SINGLE)}
    for round_number in range(sizes.rounds):
        for names, count in ((BATCHED, sizes.batched), (SINGLE, sizes.single)):
            await _fill(stack, count)
            for name in names:
                rate = await _run(stack, name, count)
                rates[name].append(rate)
                say(f"round {round_number + 1}: {name} {rate:,.0f} events/s")
    return rates


async def _fill(stack: LocalStack, count: int) -> None:
    await empty_topics(stack.kafka_bootstrap)
    start = load.start_of(load.now())
    await load.publish(stack.kafka_bootstrap, MESSAGING_EVENTS, load.encoded(load.inmails(start, count // 2)))
    await load.publish(stack.kafka_bootstrap, MESSAGING_EVENTS, load.encoded(load.replies(start, count // 2)))


async def _run(stack: LocalStack, name: str, count: int) -> float:
    """Run one contender on a fresh database.

    Raises:
        StackError: it ended with an error.
    """
    database = f"bench_{name}"
    dsn = with_database(stack.postgres_dsn, database)
    await _execute(stack.postgres_dsn, f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    await _execute(stack.postgres_dsn, f"CREATE DATABASE {database}")
    await migrate(dsn, passwords=dict.fromkeys(SCHEMA_OWNERS, "bench-only"))
    await _execute(dsn, "CHECKPOINT")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "deploy.bench.contenders", name, str(count)),
        cwd=ROOT,
        env={
            **os.environ,
            "INMAIL_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
            "INMAIL_POSTGRES_DSN": dsn,
            "INMAIL_INSTANCE": f"bench-{os.urandom(4).hex()}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _CONTENDER_SECONDS_MAX)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise StackError(f"the contender {name} failed:\n{errors.decode()[-2000:]}", "run it alone and read its log.")
    result = json.loads(output)
    return float(result["events"]) / float(result["seconds"])


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()

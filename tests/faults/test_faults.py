"""Services, broker and database die under load: the verifier of the demo finds nothing lost and nothing doubled."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import asyncpg
import httpx
import pytest

from deploy.local.kafka import EmbeddedKafka
from deploy.local.ports import free_port
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.stack import LocalStack
from deploy.local.supervisor import Child, RestartPolicy, State
from deploy.local.system import LocalSystem
from deploy.traffic.expectation import Expectation
from deploy.traffic.publisher import publish
from deploy.traffic.records import Record
from deploy.traffic.scenario import Scenario
from deploy.verifier import Target, drained, observe, verify
from shared.migrate import SCHEMA_OWNERS

KILLS = 5
INMAILS = 900
ZOMBIE_INMAILS = 300
REST_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05
# The shortest session that the broker allows, and limits below it, so that a frozen owner is replaced soon.
SETTINGS = {
    "INMAIL_SESSION_TIMEOUT_MS": "6000",
    "INMAIL_HEARTBEAT_INTERVAL_MS": "1000",
    "INMAIL_TRANSACTION_TIMEOUT_MS": "5000",
    "INMAIL_IDLE_IN_TRANSACTION_TIMEOUT_MS": "3000",
    "INMAIL_LOCK_TIMEOUT_MS": "5000",
}

Blow = Callable[[], Awaitable[None]]

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def system() -> AsyncIterator[LocalSystem]:
    policy = RestartPolicy(restarts_max=50, backoff_seconds_first=0.05, backoff_seconds_max=0.5)
    async with LocalSystem(LocalStack(environ={}), settings=SETTINGS, restart=policy) as running:
        yield running


def scenario(inmails: int) -> Scenario:
    return Scenario.make(seed=7, inmails=inmails, until=datetime.now(UTC).replace(microsecond=0))


async def play(target: Target, played: Scenario, blows: Sequence[Blow] = ()) -> None:
    """Publish as the demo does, wave after wave, each when the one before has come to rest.

    The conversations come in as many parts as there are blows, and each blow falls while its part is being worked on.
    """
    for wave in played.waves:
        parts = max(1, len(blows) if wave.name == "conversations" else 1)
        for number in range(parts):
            await publish(target.kafka, part_of(wave.records, number, parts))
            if parts > 1:
                await blows[number]()
        await drained(target, seconds_max=REST_SECONDS_MAX)


async def broken_lines(target: Target, played: Scenario) -> list[str]:
    observed = await observe(target, as_of=played.until)
    return [
        f"{line.name}: expected {line.expected}, found {line.actual}"
        for line in verify(Expectation.of(played), observed)
        if not line.holds
    ]


def part_of(records: Sequence[Record], number: int, parts: int) -> Sequence[Record]:
    """One of so many parts that follow each other."""
    return records[len(records) * number // parts : len(records) * (number + 1) // parts]


def blows_to(system: LocalSystem) -> list[Blow]:
    """Kill each service `KILLS` times, and between the rounds the broker and the database once."""
    assert system.stack.kafka is not None
    assert system.stack.postgres is not None
    rounds: list[list[Blow]] = [
        [partial(kill_service, system, name, times) for name in SCHEMA_OWNERS] for times in range(1, KILLS + 1)
    ]
    rounds[1].append(partial(kill_server, system.stack.kafka))
    rounds[2].append(partial(kill_server, system.stack.postgres))
    return [blow for blows in rounds for blow in blows]


async def kill_service(system: LocalSystem, name: str, times: int) -> None:
    await system.stack.supervisor.kill(name)
    await until(partial(has_restarted, system.stack.supervisor.children[name], times))


async def kill_server(server: EmbeddedKafka | EmbeddedPostgres) -> None:
    await server.kill()
    await server.restart()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask another process again and again; no event could tell."""
    async with asyncio.timeout(REST_SECONDS_MAX):
        while not await holds():  # noqa: ASYNC110  as said above
            await asyncio.sleep(POLL_SECONDS)


async def test_kills_under_load_lose_nothing_and_double_nothing(system: LocalSystem) -> None:
    target, played = Target.of(system), scenario(INMAILS)
    await play(target, played, blows_to(system))
    assert [child.restarts_total for name, child in system.stack.supervisor.children.items()] == [KILLS] * 5
    assert await broken_lines(target, played) == []


async def has_restarted(child: Child, times: int) -> bool:
    return child.restarts_total >= times and child.state is State.RUNNING


async def test_a_zombie_is_rejected_by_the_fence(system: LocalSystem) -> None:
    """Frozen in a transaction, replaced, and woken: Postgres has ended that one, and the fence refuses the next."""
    target, played, supervisor = Target.of(system), scenario(ZOMBIE_INMAILS), system.stack.supervisor
    zombie = system.addresses["ingestion"].url
    assert await rejections(zombie) == 0
    admin = await asyncpg.connect(system.stack.postgres_dsn)
    async with admin.transaction():
        await admin.execute("LOCK TABLE ingestion.thread IN ACCESS EXCLUSIVE MODE")
        playing = asyncio.create_task(play(target, played))
        await until(partial(waits_for_a_lock, system.stack.postgres_dsn, "inmail-ingestion-0"))
        supervisor.pause("ingestion")
    await supervisor.start(system.spec_of("ingestion", name="successor", port=free_port(), instance="1"))
    await playing  # only the successor can have done the work
    assert await admin.fetchval("SELECT count(*) FROM ingestion.consumer_offset WHERE owner_epoch < 2") == 0
    await admin.close()
    supervisor.resume("ingestion")
    await until(lambda: was_rejected(zombie))
    await drained(target, seconds_max=REST_SECONDS_MAX)
    assert await broken_lines(target, played) == []


async def waits_for_a_lock(dsn: str, application: str) -> bool:
    """Look from a session of its own: within a transaction the view of all sessions stands still."""
    watcher = await asyncpg.connect(dsn)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'"
    waiting: int = await watcher.fetchval(query, application)
    await watcher.close()
    return waiting > 0


async def was_rejected(url: str) -> bool:
    return await rejections(url) > 0


async def rejections(url: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics")).text
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("inmail_fence_rejections_total")
    )

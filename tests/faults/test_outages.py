"""Broker or database away: services wait and say so, lose nothing and go on alone; commands say cause and cure."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from deploy.local.errors import StackError
from deploy.local.kafka import EmbeddedKafka
from deploy.local.ports import free_port
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.servers import kafka_endpoint
from deploy.local.stack import LocalStack
from deploy.local.supervisor import Child
from deploy.local.system import ROOT, LocalSystem
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE
from shared.events import Event, InmailSentV1
from shared.testing import builders
from shared.testing.topics import publish, read
from shared.topics import CONTRACT_EVENTS, CONVERSATION_EVENTS, MESSAGING_EVENTS

WAIT_SECONDS_MAX = 60.0
POLL_SECONDS = 0.05
INMAILS = 20
REPLAY = "replay --consumer inbox --from-oldest"
UP = "up --state {folder}"
SECRET = "k9-never-shown"  # noqa: S105  it opens nothing
SETTINGS = {"INMAIL_RETRY_SECONDS_MAX": "0.5"}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
async def system() -> AsyncIterator[LocalSystem]:
    async with LocalSystem(LocalStack(environ={}), services=("ingestion",), settings=SETTINGS) as running:
        yield running


@dataclass(frozen=True)
class Server:
    """One of the two servers, and what a service says while it is away."""

    name: str
    of: Callable[[LocalStack], EmbeddedKafka | EmbeddedPostgres | None]
    logged: str

    def __str__(self) -> str:
        return self.name

    def at(self, system: LocalSystem) -> EmbeddedKafka | EmbeddedPostgres:
        server = self.of(system.stack)
        assert server is not None
        return server


KAFKA = Server("Kafka", lambda stack: stack.kafka, "consumer ended, a new one starts")
POSTGRES = Server("Postgres", lambda stack: stack.postgres, "waiting for Postgres")
each_server = pytest.mark.parametrize("server", [KAFKA, POSTGRES], ids=str)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask another process again and again; no event could tell."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not await holds():  # noqa: ASYNC110  as said above
            await asyncio.sleep(POLL_SECONDS)


async def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """What a service answers; status 0 while it does not."""
    async with httpx.AsyncClient() as client:
        try:
            answer = await client.get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return 0, {}
    return answer.status_code, answer.json()


async def waits_for(port: int, server: Server) -> bool:
    status, said = await ask(port, "/readyz")
    return status == httpx.codes.SERVICE_UNAVAILABLE and said["waiting_for"] == server.name


async def is_ready(port: int) -> bool:
    return (await ask(port, "/readyz"))[0] == httpx.codes.OK


async def has_logged(child: Child, words: str, *, times: int = 1) -> bool:
    return child.log_path.read_text().count(words) >= times


@each_server
async def test_a_service_that_starts_while_a_server_is_away_waits_and_then_works(
    system: LocalSystem, server: Server
) -> None:
    name, port, supervisor = f"credits-{server}", free_port(), system.stack.supervisor
    await server.at(system).kill()
    child = await supervisor.start(replace(system.spec_of("credits", name=name, port=port), ready=None))
    await until(partial(waits_for, port, server))
    await until(partial(has_logged, child, server.logged, times=2))
    assert (await ask(port, "/healthz"))[0] == httpx.codes.OK
    assert not await is_ready(port)

    await server.at(system).start()
    await until(partial(is_ready, port))
    await publish(system.stack.kafka_bootstrap, CONTRACT_EVENTS, [builders.contract_started(contract_id=name)])
    await until(partial(is_booked_and_published, system.stack.postgres_dsn, name))
    assert child.restarts_total == 0
    assert await supervisor.stop_child(name) == 0


async def is_booked_and_published(dsn: str, contract_id: str) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        booked = await connection.fetchval("SELECT granted FROM credits.contract WHERE contract_id = $1", contract_id)
        waiting = await connection.fetchval("SELECT count(*) FROM credits.outbox")
        return (booked, waiting) == (10, 0)
    finally:
        await connection.close()


async def test_the_database_goes_and_comes_under_a_running_service(system: LocalSystem) -> None:
    kafka, child = system.stack.kafka_bootstrap, system.stack.supervisor.children["ingestion"]
    port, process = system.addresses["ingestion"].port, (child.pid, child.restarts_total)
    waited = child.log_path.read_text().count(POSTGRES.logged)
    await publish(kafka, MESSAGING_EVENTS, inmails("before"))
    await POSTGRES.at(system).stop()
    await publish(kafka, MESSAGING_EVENTS, inmails("meanwhile"))
    await until(partial(has_logged, child, POSTGRES.logged, times=waited + 1))
    await until(partial(waits_for, port, POSTGRES))
    assert (await ask(port, "/healthz"))[0] == httpx.codes.OK

    await POSTGRES.at(system).start()
    await until(partial(is_ready, port))
    await publish(kafka, MESSAGING_EVENTS, inmails("afterwards"))
    # Of each InMail the conversation says its status and who is told.
    said = await read(kafka, CONVERSATION_EVENTS, count=2 * 3 * INMAILS)
    statuses = {e.id: e.data.inmail_id for e in said if e.type == "inmail.status_changed.v1"}
    wanted = [e.data.inmail_id for when in ("before", "meanwhile", "afterwards") for e in inmails(when)]
    assert sorted(statuses.values()) == sorted(wanted)
    assert (child.pid, child.restarts_total) == process, child.log_path.read_text()[-5_000:]


def inmails(when: str) -> list[Event[InmailSentV1]]:
    return [builders.sent(inmail_id=f"{when}-{n}", thread_id=f"{when}-{n}") for n in range(INMAILS)]


# Commands


async def inmail(*arguments: str, kafka: str, postgres: str) -> tuple[int | None, str]:
    """Run a command with external servers; give its exit status and all it said."""
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", *arguments),
        cwd=ROOT,
        env=os.environ | {KAFKA_VARIABLE: kafka, POSTGRES_VARIABLE: postgres},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await done.communicate()
    return done.returncode, said.decode()


def assert_cause_and_cure(done: tuple[int | None, str], cause: str) -> None:
    status, said = done
    assert status == 1, said
    assert cause in said
    assert "Cure: " in said
    assert "Traceback" not in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "command",
    ["topics --create", "dlq list", "dlq show ingestion 1", "dlq redrive", "replay --consumer inbox --from-oldest"],
)
async def test_a_command_whose_broker_is_away_says_cause_and_cure(system: LocalSystem, command: str) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = await inmail(*command.split(), kafka=nowhere, postgres=system.stack.postgres_dsn)
    assert_cause_and_cure(done, f"Kafka at {nowhere} does not answer")


@pytest.mark.parametrize("address", ["127.0.0.1:kafka", "http://127.0.0.1:9092", ":9092"])
def test_what_is_no_address_of_a_broker(address: str) -> None:
    with pytest.raises(StackError, match=f"'{address}' is not the address"):
        kafka_endpoint(address)


@pytest.mark.parametrize(
    ("command", "postgres", "cause"),
    [
        (REPLAY, f"postgresql://inmail:{SECRET}@127.0.0.1:{{unused}}/inmail", "127.0.0.1:{unused} does not answer"),
        (REPLAY, f"postgresql://inmail:{SECRET}@127.0.0.1:{{port}}/inmail", "{port} refuses: InvalidPasswordError"),
        (REPLAY, f"//inmail:{SECRET}@127.0.0.1", "the database's address is none"),
        (UP, f"postgresql://inmail:{SECRET}@127.0.0.1:port/inmail", "the database's address is none"),
        (UP, f"postgresql://inmail:{SECRET}@127.0.0.1:{{port}}/inmail", "{port} refuses: InvalidPasswordError"),
    ],
)
async def test_a_command_whose_database_is_away_says_cause_and_cure(
    system: LocalSystem, tmp_path: Path, command: str, postgres: str, cause: str
) -> None:
    ports = {"port": urlsplit(system.stack.postgres_dsn).port, "unused": free_port()}
    arguments = command.format(folder=tmp_path).split()
    done = await inmail(*arguments, kafka=system.stack.kafka_bootstrap, postgres=postgres.format(**ports))
    assert_cause_and_cure(done, cause.format(**ports))


async def test_up_with_servers_that_are_away_says_cause_and_cure_and_leaves_nothing(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = await inmail("up", "--state", str(tmp_path), kafka=nowhere, postgres=f"postgresql://{nowhere}/inmail")
    assert_cause_and_cure(done, f"Kafka at {nowhere} does not answer")
    assert not (tmp_path / "stack.json").exists()


async def test_up_without_its_broker_leaves_the_passwords_of_an_external_database(
    system: LocalSystem, tmp_path: Path
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = await inmail("up", "--state", str(tmp_path), kafka=nowhere, postgres=system.stack.postgres_dsn)
    assert_cause_and_cure(done, f"Kafka at {nowhere} does not answer")
    connection = await asyncpg.connect(system.dsn_of("ingestion"))
    await connection.close()


async def test_doctor_says_which_of_the_servers_are_away() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = await inmail("doctor", kafka="127.0.0.1:kafka", postgres=f"postgresql://inmail:{SECRET}@{nowhere}/inmail")
    assert_cause_and_cure(done, "'127.0.0.1:kafka' is not")
    assert_cause_and_cure(done, f"{nowhere} of {POSTGRES_VARIABLE} does not answer")

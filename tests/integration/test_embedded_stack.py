"""The embedded stack does what the tests above it rely on: real servers, faults on demand, nothing left behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import jars, maven
from deploy.local.doctor import run_checks
from deploy.local.errors import StackError
from deploy.local.jars import LockedJar
from deploy.local.kafka import EXIT_SIGTERM, EmbeddedKafka
from deploy.local.ports import free_port
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.progress import ProgressEvent
from deploy.local.stack import LocalStack
from deploy.local.supervisor import NEVER_RESTART, ChildSpec, RestartPolicy, State, Supervisor
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE

TOPIC = "stack.test"
ROOT = Path(__file__).parents[2]
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture(scope="module")
async def own_kafka(folder: Path) -> AsyncIterator[EmbeddedKafka]:
    async with EmbeddedKafka(folder / "kafka") as broker:
        yield broker
    assert broker.process.returncode == EXIT_SIGTERM


@pytest.fixture(scope="module")
async def own_postgres(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(folder / "postgres") as server:
        yield server
    assert server.process.returncode == 0


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    await supervisor.stop()


async def test_kafka_keeps_acknowledged_records_over_a_kill(own_kafka: EmbeddedKafka) -> None:
    await _create_topic(own_kafka.bootstrap)
    await _produce(own_kafka.bootstrap, b"before")
    address = own_kafka.bootstrap

    await own_kafka.kill()
    assert own_kafka.process.returncode == -signal.SIGKILL
    await own_kafka.start()

    assert own_kafka.bootstrap == address
    await _produce(address, b"after")
    assert await _consume(address, count=2) == [b"before", b"after"]


async def test_kafka_leaves_no_topic_of_its_readiness_probe(own_kafka: EmbeddedKafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=own_kafka.bootstrap)
    await admin.start()
    try:
        names = await admin.list_topics()
    finally:
        await admin.close()
    assert not [name for name in names if "probe" in name]


async def test_kafka_says_why_it_cannot_start(folder: Path) -> None:
    with _taken_port() as port:
        broker = EmbeddedKafka(folder / "taken", port)
        with pytest.raises(StackError, match="Address already in use"):
            await broker.start()
    assert not broker.running


async def test_postgres_keeps_commits_over_a_kill(own_postgres: EmbeddedPostgres) -> None:
    dsn = own_postgres.dsn
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE kept (value int)")
    await connection.execute("INSERT INTO kept VALUES (7)")

    await own_postgres.kill()
    await own_postgres.start()

    assert own_postgres.dsn == dsn
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT value FROM kept") == 7
        assert [await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")] == ["on", "on"]
    finally:
        await connection.close()


async def test_postgres_frozen_does_not_answer_and_then_does(own_postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(own_postgres.dsn)
    try:
        own_postgres.pause()
        query = asyncio.create_task(connection.fetchval("SELECT 1"))
        done, _ = await asyncio.wait({query}, timeout=0.3)
        assert not done
    finally:
        own_postgres.resume()
    assert await query == 1
    await connection.close()


async def test_postgres_wants_the_password(own_postgres: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(own_postgres.dsn, password="wrong")  # noqa: S106 - that it is wrong is the test


async def test_postgres_starts_in_a_folder_closed_to_other_users(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with EmbeddedPostgres(closed / "postgres") as server:
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        before = server.dsn
    shutil.rmtree(closed / "postgres")  # as `make clean` does: what lies elsewhere has lost its password
    async with EmbeddedPostgres(closed / "postgres") as server:
        assert server.dsn != before
        await (await asyncpg.connect(server.dsn)).close()
    server.remove_data()
    assert not server.pgdata.exists()


async def test_postgres_says_that_the_password_of_its_data_is_gone(folder: Path) -> None:
    async with EmbeddedPostgres(folder / "forgetful") as server:
        dsn = server.dsn
    (folder / "forgetful" / "password").rename(folder / "password")
    with pytest.raises(StackError, match="password"):
        await server.start()
    (folder / "password").rename(folder / "forgetful" / "password")
    async with EmbeddedPostgres(folder / "forgetful") as server:
        assert server.dsn == dsn


def test_a_folder_of_somebody_else_keeps_its_mode(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir(mode=0o700)
    ours.symlink_to(theirs)
    with pytest.raises(StackError, match="someone else"):
        EmbeddedPostgres(tmp_path / "data")._make_public_parent(ours)
    assert theirs.stat().st_mode & 0o777 == 0o700


async def test_two_stacks_at_once_then_nothing_is_left() -> None:
    events: list[ProgressEvent] = []
    async with LocalStack(progress=events.append, environ={}) as one, LocalStack(environ={}) as two:
        assert one.kafka_bootstrap != two.kafka_bootstrap
        assert one.postgres_dsn != two.postgres_dsn
        folders = [one.state_dir, two.state_dir]
    assert not [folder for folder in folders if folder.exists()]
    assert {event.what for event in events if event.finished} >= {"Starting Kafka", "Starting Postgres"}


async def test_one_folder_serves_one_stack_at_a_time_and_keeps_its_data(folder: Path) -> None:
    state = folder / "state"
    external = {KAFKA_VARIABLE: "elsewhere:9092"}
    async with LocalStack(state, environ=external) as stack:
        assert stack.kafka_bootstrap == "elsewhere:9092"
        dsn = stack.postgres_dsn
        with pytest.raises(StackError, match="in use by another stack"):
            await LocalStack(state, environ=external).start()
        await _execute(dsn, "CREATE TABLE kept (value int)")
    async with LocalStack(state, environ=external) as stack:
        assert stack.postgres_dsn == dsn
        await _execute(dsn, "SELECT value FROM kept")


async def test_external_servers_mean_that_nothing_is_started() -> None:
    async with LocalStack(environ={KAFKA_VARIABLE: "k:1", POSTGRES_VARIABLE: "postgresql://p/db"}) as stack:
        assert (stack.kafka, stack.postgres) == (None, None)
        assert (stack.kafka_bootstrap, stack.postgres_dsn) == ("k:1", "postgresql://p/db")


async def test_the_stack_tells_that_a_server_died() -> None:
    async with LocalStack(environ={KAFKA_VARIABLE: "k:1"}) as stack:
        assert stack.postgres is not None
        failed = asyncio.create_task(stack.wait_failed())
        await stack.postgres.kill()
        assert "Postgres ended with status -9" in (await asyncio.wait_for(failed, 5)).cause


async def test_no_process_outlives_a_killed_parent(folder: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from deploy.local.stack import LocalStack
        from deploy.local.supervisor import ChildSpec

        async def main() -> None:
            async with LocalStack(Path(sys.argv[1]), environ={}) as stack:
                child = await stack.supervisor.start(
                    ChildSpec(name="sleeper", command=[sys.executable, "-c", "import time; time.sleep(600)"])
                )
                print(stack.kafka.process.pid, stack.postgres.process.pid, child.pid, flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(folder / "orphans"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(parent.stdout.readline(), 60)).split()]
    assert len(pids) == 3
    parent.kill()
    await parent.wait()
    await _eventually(lambda: not any(_lives(pid) for pid in pids), seconds=10)


async def test_a_child_that_dies_is_started_again(supervisor: Supervisor) -> None:
    child = await supervisor.start(ChildSpec(name="sleeper", command=SLEEPER))
    first = child.pid
    await _eventually(lambda: child.peak_rss_bytes > 2**20, seconds=5)  # at first it is not yet the program
    await supervisor.kill("sleeper")
    await _eventually(lambda: child.state == State.RUNNING and child.pid not in {None, first}, seconds=5)
    assert child.restarts_total == 1


async def test_a_held_child_stays_dead_until_it_is_asked_for(supervisor: Supervisor) -> None:
    child = await supervisor.start(ChildSpec(name="sleeper", command=SLEEPER))
    await supervisor.kill("sleeper", hold=True)
    await asyncio.sleep(0.5)
    assert child.pid is None
    await supervisor.start_again("sleeper")
    assert child.pid is not None


async def test_a_child_that_dies_too_often_is_given_up_with_its_last_words(supervisor: Supervisor) -> None:
    dies = [sys.executable, "-c", "import sys; sys.exit('no database')"]
    policy = RestartPolicy(restarts_max=2, backoff_seconds_first=0.01)
    child = await supervisor.start(ChildSpec(name="mortal", command=dies, restart=policy))
    failure = await asyncio.wait_for(supervisor.wait_failed(), 10)
    assert (failure.name, child.state, child.restarts_total) == ("mortal", State.FAILED, 2)
    assert "no database" in failure.error.cause
    assert "restarts_max=2" in failure.error.cause


async def test_a_child_that_never_gets_ready_is_killed(supervisor: Supervisor) -> None:
    url = f"http://127.0.0.1:{free_port()}/ready"
    spec = ChildSpec(name="slow", command=SLEEPER, ready=url, ready_seconds_max=0.3, restart=NEVER_RESTART)
    with pytest.raises(StackError, match=r"was not ready in ready_seconds_max=0\.3 s"):
        await supervisor.start(spec)
    assert supervisor.children["slow"].pid is None


async def test_a_child_is_ready_when_its_address_answers(supervisor: Supervisor, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    child = await supervisor.start(
        ChildSpec(name="web", command=command, ready=f"http://127.0.0.1:{port}/", cwd=tmp_path)
    )
    assert child.state == State.RUNNING


async def test_stop_goes_backwards_and_kills_what_will_not_end(supervisor: Supervisor) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    first = await supervisor.start(ChildSpec(name="first", command=SLEEPER))
    deaf = await supervisor.start(
        ChildSpec(name="deaf", command=[sys.executable, "-c", stubborn], stop_seconds_max=0.3)
    )
    await _eventually(lambda: "deaf" in deaf.log_path.read_text(), seconds=5)
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    assert first.pid is not None, "the first child must outlive the later one"
    await stopping
    assert (first.returncode, deaf.returncode) == (-signal.SIGTERM, -signal.SIGKILL)


async def test_a_paused_child_can_be_stopped(supervisor: Supervisor) -> None:
    child = await supervisor.start(ChildSpec(name="sleeper", command=SLEEPER))
    supervisor.pause("sleeper")
    assert await supervisor.stop_child("sleeper") == -signal.SIGTERM
    assert child.state == State.STOPPED


async def test_a_signal_takes_no_exit_status_from_the_event_loop(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poll(_: object) -> None:
        pytest.fail("whoever polls a process that has just ended gets its exit status instead of the loop")

    child = await supervisor.start(ChildSpec(name="sleeper", command=SLEEPER))
    monkeypatch.setattr(subprocess.Popen, "poll", poll)
    supervisor.pause("sleeper")
    assert await supervisor.stop_child("sleeper") == -signal.SIGTERM
    assert child.returncode == -signal.SIGTERM


async def test_a_changed_jar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(coordinate: str, work_dir: Path) -> Path:
        path = work_dir / "evil.jar"
        path.write_bytes(b"not Kafka")
        return path

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jars, "read_lock", lambda: [LockedJar("org.example:kafka:1", 9, "0" * 64)])
    monkeypatch.setattr(maven, "download", wrong)
    with pytest.raises(StackError, match="sha256"):
        await jars.ensure_jars()
    assert not list(tmp_path.rglob("*.jar"))  # noqa: ASYNC240 - a look at a small folder


async def test_without_network_the_error_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(maven.REPOSITORY_VARIABLE, f"http://127.0.0.1:{free_port()}/maven")
    monkeypatch.setattr(maven, "BACKOFF_SECONDS", 0.001)
    with pytest.raises(StackError) as caught:
        await EmbeddedKafka(tmp_path / "kafka").start()
    assert "could not be downloaded" in caught.value.cause
    assert KAFKA_VARIABLE in caught.value.cure
    assert str(caught.value).endswith(caught.value.cure)


def test_a_mirror_of_the_maven_settings_replaces_central(tmp_path: Path) -> None:
    settings = tmp_path / "settings.xml"
    settings.write_text(
        '<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0"><mirrors>'
        "<mirror><mirrorOf>external:http:*</mirrorOf><url>http://blocked/</url><blocked>true</blocked></mirror>"
        "<mirror><mirrorOf>*,!central</mirrorOf><url>http://other/</url></mirror>"
        "<mirror><mirrorOf>central</mirrorOf><url>http://mirror/maven</url></mirror>"
        "</mirrors></settings>"
    )
    assert maven._mirror_of_central(settings) == "http://mirror/maven"
    assert maven._mirror_of_central(tmp_path / "absent.xml") is None


async def test_doctor_finds_this_machine_well() -> None:
    assert [check for check in await run_checks() if not check.ok] == []


async def test_doctor_says_what_is_wrong_with_an_external_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KAFKA_VARIABLE, f"127.0.0.1:{free_port()}")
    [check] = [check for check in await run_checks() if not check.ok]
    assert check.name == "kafka"
    assert KAFKA_VARIABLE in check.cause
    assert KAFKA_VARIABLE in check.cure


async def _create_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])
        while TOPIC not in await admin.list_topics():  # noqa: ASYNC110 - the broker sends no events
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def _produce(bootstrap: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(TOPIC, value)


async def _consume(bootstrap: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=bootstrap,
        group_id="stack.test",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=1000,
        heartbeat_interval_ms=300,
    )
    await consumer.start()
    try:
        return [(await asyncio.wait_for(consumer.getone(), 10)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _eventually(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that has ended may wait for the machine's first process to collect it.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextlib.contextmanager
def _taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]

"""The whole local stack as one object: Kafka, Postgres and a supervisor for the services."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.errors import StackError
from deploy.local.kafka import EmbeddedKafka
from deploy.local.paths import make_dir
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.process import ChildProcess
from deploy.local.progress import ProgressCallback, ProgressEvent, silent
from deploy.local.supervisor import Supervisor
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE

TEMPORARY_PREFIX = "inmail-stack-"
# Younger folders may belong to a stack that has not yet locked its own.
ABANDONED_SECONDS_MIN = 60.0
_LOCK_NAME = "lock"


class LocalStack:
    """Kafka and Postgres, embedded unless the environment names others, and a supervisor for what uses them.

    ``state_dir`` keeps the data for the next start; None means a temporary folder that ``stop()`` removes.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        *,
        progress: ProgressCallback = silent,
        environ: Mapping[str, str] = os.environ,
        kafka_port: int | None = None,
        postgres_port: int | None = None,
    ) -> None:
        self.kafka: EmbeddedKafka | None = None
        self.postgres: EmbeddedPostgres | None = None
        self._state_dir = state_dir
        self._temporary = state_dir is None
        self._progress = progress
        self._external_kafka = environ.get(KAFKA_VARIABLE) or None
        self._external_postgres = environ.get(POSTGRES_VARIABLE) or None
        self._ports = kafka_port, postgres_port
        self._supervisor: Supervisor | None = None
        self._lock: TextIOWrapper | None = None

    @property
    def kafka_bootstrap(self) -> str:
        """Kafka's address, ``host:port``."""
        return self.kafka.bootstrap if self.kafka else _given(self._external_kafka)

    @property
    def postgres_dsn(self) -> str:
        """Postgres' address, with user and password."""
        return self.postgres.dsn if self.postgres else _given(self._external_postgres)

    @property
    def supervisor(self) -> Supervisor:
        """Runs the services; it stops them before Kafka and Postgres go."""
        if self._supervisor is None:
            raise RuntimeError("the stack was not started")
        return self._supervisor

    @property
    def state_dir(self) -> Path:
        """Where this stack keeps its data and logs."""
        if self._state_dir is None:
            raise RuntimeError("the stack was not started")
        return self._state_dir

    async def start(self) -> None:
        """Start what is not external, both at the same time; on any failure nothing is left running."""
        try:
            self._take_folder()
            self._supervisor = Supervisor(self.state_dir / "logs")
            await self._start_servers()
        except BaseException:
            await self._stop(prepare_next=False)
            raise

    async def stop(self) -> None:
        """Stop the services, then Kafka and Postgres, and remove temporary data."""
        await self._stop(prepare_next=self._temporary)

    async def wait_failed(self) -> StackError:
        """Return why the stack no longer works: a server ended, or a service was given up."""
        tasks = {asyncio.ensure_future(self._wait_service_failed())}
        for name, server in (("Kafka", self.kafka), ("Postgres", self.postgres)):
            if server is not None:
                tasks.add(asyncio.ensure_future(_wait_server_failed(name, server.process)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever leaves in a hurry should not wait for the archive.
        await self._stop(prepare_next=self._temporary and kind is None)

    def _take_folder(self) -> None:
        if self._temporary:
            remove_abandoned()
            self._state_dir = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
            # As root, Postgres runs as another user, who must be able to pass through; the data itself stays closed.
            self._state_dir.chmod(0o711)
        make_dir(self.state_dir, "the stack's data")
        try:
            self._lock = _lock(self.state_dir)
        except OSError as error:
            raise StackError(
                f"The folder {self.state_dir} is in use by another stack, or not ours to write ({error.strerror}).",
                "stop the other one (`inmail up` in another terminal?), or name another folder.",
            ) from error

    async def _start_servers(self) -> None:
        kafka_port, postgres_port = self._ports
        if self._external_kafka is None:
            self.kafka = EmbeddedKafka(self.state_dir / "kafka", kafka_port, progress=self._progress)
        if self._external_postgres is None:
            self.postgres = EmbeddedPostgres(self.state_dir / "postgres", postgres_port, progress=self._progress)
        try:
            async with asyncio.TaskGroup() as group:
                for server in (self.kafka, self.postgres):
                    if server is not None:
                        group.create_task(server.start())
        except BaseExceptionGroup as errors:
            stack_errors = errors.subgroup(StackError)
            # One clear cause serves people better than a group of them.
            raise (stack_errors or errors).exceptions[0] from None

    async def _wait_service_failed(self) -> StackError:
        return (await self.supervisor.wait_failed()).error

    async def _stop(self, *, prepare_next: bool) -> None:
        if self._lock is None:  # never started, or stopped before
            return
        try:
            if self._supervisor is not None:
                await self._supervisor.stop()
        finally:
            await asyncio.gather(*(server.stop() for server in (self.kafka, self.postgres) if server is not None))
            if prepare_next:
                await self._make_archive()
            self._leave_folder()

    async def _make_archive(self) -> None:
        """Once per machine: use the classes that this Kafka loaded to make the next ones start in half the time."""
        if self.kafka is not None and self.kafka.program.archive_wanted:
            what = "Preparing faster starts (once)"
            self._progress(ProgressEvent(what, 0, 1))
            await self.kafka.program.make_archive()
            self._progress(ProgressEvent(what, 1, 1))

    def _leave_folder(self) -> None:
        if self._temporary:
            if self.postgres is not None:
                self.postgres.remove_data()
            shutil.rmtree(self.state_dir, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        self._lock = None


def remove_abandoned() -> None:
    """Remove temporary folders whose stack was killed: nobody else would."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, still in use, or removed by someone else
            if folder.stat().st_uid != os.geteuid() or time.time() - folder.stat().st_mtime < ABANDONED_SECONDS_MIN:
                continue
            with _lock(folder):
                shutil.rmtree(folder)


def _lock(folder: Path) -> TextIOWrapper:
    """Take the folder for this process; the system gives it back when the process ends, however it ends."""
    lock = (folder / _LOCK_NAME).open("w", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock


async def _wait_server_failed(name: str, process: ChildProcess) -> StackError:
    status = await process.wait()
    return StackError(
        f"{name} ended with status {status}:\n{process.log_tail()}", f"read {process.log_path} and start again."
    )


def _given(address: str | None) -> str:
    if address is None:
        raise RuntimeError("the stack was not started")
    return address

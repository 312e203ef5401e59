"""A real PostgreSQL 18 on the loopback address, with a password, and with fsync on so that measurements are honest."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import asyncpg

from deploy.local.accounts import Account, unprivileged_account
from deploy.local.errors import StackError
from deploy.local.paths import CACHE_NAME, make_dir, reachable_by, require_free_disk
from deploy.local.ports import HOST, free_port
from deploy.local.postgres_binaries import postgres_bin
from deploy.local.process import ChildProcess, server_environment
from deploy.local.progress import ProgressCallback, ProgressEvent, silent

USER = "inmail"
DATABASE = "inmail"
INIT_SECONDS_MAX = 60.0
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
CONNECT_SECONDS_MAX = 2.0
POLL_SECONDS = 0.05
# A server that was told to quit when its parent died needs up to five seconds for that.
PREDECESSOR_SECONDS_MAX = 10.0
WHAT = "Starting Postgres"
# What root gives another account must lie where that account can go; it survives a reboot there.
PUBLIC_DATA_PARENT = Path("/var/tmp")  # noqa: S108 - a folder of our own below it, checked for its owner
_SETTINGS = {
    "listen_addresses": HOST,
    # TCP only: a socket's path has a length limit that a project folder easily exceeds.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    # One lock per partition and index of a partitioned table; the default runs out on schema changes.
    "max_locks_per_transaction": "256",
    # The statements are short: compiling them costs more than it saves.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Stated though they are the defaults: the delivery guarantees and all measurements rest on them.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}


class EmbeddedPostgres:
    """A Postgres server with its data in ``data_dir``; ``port`` None takes the last run's port if free, else any.

    As root the server runs as another account. Where that one cannot enter ``data_dir``, the data goes to a folder
    below ``/var/tmp`` instead (``pgdata`` says where), and ``data_dir`` keeps the password and the log. Who removes
    ``data_dir`` means all of it: without its password the next start makes new data there.
    """

    def __init__(self, data_dir: Path, port: int | None = None, *, progress: ProgressCallback = silent) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / "postgres.log"
        self.pgdata = data_dir / "pgdata"
        self._fixed_port = port
        self._port: int | None = None
        self._password = ""
        self._process: ChildProcess | None = None
        self._account: Account | None = None
        self._progress = progress

    @property
    def dsn(self) -> str:
        """The address of the database, with user and password; it stays the same over stop, kill and restart."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """Return the address of another database of the same server."""
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{quote(database)}"

    @property
    def port(self) -> int:
        """The TCP port."""
        if self._port is None:
            raise RuntimeError("Postgres has no port before its first start")
        return self._port

    @property
    def process(self) -> ChildProcess:
        """The server's first process, for signals, memory and log."""
        if self._process is None:
            raise RuntimeError("Postgres was not started")
        return self._process

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.running

    async def start(self) -> None:
        """Start the server, at first with a new cluster and database, and return when it answers a query."""
        if self.running:
            return
        self._account = unprivileged_account()
        make_dir(self.data_dir, "Postgres' data")
        require_free_disk(self.data_dir)
        self.pgdata = self._choose_pgdata()
        self._progress(ProgressEvent(WHAT, 0, 2))
        self._forget_data_without_password()
        self._password = self._read_or_make_password()
        if not (self.pgdata / "PG_VERSION").exists():
            await self._init()
        self._progress(ProgressEvent(WHAT, 1, 2))
        await self._clear_predecessor()
        self._choose_port()
        await self._start_once()
        self._progress(ProgressEvent(WHAT, 2, 2))

    async def stop(self) -> None:
        """End all sessions and stop the server; after the deadline it is killed."""
        if self._process is not None:
            await self._process.stop(deadline_seconds=STOP_SECONDS_MAX, stop_signal=signal.SIGINT)

    async def kill(self) -> None:
        """End the server and its backends at once; the next start recovers from the log, as after a power cut."""
        if self._process is not None:
            await self._process.kill()

    async def restart(self) -> None:
        """Stop the server if it runs and start it on the same port and data."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze the server and its backends: connections stay open and nothing answers. Resume it before you leave."""
        self.process.pause()

    def resume(self) -> None:
        """Let a frozen server run on."""
        self.process.resume()

    def remove_data(self) -> None:
        """Remove what the stopped server has stored, wherever it is."""
        if self.running:
            raise RuntimeError("Postgres still runs")
        shutil.rmtree(self.pgdata.parent, ignore_errors=True)
        shutil.rmtree(self.data_dir, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _password_path(self) -> Path:
        return self.data_dir / "password"

    def _forget_data_without_password(self) -> None:
        if self._password_path.exists() or not self.pgdata.exists():
            return
        if self.pgdata.parent == self.data_dir:
            raise StackError(
                f"{self.pgdata} is there, but not its password: {self._password_path} was removed.",
                f"bring that file back, or remove {self.pgdata} to begin anew.",
            )
        shutil.rmtree(self.pgdata)

    def _read_or_make_password(self) -> str:
        path = self._password_path
        if path.exists():
            return path.read_text(encoding="ascii").strip()
        password = secrets.token_urlsafe(24)
        path.touch(mode=0o600)  # before it holds anything worth reading
        path.write_text(password, encoding="ascii")
        return password

    def _choose_pgdata(self) -> Path:
        account = self._account
        if account is None or reachable_by(self.data_dir, account.uid, account.gid):
            return self.data_dir / "pgdata"
        key = hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:16]
        return PUBLIC_DATA_PARENT / f"{CACHE_NAME}-{key}" / "pgdata"

    def _choose_port(self) -> None:
        if self._port is not None:
            return
        path = self.data_dir / "port"
        remembered = int(path.read_text(encoding="ascii")) if path.exists() else None
        self._port = free_port(remembered) if self._fixed_port is None else self._fixed_port
        path.write_text(str(self._port), encoding="ascii")

    async def _init(self) -> None:
        """Make a new cluster beside its final place and move it there whole, so that a half-made one is never used."""
        pgdata, account = self.pgdata, self._account
        self._make_public_parent(pgdata.parent)
        work = pgdata.parent / "pgdata.new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        password_file = work / "password"  # initdb wants an empty folder: it gets one below
        password_file.write_text(self._password, encoding="ascii")
        if account is not None:
            for path in (work, password_file):
                os.chown(path, account.uid, account.gid)
        child = await ChildProcess.start(
            [
                await self._program("initdb"),
                f"--pgdata={work / 'cluster'}",
                f"--username={USER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                # The same order of text on every machine, whatever languages it has installed.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ],
            log_path=self.data_dir / "initdb.log",
            env=server_environment(LC_ALL="C", TZ="UTC"),
            cwd=work,
            account=account,
        )
        try:
            status = await asyncio.wait_for(child.wait(), INIT_SECONDS_MAX)
        finally:
            await child.kill()
        if status != 0:
            raise StackError(
                f"Postgres cannot make its data folder {pgdata}:\n{child.log_tail()}",
                "see that the disk has space and that the folder can be written; `inmail doctor` looks for more.",
            )
        (work / "cluster").rename(pgdata)
        shutil.rmtree(work)

    async def _program(self, name: str) -> Path:
        # In a thread: it may have to copy 40 MiB, and Kafka starts in this loop at the same time.
        return await asyncio.to_thread(postgres_bin, self._account) / name

    def _make_public_parent(self, parent: Path) -> None:
        if parent == self.data_dir:
            return
        parent.mkdir(mode=0o711, exist_ok=True)
        if parent.is_symlink() or parent.stat().st_uid != os.geteuid():
            raise StackError(f"{parent} belongs to someone else.", "remove it, or choose another data folder.")
        parent.chmod(0o711)

    async def _clear_predecessor(self) -> None:
        """Wait for a server of a killed parent to end; forget one whose process id another program has by now."""
        pid_file = self.pgdata / "postmaster.pid"
        for _ in range(int(PREDECESSOR_SECONDS_MAX / POLL_SECONDS)):
            try:
                pid = int(pid_file.read_text(encoding="utf-8").splitlines()[0])
            except (OSError, ValueError, IndexError):
                return
            if not _is_postgres(pid):
                pid_file.unlink(missing_ok=True)
                return
            await asyncio.sleep(POLL_SECONDS)
        raise StackError(
            f"Another Postgres (process {pid}) runs on {self.pgdata}.",
            "stop the other stack first, or choose another data folder.",
        )

    async def _start_once(self) -> None:
        command: list[str | Path] = [await self._program("postgres"), "-D", self.pgdata, "-p", str(self.port)]
        for name, value in _SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        # Not by pg_ctl: it would detach the server from us, and then a killed parent leaves an orphan.
        self._process = await ChildProcess.start(
            command,
            log_path=self.log_path,
            env=server_environment(LC_ALL="C", TZ="UTC"),
            cwd=self.pgdata.parent,
            account=self._account,
            death_signal=signal.SIGQUIT,  # ends the backends too, which SIGKILL would leave to finish their statement
        )
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await self._wait_until_ready()
        except TimeoutError as error:
            await self._process.kill()
            raise self._not_started(f"was not ready in {START_SECONDS_MAX:.0f} s") from error
        except BaseException:
            await self._process.kill()
            raise

    async def _wait_until_ready(self) -> None:
        while True:
            if not self.running:
                raise self._not_started(f"ended with status {self.process.returncode}")
            try:
                await self._make_database()
            except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
                await asyncio.sleep(POLL_SECONDS)
            else:
                return

    async def _make_database(self) -> None:
        connection = await asyncpg.connect(self.dsn_of("postgres"), timeout=CONNECT_SECONDS_MAX)
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                    await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close(timeout=CONNECT_SECONDS_MAX)

    def _not_started(self, how: str) -> StackError:
        return StackError(
            f"Postgres {how}:\n{self.process.log_tail()}",
            f"read {self.log_path}; if the data is not worth keeping, remove {self.data_dir} and {self.pgdata}; "
            "`inmail doctor` looks for what is missing.",
        )


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "postgres"
    except OSError:
        return False

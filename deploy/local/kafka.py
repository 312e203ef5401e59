"""A real Kafka in one process: KRaft, broker and controller combined, on the loopback address."""

import asyncio
import json
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.errors import StackError
from deploy.local.install import ensure_kafka
from deploy.local.java import JavaProgram
from deploy.local.kafka_ready import wait_until_ready
from deploy.local.paths import make_dir, require_free_disk
from deploy.local.ports import HOST, free_port
from deploy.local.process import ChildProcess, server_environment
from deploy.local.progress import ProgressCallback, ProgressEvent, silent

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
EXIT_SIGTERM = 143  # the Java runtime's status after a clean stop by SIGTERM
WHAT = "Starting Kafka"
# On two cores the second compiler took nearly as much as all requests together, for minutes; code of the first alone
# makes requests some tenth dearer.
_JVM_FLAGS = ("-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1")
_LOG_FLAGS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)
# Only what differs from Kafka's defaults, and why.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # Topics come from the registry; a typing error must fail, not make a topic.
    "auto.create.topics.enable": "false",
    # One broker can hold one copy.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Fewer internal partitions: each costs files, and start time when there are many.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # Tests start groups by the hundred, and want to see a dead member noticed within seconds.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A broker killed and started again must not wait for its own last session to end.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "message.max.bytes": str(8 * 1024 * 1024),
    # Two cores, one disk, 512 MiB of heap: the defaults are for a server (the cleaner alone takes 128 MiB).
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}


class EmbeddedKafka:
    """A Kafka broker with its data in ``data_dir``; ``port`` None takes the last run's port if free, else any."""

    def __init__(self, data_dir: Path, port: int | None = None, *, progress: ProgressCallback = silent) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / "kafka.log"
        self._fixed_port = port
        self._port: int | None = None
        self._controller_port = 0
        self._process: ChildProcess | None = None
        self._program: JavaProgram | None = None
        self._progress = progress

    @property
    def bootstrap(self) -> str:
        """The address for clients, ``host:port``; it stays the same over stop, kill and restart."""
        return f"{HOST}:{self.port}"

    @property
    def port(self) -> int:
        """The port for clients."""
        if self._port is None:
            raise RuntimeError("Kafka has no port before its first start")
        return self._port

    @property
    def process(self) -> ChildProcess:
        """The broker's process, for signals, memory and log."""
        if self._process is None:
            raise RuntimeError("Kafka was not started")
        return self._process

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.running

    @property
    def program(self) -> JavaProgram:
        """Kafka's Java program, once started."""
        if self._program is None:
            raise RuntimeError("Kafka was not started")
        return self._program

    async def start(self) -> None:
        """Start the broker and return when it has acknowledged a record and its group coordinator has answered."""
        if self.running:
            return
        self._program = self._program or await ensure_kafka(self._progress)
        make_dir(self.data_dir, "Kafka's data")
        require_free_disk(self.data_dir)
        self._progress(ProgressEvent(WHAT, 0, 1))
        self._choose_ports()
        await self._start_once()
        self._progress(ProgressEvent(WHAT, 1, 1))

    async def stop(self) -> None:
        """Stop the broker; after the deadline it is killed."""
        if self._process is not None:
            await self._process.stop(deadline_seconds=STOP_SECONDS_MAX)

    async def kill(self) -> None:
        """End the broker at once, without a chance to flush or say good-bye."""
        if self._process is not None:
            await self._process.kill()

    async def restart(self) -> None:
        """Stop the broker if it runs and start it on the same port and data."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze the broker: its connections stay open and nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        """Let a frozen broker run on."""
        self.process.resume()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _log_dir(self) -> Path:
        return self.data_dir / "logs"

    def _choose_ports(self) -> None:
        """Choose both ports at the first start only: clients and the quorum on disk remember them."""
        if self._port is not None:
            return
        port, controller_port = _read_ports(self.data_dir) or (None, None)
        self._port = free_port(port) if self._fixed_port is None else self._fixed_port
        self._controller_port = free_port(controller_port)
        _ports_path(self.data_dir).write_text(json.dumps([self._port, self._controller_port]), encoding="utf-8")

    async def _start_once(self) -> None:
        properties = self._write_properties()
        if not (self._log_dir / "meta.properties").exists():
            await self._format(properties)
        self._process = await ChildProcess.start(
            self.program.command(
                flags=[*_JVM_FLAGS, *_LOG_FLAGS], main=["kafka.Kafka", properties], record_classes=True
            ),
            log_path=self.log_path,
            env=server_environment(),
        )
        try:
            await self._wait_until_ready()
        except BaseException:
            await self._process.kill()
            raise

    async def _wait_until_ready(self) -> None:
        ready = asyncio.ensure_future(wait_until_ready(self.bootstrap))
        ended = asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=START_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                return
            raise self._not_started(
                f"ended with status {ended.result()}" if ended.done() else f"was not ready in {START_SECONDS_MAX:.0f} s"
            )
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def _format(self, properties: Path) -> None:
        """Write the cluster's id to the data folder, as Kafka demands before its first start."""
        log_path = self.data_dir / "format.log"
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        child = await ChildProcess.start(
            self.program.command(
                # It runs for less time than the better compiler needs to pay.
                flags=["-XX:TieredStopAtLevel=1", "-Xmx128m", *_LOG_FLAGS],
                # One argument, as an id may begin with a dash.
                main=["kafka.tools.StorageTool", "format", "--standalone", f"-t={cluster_id}", "-c", properties],
            ),
            log_path=log_path,
            env=server_environment(),
        )
        try:
            status = await asyncio.wait_for(child.wait(), START_SECONDS_MAX)
        finally:
            await child.kill()
        if status != 0:
            raise StackError(
                f"Kafka's data folder {self._log_dir} cannot be formatted:\n{child.log_tail()}",
                f"remove {self.data_dir} and start again.",
            )

    def _write_properties(self) -> Path:
        listeners = {"PLAINTEXT": self.port, "CONTROLLER": self._controller_port}
        properties = _PROPERTIES | {
            "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items()),
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.bootstrap.servers": f"{HOST}:{self._controller_port}",
            "log.dirs": str(self._log_dir.resolve()),
        }
        path = self.data_dir / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
        return path

    def _not_started(self, how: str) -> StackError:
        return StackError(
            f"Kafka {how}:\n{self.process.log_tail()}",
            f"read {self.log_path}; if the data is not worth keeping, remove {self.data_dir}; `inmail doctor` looks "
            "for what is missing.",
        )


def _ports_path(data_dir: Path) -> Path:
    return data_dir / "ports.json"


def _read_ports(data_dir: Path) -> tuple[int, int] | None:
    try:
        port, controller_port = json.loads(_ports_path(data_dir).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(port), int(controller_port)

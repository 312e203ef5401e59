"""The whole system on this machine: the stack, the schemas, the topics and every service, each with its own role."""

import asyncio
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from deploy.local.errors import StackError
from deploy.local.ports import HOST, free_port
from deploy.local.progress import ProgressCallback, ProgressEvent, silent
from deploy.local.servers import reaching
from deploy.local.stack import LocalStack
from deploy.local.supervisor import ChildSpec, RestartPolicy
from deploy.topics import create_topics
from shared.migrate import SCHEMA_OWNERS, MigrationError, migrate, role_of

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0  # a service may need its drain time thrice


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """Where a service answers, and the name of its process."""

    name: str
    port: int

    @property
    def url(self) -> str:
        """The base of its paths."""
        return f"http://{HOST}:{self.port}"


@dataclass(slots=True)
class LocalSystem:
    """Starts everything in order; use as an async context manager.

    `services` are those to start (all by default), `settings` are added to the environment of each.
    """

    stack: LocalStack
    services: Sequence[str] = SCHEMA_OWNERS
    settings: Mapping[str, str] = field(default_factory=dict)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    progress: ProgressCallback = silent
    addresses: dict[str, ServiceAddress] = field(default_factory=dict)
    _passwords: dict[str, str] = field(default_factory=dict)

    async def start(self) -> None:
        """Start the stack, bring schemas and topics up to date, start the services and wait until each is ready.

        Raises:
            StackError: with cause and cure; nothing is left running.
        """
        await self.stack.start()
        try:
            self._passwords = {name: secrets.token_urlsafe(18) for name in SCHEMA_OWNERS}
            await self._prepare(self.stack.kafka_bootstrap, self.stack.postgres_dsn)
            for name in self.services:
                self.addresses[name] = ServiceAddress(name, free_port())
            await self._start_services()
        except BaseException:
            await self.stack.stop()
            raise

    async def stop(self) -> None:
        """Stop the services, then what they need."""
        await self.stack.stop()

    def dsn_of(self, service: str) -> str:
        """The database with the role of one service."""
        parts = urlsplit(self.stack.postgres_dsn)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{role_of(service)}:{self._passwords[service]}@{host}"))

    def spec_of(
        self, service: str, *, name: str | None = None, port: int | None = None, instance: str = "0"
    ) -> ChildSpec:
        """How to run a service; another `name`, `port` and `instance` make a second process of it."""
        port = port or self.addresses[service].port
        return ChildSpec(
            name=name or service,
            command=[sys.executable, "-m", f"services.{service}"],
            cwd=ROOT,
            env=self.environment_of(service) | {"INMAIL_HTTP_PORT": str(port), "INMAIL_INSTANCE": instance},
            ready=f"http://{HOST}:{port}/readyz",
            ready_seconds_max=READY_SECONDS_MAX,
            stop_seconds_max=STOP_SECONDS_MAX,
            restart=self.restart,
        )

    def environment_of(self, service: str) -> dict[str, str]:
        """The settings of a service, its password among them."""
        urls = {f"INMAIL_{name.upper()}_URL": a.url for name, a in self.addresses.items()}
        return {
            "INMAIL_KAFKA_BOOTSTRAP": self.stack.kafka_bootstrap,
            "INMAIL_POSTGRES_DSN": self.dsn_of(service),
            "INMAIL_HTTP_HOST": HOST,
            **urls,
            **self.settings,
        }

    def write_description(self, path: Path) -> None:
        """Write the addresses for programs, readable by this user only: the database's password is among them."""
        description = {
            "kafka": self.stack.kafka_bootstrap,
            "postgres": self.stack.postgres_dsn,
            "services": {name: a.url for name, a in self.addresses.items()},
            "prometheus": None,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(description, indent=2) + "\n")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stack.__aexit__(kind, error, trace)

    async def _prepare(self, kafka: str, postgres: str) -> None:
        """Bring topics and schemas up to date; where the broker is away, the database and its passwords stay."""
        with reaching(kafka=kafka, postgres=postgres):
            await create_topics(kafka)
            try:
                await migrate(postgres, passwords=self._passwords)
            except MigrationError as error:
                raise StackError(f"{error}.", "start the version that made this data, or with other data.") from error

    async def _start_services(self) -> None:
        what, total, done = "Starting services", len(self.services), 0
        self.progress(ProgressEvent(what, 0, total))
        starting = [asyncio.create_task(self.stack.supervisor.start(self.spec_of(name))) for name in self.services]
        try:
            for next_ready in asyncio.as_completed(starting):
                await next_ready
                done += 1
                self.progress(ProgressEvent(what, done, total))
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)

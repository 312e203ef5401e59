"""Databases for tests: fresh ones from a template with every migration applied."""

import itertools
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from shared.migrate import SCHEMA_OWNERS, migrate, role_of

_TEMPLATE = f"inmail_template_{os.getpid()}"
_PASSWORD = "test-only"  # noqa: S105  guards a server that lives as long as the test run


def with_database(dsn: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def as_service(dsn: str, service: str) -> str:
    """The same database, with the role of a service."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{role_of(service)}:{_PASSWORD}@{parts.hostname}:{parts.port}"))


@dataclass(slots=True)
class Databases:
    """Makes databases on a server whose administrator `admin_dsn` is."""

    admin_dsn: str
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _ready: bool = False

    async def create(self) -> str:
        """A fresh, migrated database; returns the administrator's DSN of it."""
        if not self._ready:
            await self._execute(f'CREATE DATABASE "{_TEMPLATE}"')
            await migrate(with_database(self.admin_dsn, _TEMPLATE), passwords=dict.fromkeys(SCHEMA_OWNERS, _PASSWORD))
            self._ready = True
        name = f"{_TEMPLATE}_{next(self._numbers)}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{_TEMPLATE}"')
        for service in SCHEMA_OWNERS:
            await self._execute(f'GRANT CONNECT ON DATABASE "{name}" TO {role_of(service)}')
        return with_database(self.admin_dsn, name)

    async def drop(self, dsn: str) -> None:
        """Remove a database, and end whoever is still connected to it."""
        await self._execute(f'DROP DATABASE IF EXISTS "{urlsplit(dsn).path[1:]}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

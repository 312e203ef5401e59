"""Migrations: numbered SQL files, each applied once, in one transaction with its entry in the list."""

import logging
from hashlib import sha256
from pathlib import Path
from typing import Final

import asyncpg

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
KIT = ROOT / "shared" / "stream" / "migrations"
SCHEMA_OWNERS: Final = ("ingestion", "classification", "notification", "credits", "inbox")
"""Services that own a Postgres schema; insights keeps only what it can rebuild from the topics."""

_LOCK_KEY = 7_263_514  # any number that no other program on the database uses for advisory locks


class MigrationError(Exception):
    """A migration file that was applied has changed since, or a schema cannot be brought up to date."""


def role_of(service: str) -> str:
    """The database role of a service."""
    return f"inmail_{service}"


def migration_files(service: str) -> list[tuple[str, str]]:
    """The service's migrations as (name, SQL), the delivery kit's first."""
    files = [*sorted(KIT.glob("*.sql")), *sorted((ROOT / "services" / service / "migrations").glob("*.sql"))]
    return [(f"{path.parent.parent.name}/{path.name}", path.read_text()) for path in files]


async def migrate(admin_dsn: str, *, passwords: dict[str, str]) -> None:
    """Create roles and schemas and bring every schema up to date; running it again changes nothing.

    `passwords` gives the password of each service's role.

    Raises:
        MigrationError: an applied file has changed.
        asyncpg.PostgresError: the database refuses a statement; that migration is rolled back whole.

    """
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        for service in SCHEMA_OWNERS:
            await _ensure_schema(connection, service, passwords[service])
            await _apply(connection, service)
    finally:
        await connection.close()


async def _ensure_schema(connection: asyncpg.Connection, service: str, password: str) -> None:
    """A role that can log in and sees its own schema only."""
    role = role_of(service)
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f"CREATE ROLE {role} LOGIN")
    quoted = await connection.fetchval("SELECT quote_literal($1::text)", password)
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(f"""
        ALTER ROLE {role} PASSWORD {quoted};
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
        GRANT CONNECT ON DATABASE {database} TO {role};
        CREATE SCHEMA IF NOT EXISTS {service};
        GRANT USAGE ON SCHEMA {service} TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {service} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {service} GRANT USAGE, SELECT ON SEQUENCES TO {role};
        CREATE TABLE IF NOT EXISTS {service}.migration (
            name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
        );
    """)


async def _apply(connection: asyncpg.Connection, service: str) -> None:
    applied = {r["name"]: r["digest"] for r in await connection.fetch(f"SELECT name, digest FROM {service}.migration")}  # noqa: S608  a constant
    for name, sql in migration_files(service):
        digest = sha256(sql.encode()).hexdigest()
        if name in applied:
            if applied[name] != digest:
                message = f"{service}: migration {name} was applied and has changed since; add a new file instead"
                raise MigrationError(message)
            continue
        async with connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {service}")
            await connection.execute(sql)
            await connection.execute(
                f"INSERT INTO {service}.migration (name, digest) VALUES ($1, $2)",  # noqa: S608  a constant
                name,
                digest,
            )
        logger.info("%s: applied %s", service, name)

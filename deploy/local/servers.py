"""Kafka and Postgres as a command reaches them: what their clients raise when that fails, told as cause and cure."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg
from aiokafka.errors import KafkaConnectionError, KafkaError

from deploy.local.errors import StackError
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE

_KAFKA_PORT: Final = 9092
_POSTGRES_PORT: Final = 5432


def kafka_endpoint(bootstrap: str) -> tuple[str, int]:
    """Return host and port of the first broker that is named.

    Raises:
        StackError: it is no `host:port`.
    """
    first = bootstrap.partition(",")[0].strip()
    try:
        parts = urlsplit(f"//{first}")
        port = parts.port or _KAFKA_PORT
    except ValueError:
        parts, port = urlsplit(""), 0
    if not parts.hostname or parts.path:
        raise StackError(f"{first!r} is not the address of a Kafka broker.", _cure(KAFKA_VARIABLE, "host:port"))
    return parts.hostname, port


def postgres_endpoint(dsn: str) -> tuple[str, int]:
    """Return host and port of a database's address.

    Raises:
        StackError: it is no such address; what it is instead is not repeated, for it may hold a password.
    """
    try:
        parts = urlsplit(dsn)
        port = parts.port or _POSTGRES_PORT
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in {"postgresql", "postgres"}:
        cure = _cure(POSTGRES_VARIABLE, "postgresql://user:password@host:port/database")
        raise StackError("What is given as the database's address is none.", cure)
    return parts.hostname or "localhost", port


@contextmanager
def reaching(*, kafka: str | None = None, postgres: str | None = None) -> Iterator[None]:
    """Raise `StackError` where one of the servers that the block talks to is away or refuses.

    Raises:
        StackError: also where an address is none.
    """
    broker = "Kafka" if kafka is None else "Kafka at {}:{}".format(*kafka_endpoint(kafka))
    database = "Postgres" if postgres is None else "Postgres at {}:{}".format(*postgres_endpoint(postgres))
    try:
        yield
    except KafkaError as error:
        raise StackError(f"{broker} {_said(error)}", _cure(KAFKA_VARIABLE, "host:port")) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        # Kafka's client has errors of its own for all that happens on the network.
        raise StackError(
            f"{database} {_said(error)}", _cure(POSTGRES_VARIABLE, "an administrator's database")
        ) from error


def _said(error: Exception) -> str:
    name = type(error).__name__
    if isinstance(error, KafkaConnectionError | OSError | TimeoutError):
        return f"does not answer ({name})."
    return f"refuses: {name}: {str(error).removeprefix(f'{name}: ')}."


def _cure(variable: str, form: str) -> str:
    return f"start that server, or name the right one in {variable} ({form}); `inmail doctor` looks at both servers."

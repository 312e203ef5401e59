"""Connections to Postgres: every one with time limits, so that a frozen process cannot hold a lock for ever."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import asyncpg

from shared.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")


# Faults of the database, not of the data: the same transaction is tried again and no record is blamed. A password, a
# right, a table or a column that is missing (28, 3D, 3F, 42) is one too: it would make a dead letter of every record.
_FAULT_CLASSES = (
    *("08", "25006", "25P02", "25P03", "25P04", "28", "3D", "3F", "40", "42", "53", "55P03", "57", "58", "XX"),
)


def is_fault(error: BaseException) -> bool:
    """Whether `error` says that the database is away, busy, in failover or not as it should be; no data is bad."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_FAULT_CLASSES)
    if isinstance(error, asyncpg.InternalClientError):
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, asyncpg.DataError)
    return isinstance(error, OSError | TimeoutError | asyncio.TimeoutError)


async def create_pool(settings: Settings, *, service: str) -> asyncpg.Pool:
    """Open the service's pool.

    Raises:
        OSError, asyncpg.PostgresError: the database is away or refuses the role.

    """
    return await asyncpg.create_pool(
        settings.postgres_dsn,
        min_size=2,
        max_size=settings.pool_connections_max,
        timeout=settings.connect_timeout_ms / 1000,
        command_timeout=settings.statement_timeout_ms / 1000,
        max_inactive_connection_lifetime=60,
        reset=_leave_as_is,
        server_settings={
            "application_name": f"inmail-{service}-{settings.instance}",
            "search_path": service,
            "timezone": "UTC",
            "lock_timeout": str(settings.lock_timeout_ms),
            "statement_timeout": str(settings.statement_timeout_ms),
            "transaction_timeout": str(settings.transaction_timeout_ms),
            "idle_in_transaction_session_timeout": str(settings.idle_in_transaction_timeout_ms),
            "tcp_keepalives_idle": "5",
            "tcp_keepalives_interval": "2",
            "tcp_keepalives_count": "3",
            # Statements go by keys. Before a table was first analysed, the planner takes a batch's keys for a good part
            # of it, reads it from end to end, and keeps that plan.
            "enable_seqscan": "off",
            "jit": "off",  # plans are short; compiling them costs more than it saves
        },
    )


async def _leave_as_is(_: object) -> None:
    """Nobody changes a session's state here, so returning a connection needs no round trip that resets it."""


@asynccontextmanager
async def acquire(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """One of the pool's connections; its proxy behaves as a connection, which asyncpg's types do not say."""
    try:
        async with pool.acquire() as proxy:
            yield cast("asyncpg.Connection", proxy)
    except asyncpg.ReadOnlySQLTransactionError:
        await pool.expire_connections()  # to a server that is a standby now, and answers all the same
        raise


@asynccontextmanager
async def transaction(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """A connection within a transaction that commits at the end, or rolls back when an exception leaves it."""
    async with acquire(pool) as connection, connection.transaction():
        yield connection


def columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Rows of one shape as one list per column, for `unnest`."""
    return [list(column) for column in zip(*rows, strict=True)]


async def execute_rows(tx: asyncpg.Connection, statement: str, rows: Sequence[Sequence[object]]) -> None:
    """Run a statement that takes rows in columns, unless there are none."""
    if rows:
        await tx.execute(statement, *columns(rows))


async def retry_until(
    attempt: Callable[[], Awaitable[T]],
    *,
    what: Callable[[BaseException], str],
    settings: Settings,
    retriable: Callable[[BaseException], bool],
    stopping: Callable[[], bool] = lambda: False,
) -> T:
    """Call `attempt` until it succeeds, with exponential back-off, saying once a try what is waited for.

    Raises:
        Exception: what `attempt` raised, when it is not retriable or the service is stopping.

    """
    delay_seconds = settings.retry_seconds_min
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not retriable(error) or stopping():
                raise
            logger.warning("waiting for %s: %s (next try in %.1f s)", what(error), type(error).__name__, delay_seconds)
        await asyncio.sleep(delay_seconds)
        delay_seconds = min(delay_seconds * 2, settings.retry_seconds_max)

"""A service as a process: settings, HTTP, database, broker, one loop, a watchdog, and a clean end."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Final

import asyncpg
import uvicorn
import uvloop
from aiokafka.errors import KafkaError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.bulkhead import Bulkhead
from shared.health import Health, health_routes
from shared.logging import setup_logging
from shared.metrics import Metrics
from shared.postgres import acquire, create_pool, is_fault, retry_until
from shared.problems import method_not_allowed, not_started, unknown_path
from shared.settings import Settings
from shared.stream.consumer import DeafConsumerError, StreamConsumer
from shared.stream.dry_run import dry_run_route
from shared.stream.offsets import FenceRejectedError, RetentionPassedError
from shared.stream.outbox import OutboxRow, Publication
from shared.stream.processor import Handler, Processor, Read, Tidy
from shared.stream.publisher import Publisher, PublisherEndedError

logger = logging.getLogger(__name__)

_WATCHDOG_SECONDS = 5.0
_STUCK_EXIT_CODE = 70
# A batch makes some 100,000 objects and no cycles; the defaults would walk all of them again and again (a third of
# the time, measured).
_GC_THRESHOLDS = (200_000, 20, 50)


@dataclass(slots=True)
class Resources:
    """What a service's handler and routes may use."""

    service: str
    settings: Settings
    metrics: Metrics
    pool: asyncpg.Pool
    bulkhead: Bulkhead
    publisher: Publisher | None = None
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What is to be closed when the last request has its answer."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """One of the pool's connections, for an HTTP request."""
        async with self.bulkhead.place(), acquire(self.pool) as connection:
            yield connection

    async def publish(self, rows: Sequence[OutboxRow]) -> None:
        """Publish rows that an HTTP request has committed; without a broker they leave later."""
        if self.publisher is not None:
            await self.publisher.put(Publication(rows))


def no_routes(_: Resources) -> Sequence[Route]:
    """For services without HTTP paths of their own."""
    return ()


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service: what it reads, what it does with it, what it answers."""

    name: str
    reads: tuple[Read, ...]
    handler: Callable[[Resources], Handler]
    routes: Callable[[Resources], Sequence[Route]] = no_routes
    gather_ms: int = 0
    """How long the broker may gather records before it answers: larger batches cost less a record, and come later."""
    hurried: bool = False
    """Somebody waits: gather as long as a few batches take, and for `gather_ms` at most."""
    tidy: Tidy | None = None


_ENDS_A_CONSUMER: Final = (
    FenceRejectedError,
    DeafConsumerError,
    PublisherEndedError,
    KafkaError,
    asyncpg.PostgresError,
)
"""A new consumer starts after these, and after any other fault of the database: not all are a PostgresError."""


@dataclass(slots=True)
class ServiceProcess:
    """A running service; `stop` ends `run` after the batch in hand."""

    spec: ServiceSpec
    settings: Settings
    metrics: Metrics
    health: Health
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    consumer: StreamConsumer | None = None
    processor: Processor | None = None
    _serving: bool = False

    def stop(self) -> None:
        """Ask `run` to end."""
        self.stopping.set()
        self.health.ending = True
        if self.consumer is not None:
            self.consumer.stop()

    async def run(self) -> None:
        """Serve HTTP from the first moment, and work until stopped."""
        bulkhead, closing = Bulkhead(self.settings), AsyncExitStack()
        app = Starlette(
            routes=[*health_routes(self.health, self.metrics), dry_run_route(lambda: self.processor, bulkhead)],
            exception_handlers={HTTPException: self._refuse},
        )
        app.router.redirect_slashes = False  # a path is what it is
        server = _Server(
            uvicorn.Config(
                app,
                host=self.settings.http_host,
                port=self.settings.http_port,
                log_config=None,
                lifespan="off",
                access_log=False,
                timeout_graceful_shutdown=ceil(self.settings.drain_seconds_max),
            )
        )
        serving = asyncio.create_task(server.serve())
        try:
            pool = await retry_until(
                self._connect,
                what=lambda _: "Postgres",
                settings=self.settings,
                retriable=is_fault,
                stopping=self.stopping.is_set,
            )
            closing.callback(pool.terminate)
            resources = Resources(self.spec.name, self.settings, self.metrics, pool, bulkhead, closing=closing)
            handler = self.spec.handler(resources)
            app.router.routes.extend(self.spec.routes(resources))
            self._serving = True
            await self._work(resources, handler)
        finally:
            self.health.ending = server.should_exit = True
            try:
                await serving  # before what requests in flight use
            finally:
                await closing.aclose()

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """Answer what no route takes; before the service's own routes are there, no path is known to be wrong."""
        if not self._serving:
            return not_started(self.health.waiting_for).response()
        if isinstance(error, HTTPException) and error.status_code == 405:
            return method_not_allowed(request.method, (error.headers or {}).get("Allow", "")).response()
        return unknown_path().response()

    async def _work(self, resources: Resources, handler: Handler) -> None:
        delay_seconds = self.settings.retry_seconds_min
        while not self.stopping.is_set():
            started = time.monotonic()
            try:
                await self._consume(resources, handler)
            except RetentionPassedError:
                raise
            except Exception as error:
                if not isinstance(error, _ENDS_A_CONSUMER) and not is_fault(error):
                    raise
                logger.warning(
                    "consumer ended, a new one starts in %.1f s: %s: %s", delay_seconds, type(error).__name__, error
                )
                self.health.waiting_for = "Kafka"
                if time.monotonic() - started > self.settings.retry_seconds_max:
                    delay_seconds = self.settings.retry_seconds_min
                await self._pause(delay_seconds)
                delay_seconds = min(2 * delay_seconds, self.settings.retry_seconds_max)

    async def _consume(self, resources: Resources, handler: Handler) -> None:
        """One life of a consumer, with a publisher of its own."""
        publisher = Publisher(
            resources.pool, self.settings, consumer=self.spec.name, fence_rejections=self.metrics.fence_rejections
        )
        try:
            await publisher.start()
            if self.stopping.is_set():
                return
            resources.publisher = publisher
            self.processor = self._processor_of(resources, handler, publisher)
            self.consumer = StreamConsumer(
                service=self.spec.name,
                reads=self.spec.reads,
                processor=self.processor,
                publisher=publisher,
                pool=resources.pool,
                settings=self.settings,
                metrics=self.metrics,
                health=self.health,
                gather_ms=self.spec.gather_ms,
                hurried=self.spec.hurried,
            )
            await self.consumer.run()
        finally:
            resources.publisher = None
            await publisher.stop()

    def _processor_of(self, resources: Resources, handler: Handler, publisher: Publisher) -> Processor:
        return Processor(
            service=self.spec.name,
            reads=self.spec.reads,
            handler=handler,
            pool=resources.pool,
            settings=self.settings,
            metrics=self.metrics,
            publish=publisher.put,
            tidy=self.spec.tidy,
        )

    async def _connect(self) -> asyncpg.Pool:
        self.health.turned()
        self.health.waiting_for = "Postgres"
        pool = await create_pool(self.settings, service=self.spec.name)
        try:
            await pool.fetchval("SELECT count(*) FROM consumer_offset")
        except BaseException:
            pool.terminate()
            raise
        self.health.waiting_for = "Kafka"
        return pool

    async def _pause(self, seconds: float) -> None:
        self.health.turned()
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            self.health.turned()


class _Server(uvicorn.Server):
    """Leaves signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(spec: ServiceSpec) -> None:
    """Run a service until SIGTERM or SIGINT; settings come from the environment.

    Exits with 1 when records were lost to retention, with 70 when the loop is stuck.
    """
    setup_logging(spec.name)
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    uvloop.run(_main(spec))


async def _main(spec: ServiceSpec) -> None:
    settings = Settings()
    health = Health(settings.progress_seconds_max)
    process = ServiceProcess(spec, settings, Metrics(spec.name), health)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    threading.Thread(target=_watch, args=(health,), daemon=True, name="watchdog").start()
    try:
        await process.run()
    except RetentionPassedError as error:
        logger.critical("%s", error)
        raise SystemExit(1) from error


def _watch(health: Health) -> None:
    """End the process when the loop is stuck: two looks in a row, because a stopped process needs time to go on."""
    strikes = 0
    while True:
        time.sleep(_WATCHDOG_SECONDS)
        strikes = strikes + 1 if health.still_seconds > health.progress_seconds_max else 0
        if strikes > 1:
            logger.critical("the loop has not turned for %.0f s: ending the process", health.still_seconds)
            os._exit(_STUCK_EXIT_CODE)

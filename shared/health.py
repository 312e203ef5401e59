"""What a service answers about itself: is it making progress, is it ready, what do its metrics say."""

import time
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.metrics import Metrics


@dataclass(slots=True)
class Health:
    """The state of a process, written by its loop and read by its HTTP endpoints."""

    progress_seconds_max: float
    turned_at: float = field(default_factory=time.monotonic)
    waiting_for: str | None = "start"
    partitions: int = 0
    ending: bool = False

    def turned(self) -> None:
        """Say that the loop has turned."""
        self.turned_at = time.monotonic()

    @property
    def still_seconds(self) -> float:
        """Seconds since the loop last turned."""
        return time.monotonic() - self.turned_at


def health_routes(health: Health, metrics: Metrics) -> list[Route]:
    """`/healthz`, `/readyz` and `/metrics`."""

    async def healthz(_: Request) -> Response:
        """200 while the loop turns, also when it waits for the broker or the database; 503 when it is stuck."""
        alive = health.still_seconds <= health.progress_seconds_max
        body = {"status": "ok" if alive else "stuck", "still_seconds": round(health.still_seconds, 1)}
        return JSONResponse(body, status_code=200 if alive else 503)

    async def readyz(_: Request) -> Response:
        """200 once the partitions that the group assigned are claimed, until the end; 503 with what is waited for."""
        waiting_for = "its end" if health.ending else health.waiting_for
        ready = waiting_for is None
        body = {
            "status": "ready" if ready else "waiting",
            "waiting_for": waiting_for,
            "partitions": health.partitions,
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    async def exposition(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)]

"""Errors as RFC 9457 problem details: what is wrong (`detail`), and what to do about it (`cure`)."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shared.postgres import is_fault

logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

MEDIA_TYPE: Final = "application/problem+json"


class ProblemError(Exception):
    """A request that is not answered as asked. `extra` holds further members of the body."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        *,
        detail: str,
        cure: str,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "type": f"urn:inmail-responses:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "cure": cure,
            **(extra or {}),
        }

    def response(self) -> JSONResponse:
        """The answer that says so."""
        return JSONResponse(self.body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def unknown_path() -> ProblemError:
    """No route knows the path."""
    return ProblemError(
        404,
        "unknown-path",
        "Unknown path",
        detail="Nothing is served here.",
        cure="See /openapi.json for the paths there are; ids are percent-encoded, slashes included.",
    )


def method_not_allowed(method: str, allowed: str) -> ProblemError:
    """The path is known, and answers others than `method` only."""
    return ProblemError(
        405,
        "method-not-allowed",
        "Method not allowed",
        detail=f"This path does not answer {method}.",
        cure=f"Use {allowed}.",
        headers={"Allow": allowed},
    )


def not_started(waiting_for: str | None) -> ProblemError:
    """The service cannot answer yet."""
    return ProblemError(
        503,
        "starting",
        "Not started yet",
        detail=f"This service waits for {waiting_for or 'its start to end'}.",
        cure="Ask again in a moment; /readyz says when it is ready.",
        headers={"Retry-After": "1"},
    )


def busy(connections_max: int, wait_ms: int) -> ProblemError:
    """Other requests hold all the connections that requests may hold."""
    return ProblemError(
        503,
        "busy",
        "Busy",
        detail=f"No connection came free in {wait_ms} ms (INMAIL_HTTP_WAIT_MS): other requests hold all "
        f"{connections_max} (INMAIL_HTTP_CONNECTIONS_MAX).",
        cure="Try again in a moment.",
        headers={"Retry-After": "1"},
    )


def answering(endpoint: Endpoint) -> Endpoint:
    """Turn an endpoint's errors into problems; what is nobody's fault but ours is logged without the request."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ProblemError as problem:
            return problem.response()
        except Exception as error:  # noqa: BLE001  the last stop before the client
            return _failure(error).response()

    return answer


def _failure(error: Exception) -> ProblemError:
    if is_fault(error):
        return ProblemError(
            503,
            "database-away",
            "Database away",
            detail="The database is away or busy.",
            cure="Try again in a moment.",
            headers={"Retry-After": "1"},
        )
    logger.error("a request failed with %s", type(error).__name__, exc_info=error)
    return ProblemError(
        500,
        "internal-error",
        "Internal error",
        detail="The request met a defect of this service.",
        cure="Try again; if it fails again, look at the service's log.",
    )

"""Errors as RFC 9457 problem details: what is wrong (`detail`), and what to do about it (`cure`)."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import JSONResponse

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


def not_found(what: str, name: str) -> ProblemError:
    """Nothing is known under an id; `what` is a word such as `thread`."""
    return ProblemError(
        404,
        f"unknown-{what.lower()}",
        f"Unknown {what}",
        detail=f"No event about the {what} {name!r} has been consumed.",
        cure="Check the id and its percent-encoding. What was published a moment ago may take a moment to be seen.",
    )


def bad_parameter(name: str, wrong: str, cure: str) -> ProblemError:
    """A parameter of the path or the query cannot be read."""
    return ProblemError(
        400, "bad-parameter", "Bad parameter", detail=f"{name}: {wrong}.", cure=cure, extra={"parameter": name}
    )

"""Bodies of requests: bounded, and read strictly into a model."""

from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from shared.problems import ProblemError

M = TypeVar("M", bound=BaseModel)

DISCARDED_BYTES_MAX: Final = 16 * 1024 * 1024
"""So much of a body too large is read all the same: a client that is cut off while it sends never sees the answer."""


async def bounded_body(request: Request, bytes_max: int) -> bytes | None:
    """Read the body; None if it has more than `bytes_max` bytes."""
    body, received = bytearray(), 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > bytes_max + DISCARDED_BYTES_MAX:
            break
        if received <= bytes_max:
            body += chunk
    return bytes(body) if received <= bytes_max else None


async def parsed_body(request: Request, model: type[M], *, bytes_max: int, cure: str) -> M:
    """Read the body into a model.

    Raises:
        ProblemError: it is encoded, too large, no JSON, or not what the model takes; `cure` says what to send.

    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError(
            415,
            "content-encoding",
            "Content encoding not supported",
            detail="The body is compressed or otherwise encoded.",
            cure="Send it as it is, without Content-Encoding.",
            headers={"Accept-Encoding": "identity"},
        )
    body = await bounded_body(request, bytes_max)
    if body is None:
        raise ProblemError(
            413,
            "body-too-large",
            "Body too large",
            detail=f"The body has more than {bytes_max} bytes.",
            cure=cure,
        )
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error, cure) from None


def unprocessable(errors: dict[str, str], cure: str) -> ProblemError:
    """Some fields of a body are not what they should be; `errors` says by name what is wrong, and holds no value."""
    return ProblemError(
        422,
        "invalid-body",
        "Invalid body",
        detail="; ".join(f"{name}: {message}" for name, message in errors.items()),
        cure=cure,
        extra={"errors": errors},
    )


def _refused(error: ValidationError, cure: str) -> ProblemError:
    # Messages of pydantic are about kinds of error; the values, which may be anything, stay out.
    found = error.errors(include_url=False, include_input=False)
    if any(e["type"] == "json_invalid" for e in found):
        return ProblemError(
            400,
            "invalid-json",
            "Invalid JSON",
            detail="The body cannot be parsed as JSON.",
            cure="Send a JSON object as UTF-8.",
        )
    return unprocessable({".".join(map(str, e["loc"])) or "body": e["msg"] for e in found}, cure)

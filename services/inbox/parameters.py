"""What a request asks for: query parameters, cursors and bodies, read strictly and refused with a cure."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from services.inbox.problems import bad_parameter
from services.inbox.queries import Place
from shared.bodies import parsed_body, unprocessable
from shared.events import InstantError, Outcome
from shared.events.base import INT64_MAX
from shared.events.times import epoch_milliseconds, from_epoch_milliseconds, parse_instant, to_instant

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
BODY_BYTES_MAX: Final = 64 * 1024

_CORRECTION_CURE: Final = (
    "Send {outcome: accepted or declined, corrected_by: 1 to 128 characters, version?: a number from 1}."
)
_CURSOR_CURE: Final = "Leave cursor out for the first page, and take it from next_cursor afterwards."


class CorrectionBody(BaseModel):
    """The body of a correction. Without `version` the outcome that stands now is meant."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    outcome: Outcome
    corrected_by: Annotated[str, Field(min_length=1, max_length=128)]
    version: Annotated[int, Field(ge=1, le=INT64_MAX)] | None = None


def limit(request: Request) -> int:
    """How many items a page may hold."""
    given = request.query_params.get("limit")
    if given is None:
        return LIMIT_DEFAULT
    cure = f"Give a whole number from 1 to {LIMIT_MAX}, or leave it out for {LIMIT_DEFAULT}."
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and 1 <= int(given) <= LIMIT_MAX):
        raise bad_parameter("limit", "is out of bounds", cure)
    return int(given)


def as_of(request: Request) -> datetime:
    """The instant that an answer is about: now, unless it is given."""
    given = request.query_params.get("as_of")
    if given is None:
        return now()
    try:
        return parse_instant(given.replace(" ", "+"))  # a plus sign that was not written as %2B
    except InstantError as error:
        cure = "Give an RFC 3339 time with its offset, such as 2026-01-31T12:00:00.000Z."
        raise bad_parameter("as_of", f"is no instant ({error.kind})", cure) from None


def now() -> datetime:
    """The present instant."""
    return to_instant(datetime.now(UTC))


def place_cursor(place: Place) -> str:
    """Write the end of a page of a folder as a cursor."""
    return _encoded([epoch_milliseconds(place.last_inmail_at), place.thread_id])


def place(request: Request) -> Place | None:
    """Where the page before ended."""
    match _decoded(request):
        case None:
            return None
        case [int() as milliseconds, str() as thread_id] if "\0" not in thread_id:
            try:
                return Place(from_epoch_milliseconds(milliseconds), thread_id)
            except InstantError:
                pass
    raise bad_parameter("cursor", "is none of this list's", _CURSOR_CURE)


def number_cursor(number: int) -> str:
    """Write the end of a page of a ledger as a cursor."""
    return _encoded([number])


def number(request: Request) -> int:
    """The number of the line at which the page before ended, 0 at the beginning."""
    match _decoded(request):
        case None:
            return 0
        case [int() as last] if 0 <= last <= INT64_MAX:
            return last
    raise bad_parameter("cursor", "is none of this list's", _CURSOR_CURE)


async def correction(request: Request) -> CorrectionBody:
    """The body of a correction."""
    given = await parsed_body(request, CorrectionBody, bytes_max=BODY_BYTES_MAX, cure=_CORRECTION_CURE)
    if "\0" in given.corrected_by:
        raise unprocessable({"corrected_by": "holds a NUL character"}, _CORRECTION_CURE)
    return given


def _encoded(parts: list[int | str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def _decoded(request: Request) -> object:
    given = request.query_params.get("cursor")
    if not given:
        return None
    try:
        padded = given + "=" * (-len(given) % 4)
        found = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise bad_parameter("cursor", "cannot be read", _CURSOR_CURE) from None
    # Not isinstance: to it, true is a number.
    return found if isinstance(found, list) and all(type(part) in {int, str} for part in found) else []

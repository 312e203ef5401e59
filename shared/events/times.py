"""Instants: the one form in which the system holds and writes a point in time.

In memory an instant is a `datetime` in UTC, cut off (never rounded) to whole milliseconds. On input it is an RFC 3339
text with any offset and precision; on output it is UTC with three decimals and `Z`, for example
`2026-01-31T12:00:00.000Z`.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final

import orjson
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

# A year's distance to the ends of what `datetime` can hold, so that adding a credit window or subtracting a clock
# allowance never overflows in the middle of a decision.
INSTANT_MIN: Final = datetime(2, 1, 1, tzinfo=UTC)
INSTANT_MAX: Final = datetime(9998, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)

_CACHED_CHARACTERS_MAX: Final = 40
_CACHED_INSTANTS_MAX: Final = 8192

_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_NAIVE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]+")
_MILLISECONDS: Final = tuple(f".{millisecond:03d}Z" for millisecond in range(1000))
_MILLISECOND: Final = timedelta(milliseconds=1)
_SECOND: Final = timedelta(seconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class InstantError(ValueError):
    """The value is no instant. `kind` is `instant_type`, `instant_format`, `instant_naive` or `instant_range`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 text; raise `InstantError`."""
    # An event names the same instant twice (envelope and data), and so do the events of one batch.
    return _parse_cached(text) if len(text) <= _CACHED_CHARACTERS_MAX else _parse(text)


def _parse(text: str) -> datetime:
    if _RFC_3339.fullmatch(text) is None:
        raise InstantError("instant_naive" if _NAIVE.fullmatch(text) else "instant_format")
    leap = text[17:19] == "60"
    try:
        moment = datetime.fromisoformat((f"{text[:17]}59{text[19:]}" if leap else text).upper())
    except ValueError:
        raise InstantError("instant_format") from None
    instant = to_instant(moment)
    if not leap:
        return instant
    if (instant.hour, instant.minute) != (23, 59):
        raise InstantError("instant_format")
    return instant + _SECOND  # `datetime` knows no leap second; to POSIX it is the second after it


_parse_cached = lru_cache(_CACHED_INSTANTS_MAX)(_parse)


def to_instant(moment: datetime) -> datetime:
    """Convert an aware `datetime` to UTC, cut off to milliseconds; raise `InstantError`."""
    if moment.tzinfo is not UTC:
        moment = _to_utc(moment)
    excess = moment.microsecond % 1000
    if excess:
        moment = moment.replace(microsecond=moment.microsecond - excess)
    if not INSTANT_MIN <= moment <= INSTANT_MAX:
        raise InstantError("instant_range")
    return moment


def _to_utc(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise InstantError("instant_naive")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InstantError("instant_range") from None


@lru_cache(_CACHED_INSTANTS_MAX)
def format_instant(instant: datetime) -> str:
    """Write an instant as `2026-01-31T12:00:00.000Z`. It must be one already, see `to_instant`."""
    # Cached, because what one record causes names the same few instants again and again.
    # orjson writes the first 19 characters four times as fast as isoformat does, but knows no fixed three decimals.
    return orjson.dumps(instant)[1:20].decode() + _MILLISECONDS[instant.microsecond // 1000]


def epoch_milliseconds(instant: datetime) -> int:
    """Return the whole milliseconds since 1970-01-01T00:00:00Z."""
    return (instant - _EPOCH) // _MILLISECOND


def from_epoch_milliseconds(milliseconds: int) -> datetime:
    """Return the instant that many milliseconds after 1970-01-01T00:00:00Z; raise `InstantError`."""
    try:
        return to_instant(_EPOCH + milliseconds * _MILLISECOND)
    except OverflowError:
        raise InstantError("instant_range") from None


def _validate(value: object) -> datetime:
    try:
        if type(value) is str:
            return parse_instant(value)
        if isinstance(value, datetime):
            return to_instant(value)
    except InstantError as error:
        raise _pydantic_error(error.kind) from None
    raise _pydantic_error("instant_type")


def _pydantic_error(kind: str) -> PydanticCustomError:
    if kind == "instant_type":
        return PydanticCustomError("instant_type", "an instant is a text in the form of RFC 3339")
    if kind == "instant_naive":
        return PydanticCustomError("instant_naive", "an instant needs an offset from UTC")
    if kind == "instant_range":
        return PydanticCustomError("instant_range", "an instant lies in the years 2 to 9998, in UTC")
    return PydanticCustomError("instant_format", "an instant is written in the form of RFC 3339")


Instant = Annotated[
    datetime,
    PlainValidator(_validate),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

"""Bytes of event data that depend on nothing but what the data says."""

import json
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, cast

import orjson

from shared.events.base import EventData, Part
from shared.events.event import Event
from shared.events.times import format_instant

CONTENT_HASH_BYTES: Final = 16


def plain(part: Part) -> dict[str, Any]:
    """Return the fields that are there; nested values still need `default`."""
    # Instants are written here and not in `default`: a call back from orjson costs as much as all else of an event.
    return {
        name: format_instant(value) if type(value) is datetime else value
        for name, value in part.__dict__.items()
        if value is not None
    }


def default(value: object) -> object:
    """Say to orjson how to write what it does not know."""
    if type(value) is datetime:
        return format_instant(value)
    if Part in type(value).__mro__:  # a tenth of what `isinstance` takes with pydantic's classes
        return plain(cast("Part", value))
    raise TypeError(f"event data holds a {type(value).__name__}, which has no form in JSON")


def content_hash(event: Event[EventData]) -> bytes:
    """Return 16 bytes that are equal for two events of equal type and parsed data (R11).

    Key order, spelling of times, unknown fields, null for absent, the envelope's time and traceparent make no
    difference.
    """
    return data_hash(event.data)


def data_hash(data: EventData) -> bytes:
    """Return the content hash of an event with this data."""
    # Sorted, so that the order in which a class lists its fields can change without old hashes changing.
    body = orjson.dumps(plain(data), default=default, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_SORT_KEYS)
    return hash_of(data.type, body)


def raw_hash(type_name: str, document: object) -> bytes:
    """Return the content hash of data that is JSON but not valid."""
    return hash_of(type_name, json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def hash_of(type_name: str, body: bytes) -> bytes:
    """Return the hash of a type and some bytes."""
    name = type_name.encode(errors="backslashreplace")
    return blake2b(b"%d:%b%b" % (len(name), name, body), digest_size=CONTENT_HASH_BYTES).digest()

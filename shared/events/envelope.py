"""CloudEvents in and out: `decode` a Kafka record, `derive` an event from its cause, `encode` it.

`decode` has one fast path, a single validation of the bytes against the union of the topic's event types. Only what
fails there, or looks suspicious, goes the slow way (`shared.events.diagnosis`), which finds out what is wrong and what
can still be read.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha1
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson
from pydantic import ValidationError

from shared.events.base import EventData
from shared.events.canonical import content_hash, default, plain
from shared.events.diagnosis import decode_slowly, is_plainly_structured, looks_suspicious
from shared.events.event import (
    DATA_CONTENT_TYPE,
    STRUCTURED_HEADERS,
    Event,
    Headers,
)
from shared.events.readers import Form, assemble, form_of, mismatches, reader_of
from shared.events.times import format_instant, to_instant

__all__ = [
    "STRUCTURED_HEADERS",
    "Cause",
    "content_hash",
    "decode",
    "derive",
    "derived_id",
    "encode",
    "key_of",
    "source_of",
    "time_of",
]

D = TypeVar("D", bound=EventData)

_DERIVED_IDS: Final = UUID("8f0c4d0e-7a35-5a57-9d26-7f3c8b0f6a51").bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_BACKSLASH: Final = ord("\\")


def source_of(service: str) -> str:
    """Return the `source` of the events that a service writes."""
    return f"/inmail-responses/{service}"


def key_of(data: EventData, topic: str | None = None) -> str:
    """Return the value that is the event's subject and the record's key, on `topic` where that re-keys it."""
    return form_of(type(data), topic).key_of(data)


def time_of(data: EventData) -> datetime | None:
    """Return the data's own time, None where its type has none."""
    time_of_data = form_of(type(data)).time_of
    return None if time_of_data is None else time_of_data(data)


def decode(value: bytes | None, *, key: bytes | None, headers: Headers, topic: str) -> Event[EventData]:
    """Read one record of `topic`, in structured or binary mode; raise `InvalidRecordError`.

    Everything is checked that needs no clock: size, JSON, characters, attributes, data, key, and that the topic carries
    the type. A topic that carries no events is a `KeyError`.
    """
    reader = reader_of(topic)
    if (
        value is not None
        and len(value) <= reader.value_bytes_max
        and is_plainly_structured(headers)
        and not looks_suspicious(value)
    ):
        try:
            attributes = reader.structured(value)
        except ValidationError:
            pass
        else:
            data: EventData = attributes["data"]
            if not mismatches(attributes, data, reader.forms[data.type], key):
                return assemble(attributes, data)
    return decode_slowly(value, key=key, headers=headers, reader=reader)


def derived_id(cause_source: str, cause_id: str, type_name: str, index: int) -> str:
    """Return the id, a UUID of version 5, of the event that this cause brings about: the same on every run."""
    # As JSON, so that no two causes spell the same name. The UUID class would cost as much as the rest of `derive`.
    return _id_of(_DERIVED_IDS + orjson.dumps((cause_source, cause_id, type_name, index)))


def derive(
    cause: Event[EventData],
    data: D,
    *,
    source: str,
    at: datetime,
    received: datetime,
    index: int = 0,
    topic: str | None = None,
) -> Event[D]:
    """Make the event that `cause` brings about.

    `at` is its event time: the data's own, where it has one. `received` is the broker's timestamp of the first input
    record and counts only where the cause is that record. `index` tells events of one type from one cause apart.
    `topic` is where it goes, needed where that re-keys the type: the subject differs, the id does not. Raise
    `ValueError` where `at` and the data's own time differ, for no reader would take the event.
    """
    form = form_of(type(data), topic)
    return Event(
        derived_id(cause.source, cause.id, data.type, index),
        source,
        data.type,
        form.key_of(data),
        _time(data, form, at),
        data,
        cause.traceparent,
        cause.id,
        cause.source,
        cause.rootid or cause.id,
        cause.receivedtime or to_instant(received),
    )


def encode(event: Event[EventData]) -> bytes:
    """Write an event in structured mode, without nulls.

    Raise `ValueError` for NUL characters, which no reader would take.
    """
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": format_instant(event.time),
        "datacontenttype": DATA_CONTENT_TYPE,
    }
    if event.traceparent is not None:
        envelope["traceparent"] = event.traceparent
    if event.causeid is not None:
        envelope["causeid"] = event.causeid
    if event.causesource is not None:
        envelope["causesource"] = event.causesource
    if event.rootid is not None:
        envelope["rootid"] = event.rootid
    if event.receivedtime is not None:
        envelope["receivedtime"] = format_instant(event.receivedtime)
    envelope["data"] = plain(event.data)
    return _without_nul(_dumps(envelope), event.type, event.id)


class Cause:
    """An event as the cause of others. `write` gives the bytes of `encode(derive(...))`, without the steps between.

    What all that it brings about have in common is written once, and so are data that go to several topics.
    """

    __slots__ = ("_common", "_ids", "_source")

    def __init__(self, event: Event[EventData], *, source: str, received: datetime) -> None:
        common = {
            "datacontenttype": DATA_CONTENT_TYPE,
            "traceparent": event.traceparent,
            "causeid": event.id,
            "causesource": event.source,
            "rootid": event.rootid or event.id,
            "receivedtime": format_instant(event.receivedtime or to_instant(received)),
        }
        if event.traceparent is None:
            del common["traceparent"]
        self._common = orjson.dumps(common)[1:-1]
        self._ids = _DERIVED_IDS + orjson.dumps((event.source, event.id))[:-1]
        self._source = orjson.dumps(source)

    def write(
        self, data: EventData, *, at: datetime, index: int = 0, topics: Sequence[str]
    ) -> list[tuple[bytes, bytes]]:
        """Return the key and the value of the event on each topic; raise `ValueError` where no reader would take it."""
        kind = type(data)
        name, form = data.type, form_of(kind, topics[0])
        event_id = _id_of(self._ids + f',"{name}",{index}]'.encode())
        time, written = format_instant(_time(data, form, at)), _dumps(plain(data))
        records = []
        for topic in topics:
            subject = form_of(kind, topic).key_of(data)
            value = b'{"specversion":"1.0","id":"%b","source":%b,"type":"%b","subject":%b,"time":"%b",%b,"data":%b}' % (
                event_id.encode(),
                self._source,
                name.encode(),
                orjson.dumps(subject),
                time.encode(),
                self._common,
                written,
            )
            records.append((subject.encode(), _without_nul(value, name, event_id)))
        return records


def _id_of(named: bytes) -> str:
    text = sha1(named, usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def _time(data: EventData, form: Form, at: datetime) -> datetime:
    time = to_instant(at) if form.time_of is None else form.time_of(data)
    if time is not at and time != to_instant(at):
        raise ValueError(f"{data.type}: the event time must be the instant of its {data.time_field}")
    return time


def _dumps(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, default=default, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _without_nul(value: bytes, type_name: str, event_id: str) -> bytes:
    if _BACKSLASH in value and b"\\u0000" in value.replace(b"\\\\", b""):
        raise ValueError(f"{type_name} {event_id}: holds a NUL character; refuse such text where it enters")
    return value

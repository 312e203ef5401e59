"""Per topic, the validators of its records; per event type, where its key and its time are."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, NotRequired, cast, get_args, get_origin

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from shared.events.base import EventData, Id, Part, Source
from shared.events.catalogue import CATALOGUE
from shared.events.event import DATA_CONTENT_TYPE, Event
from shared.events.times import Instant
from shared.topics import TOPICS

_TRACEPARENT_CHARACTERS_MAX: Final = 512


def is_json_content_type(content_type: str) -> bool:
    """Whether a media type, with or without parameters, says JSON."""
    media_type = content_type.partition(";")[0].strip().lower()
    kind, _, subtype = media_type.partition("/")
    return bool(kind) and (subtype == "json" or subtype.endswith("+json"))


def _check_content_type(content_type: str) -> str:
    if not is_json_content_type(content_type):
        raise PydanticCustomError("content_type", "only JSON data is read")
    return content_type


ContentType = Annotated[str, AfterValidator(_check_content_type), Field(examples=[DATA_CONTENT_TYPE])]
Attributes = dict[str, Any]
_STRICT: Final = ConfigDict(strict=True)
_ATTRIBUTES: Final[dict[str, object]] = {
    "specversion": Literal["1.0"],
    "id": Id,
    "source": Source,
    "subject": Id,
    "time": Instant,
    "datacontenttype": NotRequired[ContentType | None],
    "traceparent": NotRequired[Annotated[str, Field(max_length=_TRACEPARENT_CHARACTERS_MAX)] | None],
}
# An upstream event is the root of its chain: whatever it says about causes is not ours.
_DERIVED_ATTRIBUTES: Final[dict[str, object]] = {
    "causeid": NotRequired[Id | None],
    "causesource": NotRequired[Source | None],
    "rootid": NotRequired[Id | None],
    "receivedtime": NotRequired[Instant | None],
}


def typed_dict(name: str, fields: dict[str, object]) -> Any:
    """Make a strict typed dictionary, which pydantic validates faster than a model."""
    made = cast("Any", TypedDict)(name, fields)
    made.__pydantic_config__ = _STRICT
    return made


@dataclass(frozen=True, slots=True)
class Form:
    """Where the data of one event type has its key and its own time."""

    key_field: str
    key_of: Callable[[EventData], str]
    time_of: Callable[[EventData], datetime] | None


@cache
def form_of(data_class: type[EventData], topic: str | None = None) -> Form:
    """Return the form of a type, on a topic or at home."""
    key_field = data_class.key_field
    if topic is not None and TOPICS[topic].key in data_class.model_fields:
        key_field = TOPICS[topic].key  # accounting facts are conversation events by contract
    return Form(
        key_field=key_field,
        key_of=attrgetter(key_field),
        time_of=attrgetter(data_class.time_field) if data_class.time_field else None,
    )


def _names(part: type[Part]) -> set[str]:
    names = set(part.model_fields)
    for field in part.model_fields.values():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Part):
                names |= _names(inner)
    return names


KNOWN_NAMES: Final = frozenset({"data", "type", *_ATTRIBUTES, *_DERIVED_ATTRIBUTES}).union(
    *map(_names, CATALOGUE.values())
)
"""The names that may be shown where a record is described: others may be somebody's data."""


def attributes_of(*, upstream: bool) -> list[tuple[str, Any, bool]]:
    """Return name, type and whether it is required, of each attribute beside `type` and `data`."""
    attributes = _ATTRIBUTES if upstream else _ATTRIBUTES | _DERIVED_ATTRIBUTES
    found = []
    for name, annotation in attributes.items():
        optional = get_origin(annotation) is NotRequired
        found.append((name, get_args(annotation)[0] if optional else annotation, not optional))
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """The validators of one topic: of a whole structured event, and of the attributes of a binary one."""

    forms: dict[str, Form]
    value_bytes_max: int
    structured: Callable[[bytes], Attributes]
    attributes: Callable[[Attributes], Attributes]


@cache
def reader_of(topic: str) -> Reader:
    """Return the validators of a topic that carries events; raise `KeyError` where it is none."""
    entry = TOPICS[topic]
    attributes = _ATTRIBUTES if entry.upstream else _ATTRIBUTES | _DERIVED_ATTRIBUTES
    envelopes = tuple(
        typed_dict(name, {**attributes, "type": Literal[name], "data": CATALOGUE[name]}) for name in entry.types
    )
    union: Any = envelopes[0]
    for envelope in envelopes[1:]:
        union |= envelope
    if len(envelopes) > 1:
        union = Annotated[union, Field(discriminator="type")]
    plain = typed_dict("attributes", {**attributes, "type": str})
    return Reader(
        forms={name: form_of(CATALOGUE[name], topic) for name in entry.types},
        value_bytes_max=entry.value_bytes_max,
        structured=TypeAdapter(union).validator.validate_json,
        attributes=TypeAdapter(plain).validator.validate_python,
    )


def mismatches(attributes: Attributes, data: EventData, form: Form, key: bytes | None) -> list[str]:
    """Say where valid attributes, valid data and the record's key contradict each other."""
    subject: str = attributes["subject"]
    found = []
    if key is None:
        found.append("key: absent")
    elif key != subject.encode():
        found.append("key: differs from subject")
    if form.key_of(data) != subject:
        found.append(f"subject: differs from data.{form.key_field}")
    if form.time_of is not None and form.time_of(data) != attributes["time"]:
        found.append(f"time: differs from data.{data.time_field}")
    return found


def assemble(attributes: Attributes, data: EventData) -> Event[EventData]:
    """Make the event of validated attributes and data."""
    optional = attributes.get
    return Event(
        attributes["id"],
        attributes["source"],
        attributes["type"],
        attributes["subject"],
        attributes["time"],
        data,
        optional("traceparent"),
        optional("causeid"),
        optional("causesource"),
        optional("rootid"),
        optional("receivedtime"),
    )

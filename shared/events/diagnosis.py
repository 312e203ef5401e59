"""The slow way through a record: what is wrong with it, and what of it can still be read.

The order of the checks decides the reason: no value, too large, no JSON, forbidden characters, no CloudEvent, unknown
type, and last whatever the attributes, the data, the key and the times get wrong.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NoReturn, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from shared.events.base import EventData, Id, Source
from shared.events.canonical import data_hash, hash_of, raw_hash
from shared.events.catalogue import CATALOGUE
from shared.events.event import STRUCTURED_CONTENT_TYPE, Event, Headers, InvalidRecordError, Reason
from shared.events.readers import (
    KNOWN_NAMES,
    Attributes,
    ContentType,
    Reader,
    assemble,
    mismatches,
    typed_dict,
)
from shared.events.times import Instant

_JSON_DEPTH_MAX: Final = 200
_INT_DIGITS_MAX: Final = 4000
_DETAILED_ERRORS_MAX: Final = 8
_TYPE_CHARACTERS_MAX: Final = 256

_NUL_ESCAPED: Final = rb"\u0000"
_BACKSLASH: Final = ord("\\")
_CAPITAL_N: Final = ord("N")
_CAPITAL_I: Final = ord("I")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HEADER_PREFIX: Final = "ce_"
_STRUCTURED_HEADER: Final = ("content-type", STRUCTURED_CONTENT_TYPE.encode())
_UNREADABLE: Final = object()

_WELL_FORMED: Final = TypeAdapter(
    typed_dict(
        "well_formed",
        {
            "specversion": Literal["1.0"],
            "id": Id,
            "source": Source,
            "type": Annotated[str, Field(min_length=1, max_length=_TYPE_CHARACTERS_MAX)],
            "subject": NotRequired[Id | None],
            "time": NotRequired[Instant | None],
            "datacontenttype": NotRequired[ContentType | None],
        },
    )
).validator.validate_python
_IDENTITY: Final = TypeAdapter(typed_dict("identity", {"id": Id, "source": Source})).validator.validate_python


def is_plainly_structured(headers: Headers) -> bool:
    """Whether the headers say structured mode, or nothing."""
    for name, _ in headers:
        if not name.isascii():  # it may be no UTF-8
            return False
    if not headers or _STRUCTURED_HEADER in headers:
        return True
    return not any(name.lower().startswith((_HEADER_PREFIX, "content-type")) for name, _ in headers)


def looks_suspicious(value: bytes) -> bool:
    """Whether the value may hold what pydantic's JSON parser lets pass: NUL characters, and numbers unknown to JSON."""
    # A single byte, as a number, is found ten times as fast as several, and these are seldom there.
    return (
        (_BACKSLASH in value and _NUL_ESCAPED in value)
        or (_CAPITAL_N in value and b"NaN" in value)
        or (_CAPITAL_I in value and b"Infinity" in value)
    )


class _FlawError(Exception):
    def __init__(self, reason: Reason, *details: str) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.detail = "; ".join(details[:_DETAILED_ERRORS_MAX])


@dataclass(frozen=True, slots=True)
class _Opened:
    """A record as far as it can be taken apart."""

    value: bytes | None
    binary: bool
    attributes: dict[str, object]
    document: object
    flaw: _FlawError | None

    @property
    def type_name(self) -> str:
        """The type, empty where it is none."""
        type_name = self.attributes.get("type")
        return type_name if isinstance(type_name, str) else ""

    @property
    def has_data(self) -> bool:
        return self.binary or (isinstance(self.document, dict) and "data" in self.document)

    @property
    def data(self) -> object:
        if self.binary:
            return self.document
        return self.document.get("data") if isinstance(self.document, dict) else None


def decode_slowly(value: bytes | None, *, key: bytes | None, headers: Headers, reader: Reader) -> Event[EventData]:
    """Read a record with every check spelled out; raise `InvalidRecordError`."""
    opened = _open(value, headers)
    try:
        return _check(opened, key, reader)
    except _FlawError as flaw:
        source, event_id, content_hash = _identify(opened)
        raise InvalidRecordError(
            flaw.reason, flaw.detail, source=source, id=event_id, content_hash=content_hash
        ) from None


def _open(value: bytes | None, headers: Headers) -> _Opened:
    attributes, mode, header_flaw = _read_headers(headers)
    document, flaw = _parse(value)
    if mode == "structured":
        members = document if isinstance(document, dict) else {}
        attributes = {name: member for name, member in members.items() if name != "data"}
    return _Opened(value, mode == "binary", attributes, document, flaw or _check_names(headers) or header_flaw)


def _check_names(headers: Headers) -> _FlawError | None:
    """Find a header's name that was no UTF-8: lone surrogates stand for its bytes."""
    if any(_SURROGATE.search(name) for name, _ in headers):
        return _FlawError("INVALID_EVENT", "headers: a name is no UTF-8")
    return None


def _read_headers(headers: Headers) -> tuple[dict[str, object], Literal["structured", "binary"], _FlawError | None]:
    attributes: dict[str, object] = {}
    flaw = None
    content_type = None
    for name, content in headers:
        lowered = name.lower()
        if content is None or not (lowered == "content-type" or lowered.startswith(_HEADER_PREFIX)):
            continue
        try:
            text = content.decode()
        except UnicodeDecodeError:
            flaw = _FlawError("INVALID_EVENT", f"{_header_path(lowered)}: no UTF-8")
            continue
        if lowered == "content-type":
            content_type = text
        else:
            attributes[lowered.removeprefix(_HEADER_PREFIX)] = text
        if "\0" in text:
            flaw = _FlawError("INVALID_EVENT", f"{_header_path(lowered)}: NUL character")
    media_type = None if content_type is None else content_type.partition(";")[0].strip().lower()
    if media_type == STRUCTURED_CONTENT_TYPE or (media_type is None and not attributes):
        return {}, "structured", None
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    return attributes, "binary", flaw


def _header_path(name: str) -> str:
    attribute = name.removeprefix(_HEADER_PREFIX)
    return name if attribute in KNOWN_NAMES or name == "content-type" else f"{_HEADER_PREFIX}?"


def _parse(value: bytes | None) -> tuple[object, _FlawError | None]:
    if value is None:
        return _UNREADABLE, _FlawError("INVALID_JSON", "value: null")
    try:
        document = from_json(value, allow_inf_nan=False)
        return document, _forbidden_character(document)
    except RecursionError:
        return _UNREADABLE, _FlawError("INVALID_JSON", "value: nested too deeply")
    except ValueError:
        return _parse_leniently(value)


def _parse_leniently(value: bytes) -> tuple[object, _FlawError | None]:
    """Parse what is JSON by its grammar, but holds lone surrogates or numbers beyond all bounds."""
    oversized = []

    def parse_int(digits: str) -> object:
        if len(digits) <= _INT_DIGITS_MAX:
            return int(digits)
        oversized.append(len(digits))
        return digits

    try:
        document = json.loads(value.decode(), parse_int=parse_int, parse_constant=_refuse_constant)
        flaw = _forbidden_character(document)
    except UnicodeDecodeError:
        return _UNREADABLE, _FlawError("INVALID_JSON", "value: no UTF-8")
    except RecursionError:
        return _UNREADABLE, _FlawError("INVALID_JSON", "value: nested too deeply")
    except ValueError:
        return _UNREADABLE, _FlawError("INVALID_JSON", "value: does not parse")
    if flaw is None and oversized:
        flaw = _FlawError("INVALID_EVENT", "value: number out of range")
    if flaw is None:
        return _UNREADABLE, _FlawError("INVALID_JSON", "value: does not parse")
    return document, flaw


def _refuse_constant(_: str) -> object:
    raise ValueError("JSON has no such number")


def _forbidden_character(document: object) -> _FlawError | None:
    for path, text in _texts(document):
        if "\0" in text:
            return _FlawError("INVALID_EVENT", f"{path}: NUL character")
        if not text.isascii() and _SURROGATE.search(text):
            return _FlawError("INVALID_EVENT", f"{path}: lone surrogate")
    return None


def _texts(document: object) -> Iterator[tuple[str, str]]:
    """Walk all texts, names of members included, with the paths that may be shown."""
    pending: list[tuple[str, object, int]] = [("", document, 0)]
    while pending:
        path, value, depth = pending.pop()
        if depth > _JSON_DEPTH_MAX:
            raise RecursionError("nested too deeply")
        if isinstance(value, str):
            yield path or "value", value
        elif isinstance(value, dict):
            for name, member in value.items():
                # A name that is not ours may be somebody's data.
                member_path = f"{path}.{name if name in KNOWN_NAMES else '?'}".removeprefix(".")
                yield member_path, name
                pending.append((member_path, member, depth + 1))
        elif isinstance(value, list):
            pending.extend((f"{path}.{index}", item, depth + 1) for index, item in enumerate(value))


def _check(opened: _Opened, key: bytes | None, reader: Reader) -> Event[EventData]:
    size = len(opened.value or b"")
    if size > reader.value_bytes_max:
        raise _FlawError("TOO_LARGE", f"value: {size} bytes, at most {reader.value_bytes_max} are accepted")
    if opened.flaw is not None:
        raise opened.flaw
    if not opened.binary and not isinstance(opened.document, dict):
        raise _FlawError("INVALID_EVENT", "value: no object")
    if key is not None and b"\0" in key:
        raise _FlawError("INVALID_EVENT", "key: NUL character")
    if opened.type_name not in reader.forms:
        _check_unknown_type(opened.attributes)
    attributes, data = _validate(opened, reader)
    contradictions = mismatches(attributes, data, reader.forms[data.type], key)
    if contradictions:
        raise _FlawError("INVALID_EVENT", *contradictions)
    return assemble(attributes, data)


def _check_unknown_type(attributes: dict[str, object]) -> NoReturn:
    try:
        _WELL_FORMED(attributes)
    except ValidationError as error:
        raise _FlawError("INVALID_EVENT", *_describe(error)) from None
    raise _FlawError("UNKNOWN_TYPE", "type: not one that this topic carries")


def _validate(opened: _Opened, reader: Reader) -> tuple[Attributes, EventData]:
    found: list[str] = []
    try:
        attributes = reader.attributes(opened.attributes)
    except ValidationError as error:
        found += _describe(error)
    try:
        data = _read_data(opened)
    except ValidationError as error:
        found += _describe(error, "data") if opened.has_data else ["data: missing"]
    if found:
        raise _FlawError("INVALID_EVENT", *found)
    return attributes, data


def _read_data(opened: _Opened) -> EventData:
    # Through JSON once more, for pydantic is strict in other ways with Python's objects.
    return CATALOGUE[opened.type_name].model_validate_json(json.dumps(opened.data))


def _describe(error: ValidationError, *prefix: str) -> list[str]:
    return [
        f"{'.'.join(map(str, (*prefix, *one['loc'])))}: {one['type']}"
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _identify(opened: _Opened) -> tuple[str | None, str | None, bytes | None]:
    """Return source, id and content hash, or three times None where a repeat of the record could not be recognised."""
    try:
        identity = _IDENTITY(opened.attributes)
    except ValidationError:
        return None, None, None
    source, event_id = identity["source"], identity["id"]
    if _forbidden_character([source, event_id]) is not None:
        return None, None, None
    return source, event_id, _hash_data(opened)


def _hash_data(opened: _Opened) -> bytes:
    if opened.document is _UNREADABLE:
        return hash_of(opened.type_name, opened.value or b"")
    if opened.type_name in CATALOGUE:
        try:
            # Valid data under a faulty envelope or key has the hash it would have had: it says the same.
            return data_hash(_read_data(opened))
        except ValidationError:
            pass
    return raw_hash(opened.type_name, opened.data)

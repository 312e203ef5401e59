"""Records that must become dead letters: as a broken or hostile publisher would write them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from deploy.traffic.places import Place
from deploy.traffic.records import CONTRACTS, Fact, Poison, Record, Wire
from deploy.traffic.talk import Talk

TOO_LARGE_BYTES: Final = 300 * 1024
FUTURE: Final = timedelta(days=1)
VICTIM_DAYS_AGO: Final = 10
_STRUCTURED: Final = (("content-type", b"application/cloudevents+json"),)

Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def of_one(talk: Talk, until: datetime) -> Iterator[Record]:
    """Give one of each kind for the messaging topic, none of which says anything new.

    `talk` is a conversation of one InMail and one reply that come before all of these.
    """
    sent, said = talk.moved(until - timedelta(days=VICTIM_DAYS_AGO))
    yield _raw(said, b"{not json", "INVALID_JSON")
    yield _raw(said, b'{"specversion": "1.0", "id": "\xff\xfe"}', "INVALID_JSON")
    yield _raw(said, None, "INVALID_JSON")
    yield _raw(said, _changed_bytes(said, "nul", "text", "Hello\0there"), "INVALID_EVENT")
    yield _raw(said, _changed_bytes(said, "surrogate", "text", "Hello \ud83d there"), "INVALID_EVENT")
    yield _raw(said, _changed_bytes(said, "key", "text", "Hello"), "INVALID_EVENT", key=b"another-thread")
    yield Record(_new(said, "fields", _without("reply_id", "sent_at")), poison=Poison("INVALID_EVENT"))
    moment = _new(said, "moment", lambda data: {**data, "sent_at": said.time + timedelta(seconds=1)})
    yield Record(moment, poison=Poison("INVALID_EVENT"), mode="binary")
    yield Record(replace(_new(said, "type", dict), type="reply.sung.v1"), poison=Poison("UNKNOWN_TYPE"))
    large = _new(said, "large", lambda data: {**data, "text": "x" * TOO_LARGE_BYTES})
    yield Record(large, poison=Poison("TOO_LARGE"), mode="binary")
    empty = Record(_new(said, "empty", lambda data: {**data, "text": " \u200b\n"}), poison=Poison("EMPTY_RESPONSE"))
    yield empty
    yield replace(empty, poison=None, repeat=True)
    skewed = said.later(until + FUTURE - said.time)
    yield Record(_new(skewed, "skew", dict), poison=Poison("CLOCK_SKEW"))
    # The same event id, and the same reply id, with other content: the first one stands.
    other_words = {**said.data, "text": "I never said that."}
    yield Record(replace(said, data=other_words), poison=Poison("ID_CONFLICT"))
    yield Record(replace(said, id=f"{said.id}/again", data=other_words), poison=Poison("ID_CONFLICT"))
    # The same fact under another event id, and a repeat in the other mode with other times of day: nothing new.
    yield Record(replace(sent, id=f"{sent.id}/again"), repeat=True)
    yield Record(sent, mode="binary", offset_minutes=345, repeat=True)


def of_contracts(place: Place, at: datetime) -> Iterator[Record]:
    """Give what only credits makes a dead letter of, although notification reads it too."""
    data = {"contract_id": place.contract_id, "period": "2026-13", "refreshed_at": at}
    refresh = Fact("credits.refreshed.v1", f"{place.contract_id}/broken", at, data)
    yield Record(refresh, poison=Poison("INVALID_EVENT", "credits"))
    wire = Wire(CONTRACTS, place.contract_id.encode(), b'["no", "event"]', _STRUCTURED)
    yield Record(None, raw=wire, poison=Poison("INVALID_EVENT", "credits"))
    data = {"contract_id": place.contract_id, "seat_id": f"{place.contract_id}/seat-9", "name": "Nobody"}
    unknown = Fact("seat.promoted.v1", f"{place.contract_id}/promoted", at, data)
    yield Record(unknown, poison=Poison("UNKNOWN_TYPE", "credits"))


def victim(talk: Talk) -> None:
    """Write the conversation that `of_one` starts from."""
    talk.send()
    talk.wait(hours=2)
    talk.reply_in_words("accept")


def _new(fact: Fact, name: str, change: Change) -> Fact:
    """Give another fact of the same kind, which would be new if it were sound."""
    data = {**fact.data, "reply_id": f"{fact.data['reply_id']}/{name}"}
    return replace(fact, id=f"{fact.id}/{name}", data=change(data))


def _without(*names: str) -> Change:
    return lambda data: {name: value for name, value in data.items() if name not in names}


def _changed_bytes(fact: Fact, name: str, field: str, text: str) -> bytes:
    """Write an event as JSON by hand, for a text that no library would let pass."""
    value = Record(_new(fact, name, dict)).wire.value or b""
    event = json.loads(value)
    event["data"][field] = text
    return json.dumps(event).encode()


def _raw(fact: Fact, value: bytes | None, reason: str, *, key: bytes | None = None) -> Record:
    wire = Wire(fact.topic, key or fact.key.encode(), value, _STRUCTURED)
    return Record(None, raw=wire, poison=Poison(reason))

"""Reading and writing events: what is taken, what is refused and why, and that nothing else ever happens."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast
from uuid import UUID, uuid5

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from shared.events import (
    CATALOGUE,
    STRUCTURED_HEADERS,
    Candidate,
    Cause,
    Event,
    EventData,
    Headers,
    InmailScheduledV1,
    InmailStatusChangedV1,
    InstantError,
    InvalidRecordError,
    NotificationRetractedV1,
    OutcomeDecidedV1,
    Recipient,
    ReplyRecordedV1,
    ReplySentV1,
    SeatPreferencesSetV1,
    ThreadLockedV1,
    content_hash,
    decode,
    derive,
    encode,
    epoch_milliseconds,
    format_instant,
    from_epoch_milliseconds,
    key_of,
    parse_instant,
    source_of,
    time_of,
    to_instant,
)
from shared.events.diagnosis import decode_slowly
from shared.events.envelope import derived_id
from shared.events.readers import reader_of
from shared.events.schema import is_upstream, schema_of
from shared.testing import builders
from shared.testing.builders import after, binary_record, record
from shared.testing.examples import TEXT, examples_of
from shared.topics import (
    ACCOUNTING_FACTS,
    CONTRACT_EVENTS,
    CONVERSATION_EVENTS,
    MESSAGING_EVENTS,
    NOTIFICATION_REQUESTS,
    OUTCOME_EVENTS,
    TOPICS,
    UPSTREAM_VALUE_BYTES_MAX,
)

Document = dict[str, Any]
Change = Callable[[Document], object]

HOMES = [(name, topic.name) for topic in TOPICS.values() for name in topic.types]
SENT = builders.sent(at=after(milliseconds=123))
REPLY = builders.reply(choice="interested", text="Gern! Tell me more 🙂", at=after(days=1))
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def document_of(event: Event[EventData]) -> Document:
    return cast("Document", json.loads(encode(event)))


def read(
    document: object,
    *,
    key: bytes | None = b"thread-1",
    headers: Headers = STRUCTURED_HEADERS,
    topic: str = MESSAGING_EVENTS,
) -> Event[EventData]:
    return decode(json.dumps(document).encode(), key=key, headers=headers, topic=topic)


def refusal(
    value: bytes | None,
    *,
    key: bytes | None = b"thread-1",
    headers: Headers = STRUCTURED_HEADERS,
    topic: str = MESSAGING_EVENTS,
) -> InvalidRecordError:
    with pytest.raises(InvalidRecordError) as caught:
        decode(value, key=key, headers=headers, topic=topic)
    return caught.value


def refusal_of(event: Event[EventData], change: Change, *, key: bytes | None = b"thread-1") -> InvalidRecordError:
    document = document_of(event)
    change(document)
    return refusal(json.dumps(document).encode(), key=key)


def put(path: str, value: object) -> Change:
    """Return a change that sets the member at a dotted path."""

    def change(document: Document) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            document = document[parent]
        document[name] = value

    return change


def drop(path: str) -> Change:
    """Return a change that removes the member at a dotted path."""

    def change(document: Document) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            document = document[parent]
        del document[name]

    return change


# --- what is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "topic"), HOMES)
def test_every_type_survives_both_modes(name: str, topic: str) -> None:
    for document in examples_of(schema_of(name)):
        event = read(document, key=TEXT.encode(), topic=topic)
        key, value, headers = record(event)
        assert decode(value, key=key, headers=headers, topic=topic) == event
        key, value, headers = binary_record(event)
        assert decode(value, key=key, headers=headers, topic=topic) == event
        assert content_hash(event) == content_hash(decode(value, key=key, headers=headers, topic=topic))


def test_an_event_is_what_was_sent() -> None:
    event = read(document_of(replace(SENT, traceparent=TRACEPARENT)))
    assert event.data == SENT.data
    assert (event.id, event.source, event.type, event.subject) == (
        SENT.id,
        builders.SOURCE,
        "inmail.sent.v1",
        "thread-1",
    )
    assert event.time == datetime(2026, 1, 5, 9, 0, 0, 123000, tzinfo=UTC)
    assert event.traceparent == TRACEPARENT
    assert (event.causeid, event.causesource, event.rootid, event.receivedtime) == (None, None, None, None)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        STRUCTURED_HEADERS,
        tuple(STRUCTURED_HEADERS),
        [("content-type", b"application/cloudevents+json; charset=UTF-8")],
        [("Content-Type", b"Application/CloudEvents+JSON")],
        [("dlq-redrive", b"1")],
        [("content-type", b"application/cloudevents+json"), ("ce_id", b"another")],
        [("content-type", b"application/cloudevents+json"), ("traceparent", TRACEPARENT.encode())],
    ],
)
def test_structured_mode(headers: Headers) -> None:
    assert read(document_of(SENT), headers=headers) == SENT


@pytest.mark.parametrize(
    "content_type", [None, b"application/json", b"application/json; charset=utf-8", b"application/vnd.inmail+json"]
)
def test_binary_mode(content_type: bytes | None) -> None:
    key, value, headers = binary_record(replace(REPLY, traceparent=TRACEPARENT))
    kept = [header for header in headers if header[0] != "content-type"]
    typed = [] if content_type is None else [("content-type", content_type)]
    event = decode(value, key=key, headers=[*kept, *typed], topic=MESSAGING_EVENTS)
    assert event == replace(REPLY, traceparent=TRACEPARENT)


def test_binary_mode_takes_header_values_as_they_are() -> None:
    event = replace(REPLY, id="50%25 Zürich")
    key, value, headers = binary_record(event)
    assert decode(value, key=key, headers=headers, topic=MESSAGING_EVENTS).id == "50%25 Zürich"


def test_a_null_header_is_an_absent_one() -> None:
    key, value, headers = binary_record(REPLY)
    with_null = [*headers, ("ce_traceparent", cast("bytes", None))]
    assert decode(value, key=key, headers=with_null, topic=MESSAGING_EVENTS) == REPLY


@pytest.mark.parametrize(
    "change",
    [
        put("extra", {"deep": [1, None]}),
        put("data.extra", 1e400),
        put("data.candidate.extra", [[[]]]),
        put("traceparent", None),
        put("datacontenttype", None),
        drop("datacontenttype"),
        put("dataschema", "urn:x"),
        # What an upstream event says about causes is not ours.
        put("rootid", 7),
        put("receivedtime", "yesterday"),
    ],
)
def test_what_is_unknown_is_ignored(change: Change) -> None:
    document = document_of(SENT)
    change(document)
    value = json.dumps(document).replace("Infinity", "1e400").encode()
    assert decode(value, key=b"thread-1", headers=[], topic=MESSAGING_EVENTS) == SENT


@pytest.mark.parametrize(
    "text", ["NaN and Infinity", r"a literal \u0000", "\\\\u0000", "", "\n\t", "日本語", "\U0001f642"]
)
def test_text_that_only_looks_suspicious_is_taken(text: str) -> None:
    data = cast("ReplySentV1", read(document_of(builders.reply(text=text))).data)
    assert data.text == text


def test_optional_fields_may_be_null_or_absent() -> None:
    absent, null = document_of(REPLY), document_of(REPLY)
    for name in ("in_reply_to", "template"):
        assert name not in absent["data"]
        null["data"][name] = None
    assert read(null) == read(absent) == REPLY


def test_defaults_and_sets() -> None:
    started = document_of(builders.contract_started(cap_multiple=4))
    del started["data"]["cap_multiple"]
    assert read(started, key=b"contract-1", topic=CONTRACT_EVENTS).data == builders.contract_started().data
    preferences = document_of(builders.preferences_set())
    preferences["data"]["channels"] = ["webhook", "email", "webhook"]
    data = cast("SeatPreferencesSetV1", read(preferences, key=b"contract-1", topic=CONTRACT_EVENTS).data)
    assert data.channels == ("email", "webhook")


@pytest.mark.parametrize("version", [1, "1", "unheard-of"])
def test_a_template_may_name_its_version_as_it_likes(version: object) -> None:
    document = document_of(REPLY)
    document["data"]["template"] = {"id": "t", "version": version, "locale": "en"}
    template = cast("ReplySentV1", read(document).data).template
    assert template is not None
    assert template.version == version


def test_accounting_facts_are_keyed_by_contract() -> None:
    event = builders.event(fact(), topic=ACCOUNTING_FACTS, id="f")
    assert event.subject == key_of(event.data, ACCOUNTING_FACTS) == "contract-1"
    key, value, headers = record(event)
    assert decode(value, key=key, headers=headers, topic=ACCOUNTING_FACTS) == event
    assert refusal(value, key=key, topic=CONVERSATION_EVENTS).detail == "subject: differs from data.thread_id"


def test_notifications_are_keyed_by_their_recipient() -> None:
    data = NotificationRetractedV1(
        notification_id="n",
        recipient=Recipient(seat_id="seat-9"),
        channel="email",
        subject_key="thread-1",
        version=1,
        reason="superseded",
    )
    event = builders.event(data, id="e")
    key, value, headers = record(event)
    assert key == b"seat-9"
    assert decode(value, key=key, headers=headers, topic=NOTIFICATION_REQUESTS) == event


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b" ",
        b"{",
        b"{}x",
        b'{"a": 01}',
        b'{"a": 1,}',
        b"\xff",
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": "\xff"}',
        b'{"text": "\x00"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b"NaN",
        b"[" * 5000,
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_invalid_json(value: bytes | None) -> None:
    for topic in (MESSAGING_EVENTS, OUTCOME_EVENTS):
        error = refusal(value, topic=topic)
        assert error.reason == "INVALID_JSON"
        assert (error.source, error.id, error.content_hash) == (None, None, None)


@pytest.mark.parametrize("depth", [*range(190, 210), 900, 990, 1000, 3000])
@pytest.mark.parametrize("innermost", [b"1", b'"\\u0000"', b'"\\ud800"', b'"NaN"'])
def test_any_depth_is_survived(depth: int, innermost: bytes) -> None:
    nested = b'"credit_cost":1,"x":' + b"[" * depth + innermost + b"]" * depth
    value = encode(SENT).replace(b'"credit_cost":1', nested)
    survives(value, b"thread-1", STRUCTURED_HEADERS, MESSAGING_EVENTS)
    if depth > 200:
        assert refusal(value).reason == "INVALID_JSON"


def test_nan_in_an_event_is_no_json() -> None:
    value = encode(SENT).replace(b'"credit_cost":1', b'"credit_cost":1,"x":NaN')
    assert refusal(value).reason == "INVALID_JSON"


@pytest.mark.parametrize("value", [b"[]", b"null", b"1", b'"text"', b"true", b"{}", b'{"type": "inmail.sent.v1"}'])
def test_json_that_is_no_event(value: bytes) -> None:
    assert refusal(value).reason == "INVALID_EVENT"


REFUSED: list[tuple[Change, str]] = [
    (drop("specversion"), "specversion: missing"),
    (put("specversion", "0.3"), "specversion: literal_error"),
    (put("specversion", 1.0), "specversion: literal_error"),
    (drop("id"), "id: missing"),
    (put("id", ""), "id: string_too_short"),
    (put("id", "x" * 129), "id: string_too_long"),
    (put("id", 7), "id: string_type"),
    (put("id", None), "id: string_type"),
    (put("source", ""), "source: string_too_short"),
    (put("source", "s" * 513), "source: string_too_long"),
    (drop("type"), "type: missing"),
    (put("type", 3), "type: string_type"),
    (put("type", ""), "type: string_too_short"),
    (put("type", ["inmail.sent.v1"]), "type: string_type"),
    (put("type", {}), "type: string_type"),
    (drop("subject"), "subject: missing"),
    (put("subject", "thread-2"), "key: differs from subject; subject: differs from data.thread_id"),
    (put("data.thread_id", "thread-2"), "subject: differs from data.thread_id"),
    (drop("time"), "time: missing"),
    (put("time", "2026-01-05T09:00:00.124Z"), "time: differs from data.sent_at"),
    (put("data.sent_at", "2026-01-05T09:00:00.124Z"), "time: differs from data.sent_at"),
    (put("time", "2026-01-05T09:00:00"), "time: instant_naive"),
    (put("time", 1767603600), "time: instant_type"),
    (put("time", None), "time: instant_type"),
    (put("datacontenttype", "text/plain"), "datacontenttype: content_type"),
    (put("datacontenttype", 1), "datacontenttype: string_type"),
    (put("traceparent", 1), "traceparent: string_type"),
    (drop("data"), "data: missing"),
    (put("data", None), "data: model_type"),
    (put("data", []), "data: model_type"),
    (put("data", "x"), "data: model_type"),
    (drop("data.inmail_id"), "data.inmail_id: missing"),
    (put("data.inmail_id", ""), "data.inmail_id: string_too_short"),
    (put("data.inmail_id", "i" * 129), "data.inmail_id: string_too_long"),
    (put("data.kind", "second"), "data.kind: literal_error"),
    (put("data.automated", 1), "data.automated: bool_type"),
    (put("data.automated", "true"), "data.automated: bool_type"),
    (put("data.credit_cost", True), "data.credit_cost: int_type"),
    (put("data.credit_cost", 1.0), "data.credit_cost: int_type"),
    (put("data.credit_cost", "1"), "data.credit_cost: int_type"),
    (put("data.credit_cost", 2), "data.credit_cost: less_than_equal"),
    (put("data.credit_cost", -1), "data.credit_cost: greater_than_equal"),
    (put("data.credit_cost", 10**30), "data.credit_cost: less_than_equal"),
    (put("data.candidate", None), "data.candidate: model_type"),
    (drop("data.candidate.id"), "data.candidate.id: missing"),
    (put("data.candidate.name", 5), "data.candidate.name: string_type"),
    (put("data.sent_at", "2026-01-05"), "data.sent_at: instant_format"),
    (put("data.sent_at", 1767603600000), "data.sent_at: instant_type"),
    (put("data.sent_at", True), "data.sent_at: instant_type"),
    (put("data.sent_at", "0001-01-01T00:00:00+01:00"), "data.sent_at: instant_range"),
    (put("data.sent_at", "9999-12-31T23:59:59-01:00"), "data.sent_at: instant_range"),
]


@pytest.mark.parametrize(("change", "detail"), REFUSED)
def test_invalid_event(change: Change, detail: str) -> None:
    error = refusal_of(SENT, change)
    assert (error.reason, error.detail) == ("INVALID_EVENT", detail)


@pytest.mark.parametrize("attachments", [-1, 2**31, 2**63, 10**300, 1.0, "1", True, None])
def test_attachments_are_counted(attachments: object) -> None:
    assert refusal_of(REPLY, put("data.attachments", attachments)).reason == "INVALID_EVENT"


def test_numbers_of_any_length_are_survived() -> None:
    for place in (b'"attachments":%b', b'"attachments":0,"x":%b'):
        value = encode(REPLY).replace(b'"attachments":0', place % (b"9" * 5000))
        error = refusal(value)
        assert (error.reason, error.source, error.id) == ("INVALID_EVENT", REPLY.source, REPLY.id)
        assert error.content_hash is not None
    version = document_of(REPLY)
    version["data"]["template"] = {"id": "t", "version": 2**70, "locale": "en"}
    assert refusal(json.dumps(version).encode()).reason == "INVALID_EVENT"


@pytest.mark.parametrize(
    ("builder", "change"),
    [
        (builders.credits_refreshed, put("data.period", "2026-1")),
        (builders.credits_refreshed, put("data.period", "2026-13")),
        (builders.credits_refreshed, put("data.period", "2026-01\n")),
        (builders.credits_refreshed, put("data.period", "٢٠٢٦-01")),
        (builders.contract_started, put("data.monthly_allotment", 2**31)),
        (builders.contract_started, put("data.monthly_allotment", -1)),
        (builders.contract_started, put("data.cap_multiple", -1)),
        (builders.contract_started, put("data.cap_multiple", None)),
        (builders.seat_assigned, put("data.monthly_limit", -1)),
        (builders.preferences_set, put("data.channels", ["in_thread"])),
        (builders.preferences_set, put("data.channels", "push")),
        (builders.preferences_set, put("data.quiet_hours", {"start": "24:00", "end": "07:00"})),
        (builders.preferences_set, put("data.quiet_hours", {"start": "22:00", "end": "7:00"})),
        (builders.preferences_set, put("data.quiet_hours", {"start": "22:00"})),
        (builders.preferences_set, put("data.digest", "weekly")),
    ],
)
def test_invalid_contract_event(builder: Callable[[], Event[EventData]], change: Change) -> None:
    document = document_of(builder())
    change(document)
    error = refusal(json.dumps(document).encode(), key=b"contract-1", topic=CONTRACT_EVENTS)
    assert error.reason == "INVALID_EVENT"


@pytest.mark.parametrize("key", [None, b"", b"thread-2", b"thread-1\x00", b"\xff", b"THREAD-1"])
def test_a_wrong_key(key: bytes | None) -> None:
    error = refusal(encode(SENT), key=key)
    assert error.reason == "INVALID_EVENT"
    assert error.detail.startswith("key: ")
    # The record says the same as it would under the right key.
    assert error.content_hash == content_hash(SENT)


@pytest.mark.parametrize("character", ["\\u0000", "\\ud800", "\\udfff", "\\udc00\\ud800"])
@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ('"name":"Ada', "data.candidate.name"),
        ('"name":"Ada","unheard":"', "data.candidate.?"),
        ('"name":"Ada","un', "data.candidate.?"),
        ('"name":"Ada","x":[["', "data.candidate.?.0.0"),
    ],
)
def test_forbidden_characters(place: str, shown: str, character: str) -> None:
    closing = {"un": '":1,"z":"', '[["': '"]],"z":"'}
    end = next((text for start, text in closing.items() if place.endswith(start)), "")
    value = encode(SENT).replace(b'"name":"Ada', f"{place}{character}{end}".encode())
    error = refusal(value)
    kind = "NUL character" if character == "\\u0000" else "lone surrogate"
    assert (error.reason, error.detail) == ("INVALID_EVENT", f"{shown}: {kind}")
    assert (error.source, error.id) == (SENT.source, SENT.id)


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "unheard"])
def test_forbidden_characters_in_attributes(name: str) -> None:
    for text in ("a\0", "a\ud800"):
        error = refusal_of(SENT, put(name, text))
        assert error.reason == "INVALID_EVENT"
        assert (error.id is None) == (name in {"id", "source"})


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (("ce_traceparent", b"a\x00"), "ce_traceparent: NUL character"),
        (("ce_unheard", b"a\x00"), "ce_?: NUL character"),
        (("ce_unheard", b"\xed\xa0\x80"), "ce_?: no UTF-8"),
        (("ce_id", b"\xff"), "ce_id: no UTF-8"),
        (("ce_specversion", b"2.0"), "specversion: literal_error"),
        (("ce_time", b"2026-01-05"), "time: instant_format"),
        (("content-type", b"text/plain"), "datacontenttype: content_type"),
        (("content-type", b"application/cloudevents-batch+json"), None),
    ],
)
def test_refused_headers(header: tuple[str, bytes], detail: str | None) -> None:
    key, value, headers = binary_record(REPLY)
    changed = [one for one in headers if one[0] != header[0]] + [header]
    if detail is None:
        changed = [header]
        detail = "specversion: missing; id: missing; source: missing; type: missing"
    error = refusal(value, key=key, headers=changed)
    assert error.reason == "INVALID_EVENT"
    assert error.detail.startswith(detail)


def test_binary_mode_reports_attributes_and_data_together() -> None:
    key, value, headers = binary_record(REPLY)
    kept = [header for header in headers if header[0] != "ce_time"]
    error = refusal(value.replace(b'"attachments":0', b'"attachments":"0"'), key=key, headers=kept)
    assert error.detail == "time: missing; data.attachments: int_type"


def test_binary_data_that_does_not_parse_can_still_be_recognised() -> None:
    key, _, headers = binary_record(REPLY)
    errors = [refusal(value, key=key, headers=headers) for value in (b"{", b"{", b"[", None)]
    assert {error.reason for error in errors} == {"INVALID_JSON"}
    assert {(error.source, error.id) for error in errors} == {(REPLY.source, REPLY.id)}
    assert errors[0].content_hash == errors[1].content_hash != errors[2].content_hash


@pytest.mark.parametrize("name", ["reply.sent.v2", "reply.sent", "outcome.decided.v1", "x" * 256])
def test_unknown_type(name: str) -> None:
    assert refusal_of(SENT, put("type", name)).reason == "UNKNOWN_TYPE"
    # An event of another kind may have another key, and no subject at all.
    document = document_of(SENT) | {"type": name, "data": 5}
    del document["subject"], document["time"]
    error = refusal(json.dumps(document).encode(), key=None)
    assert (error.reason, error.id) == ("UNKNOWN_TYPE", SENT.id)


def test_an_unknown_type_in_a_malformed_envelope_is_no_event() -> None:
    for change in (drop("id"), put("specversion", "1"), put("time", "now"), put("subject", 1)):
        document = document_of(SENT) | {"type": "reply.unsent.v1"}
        change(document)
        assert refusal(json.dumps(document).encode()).reason == "INVALID_EVENT"


def test_too_large() -> None:
    room = UPSTREAM_VALUE_BYTES_MAX - len(encode(builders.reply(text="", id="large")))
    largest = builders.reply(text="x" * room, id="large")
    assert len(encode(largest)) == UPSTREAM_VALUE_BYTES_MAX
    assert decode(encode(largest), key=b"thread-1", headers=[], topic=MESSAGING_EVENTS) == largest
    larger = builders.reply(text="x" * (room + 1), id="large")
    error = refusal(encode(larger))
    assert error.reason == "TOO_LARGE"
    assert (error.source, error.id, error.content_hash) == (larger.source, "large", content_hash(larger))
    assert refusal(b"x" * (UPSTREAM_VALUE_BYTES_MAX + 1)).reason == "TOO_LARGE"


def test_detail_never_holds_values() -> None:
    private = "Ada's own words"
    document = document_of(SENT)
    document["data"] |= {"inmail_id": private * 20, "kind": private, "candidate": {private: "\0", "id": private * 20}}
    document |= {private: private, "id": private * 20, "time": private, "type": private}
    for change in (lambda _: None, put("type", "inmail.sent.v1")):
        change(document)
        for value in (json.dumps(document), json.dumps(document).replace("\\u0000", "")):
            error = refusal(value.encode(), key=private.encode())
            assert private not in error.detail
            assert private not in str(error)


def test_a_topic_without_events_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        decode(b"{}", key=None, headers=[], topic="inmail.nothing")


# --- recognising repeats ------------------------------------------------------------------------------------------


def test_a_repeat_of_a_refused_record_has_the_same_hash() -> None:
    one = refusal_of(SENT, put("data.credit_cost", 5))
    document = document_of(SENT)
    document["data"]["credit_cost"] = 5
    shuffled = dict(reversed(document.items())) | {"data": dict(reversed(document["data"].items()))}
    assert refusal(json.dumps(shuffled, indent=1).encode()).content_hash == one.content_hash
    assert refusal_of(SENT, put("data.credit_cost", 6)).content_hash != one.content_hash


def test_content_hash_distinguishes_types_and_data() -> None:
    seat = {"thread_id": "thread-1", "seat_id": "seat-2"}
    assert seat.items() <= builders.followed().data.model_dump().items()
    hashes = {
        content_hash(event)
        for event in (
            builders.followed(),
            builders.unfollowed(),
            builders.reassigned(),
            builders.followed(seat_id="seat-3"),
            builders.followed(at=after(milliseconds=1)),
        )
    }
    assert len(hashes) == 5
    assert {len(one) for one in hashes} == {16}


def test_content_hash_does_not_depend_on_the_envelope() -> None:
    event = builders.scheduled()
    other = replace(event, id="other", time=after(hours=3), traceparent=TRACEPARENT, source="/other")
    assert content_hash(other) == content_hash(event)


def test_content_hash_stays_what_it_was() -> None:
    # Inboxes store these: a change here would make every duplicate that is under way a conflict.
    assert content_hash(SENT).hex() == "5a786d916f281960fb1134d8a0fca070"


# --- instants -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31T12:00:00.9999999999999Z", "2026-01-31T12:00:00.999Z"),
        ("2026-01-31T12:00:00.1+05:30", "2026-01-31T06:30:00.100Z"),
        ("2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00.000Z"),
        ("2026-03-01T00:30:00+01:00", "2026-02-28T23:30:00.000Z"),
        ("1969-12-31T23:59:59.9996Z", "1969-12-31T23:59:59.999Z"),
        ("0002-01-01T00:00:00Z", "0002-01-01T00:00:00.000Z"),
        ("9998-12-31T23:59:59.999Z", "9998-12-31T23:59:59.999Z"),
        (f"2026-01-31T12:00:00.{'1' * 500}Z", "2026-01-31T12:00:00.111Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("1990-12-31T15:59:60.25-08:00", "1991-01-01T00:00:00.250Z"),
    ],
)
def test_instants_are_read_and_written(text: str, expected: str) -> None:
    assert format_instant(parse_instant(text)) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2026-01-31T12:00:00", "instant_naive"),
        ("2026-01-31 12:00:00", "instant_naive"),
        ("2026-01-31", "instant_format"),
        ("20260131T120000Z", "instant_format"),
        ("2026-W05-6T12:00:00Z", "instant_format"),
        ("2026-01-31T12:00Z", "instant_format"),
        ("2026-01-31T12:00:00,5Z", "instant_format"),
        ("2026-01-31T12:00:00.Z", "instant_format"),
        ("2026-02-30T12:00:00Z", "instant_format"),
        ("2026-01-31T24:00:00Z", "instant_format"),
        ("2026-01-31T12:00:60Z", "instant_format"),
        ("2026-01-31T23:59:60+01:00", "instant_format"),
        ("2026-01-31T23:59:61Z", "instant_format"),
        ("2026-01-31T12:00:00+24:00", "instant_format"),
        ("2026-01-31T12:00:00+0100", "instant_format"),
        ("2026-01-31T12:00:00Z\n", "instant_format"),
        ("٢٠٢٦-01-31T12:00:00Z", "instant_format"),
        ("1767603600", "instant_format"),
        ("", "instant_format"),
        ("0001-06-01T00:00:00Z", "instant_range"),
        ("0001-01-01T00:00:00+00:01", "instant_range"),
        ("9999-01-01T00:00:00Z", "instant_range"),
    ],
)
def test_what_is_no_instant(text: str, kind: str) -> None:
    with pytest.raises(InstantError) as caught:
        parse_instant(text)
    assert caught.value.kind == kind


def test_models_made_in_code_hold_instants_too() -> None:
    local = datetime(2026, 1, 31, 12, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2)))
    data = builders.sent(at=local).data
    assert data.sent_at == datetime(2026, 1, 31, 10, 0, 0, 123000, tzinfo=UTC)
    assert data.sent_at.tzinfo is UTC
    with pytest.raises(ValidationError, match="offset"):
        builders.drafted(at=datetime(2026, 1, 31))  # noqa: DTZ001 - what is refused


@given(st.integers(min_value=-60_000_000_000_000, max_value=250_000_000_000_000))
def test_epoch_milliseconds_round_trip(milliseconds: int) -> None:
    instant = from_epoch_milliseconds(milliseconds)
    assert epoch_milliseconds(instant) == milliseconds
    assert parse_instant(format_instant(instant)) == instant


def test_an_epoch_out_of_range_is_no_instant() -> None:
    for milliseconds in (10**18, -(10**18), 10**30):
        with pytest.raises(InstantError):
            from_epoch_milliseconds(milliseconds)


# --- what is derived and written ----------------------------------------------------------------------------------


def fact() -> InmailStatusChangedV1:
    return InmailStatusChangedV1(
        thread_version=1,
        inmail_id="inmail-1",
        thread_id="thread-1",
        contract_id="contract-1",
        seat_id="seat-1",
        candidate=builders.ADA,
        kind="initial",
        automated=False,
        credit_cost=1,
        status="sent",
        at=SENT.time,
        sent_at=SENT.time,
    )


RECEIVED = after(seconds=1)


def derived(cause: Event[EventData] = SENT, index: int = 0, topic: str | None = None) -> Event[InmailStatusChangedV1]:
    return derive(
        cause, fact(), source=source_of("ingestion"), at=SENT.time, received=RECEIVED, index=index, topic=topic
    )


def test_a_derived_event_names_its_cause_and_root() -> None:
    cause = replace(SENT, traceparent=TRACEPARENT)
    first = derived(cause)
    assert (first.causeid, first.causesource, first.rootid) == (SENT.id, SENT.source, SENT.id)
    assert (first.receivedtime, first.traceparent, first.time) == (RECEIVED, TRACEPARENT, SENT.time)
    assert (first.subject, first.type, first.source) == (
        "thread-1",
        "inmail.status_changed.v1",
        "/inmail-responses/ingestion",
    )
    lock = ThreadLockedV1(thread_id="thread-1", thread_version=2, reply_id="reply-1")
    second = derive(first, lock, source=source_of("inbox"), at=after(days=2), received=after(days=3))
    assert (second.causeid, second.causesource, second.rootid) == (first.id, first.source, SENT.id)
    assert (second.receivedtime, second.time) == (RECEIVED, after(days=2))


def test_derived_ids_are_the_same_on_every_run_and_differ_by_what_tells_them_apart() -> None:
    assert derived() == derived()
    causes = [SENT, replace(SENT, id="other"), replace(SENT, source="/other")]
    ids = [derived(cause, index).id for cause in causes for index in (0, 1)]
    assert len(set(ids)) == len(ids)
    assert derived(topic=ACCOUNTING_FACTS).id == derived().id
    assert derived(topic=ACCOUNTING_FACTS).subject == "contract-1"
    name = json.dumps(["/s", "i", "t", 0], separators=(",", ":"))
    assert derived_id("/s", "i", "t", 0) == str(uuid5(UUID("8f0c4d0e-7a35-5a57-9d26-7f3c8b0f6a51"), name))


def test_a_derived_event_that_no_reader_would_take_is_not_made() -> None:
    with pytest.raises(ValueError, match="must be the instant of its at"):
        derive(SENT, fact(), source="/x", at=SENT.time + timedelta(milliseconds=1), received=RECEIVED)


@pytest.mark.parametrize("cause", [SENT, replace(SENT, traceparent=TRACEPARENT), derived(index=1)])
def test_a_cause_writes_what_derive_and_encode_would(cause: Event[EventData]) -> None:
    topics = [CONVERSATION_EVENTS, ACCOUNTING_FACTS]
    expected = [derived(cause, 3, topic) for topic in topics]
    written = Cause(cause, source=source_of("ingestion"), received=RECEIVED).write(
        fact(), at=SENT.time, index=3, topics=topics
    )
    assert written == [(event.subject.encode(), encode(event)) for event in expected]


def test_a_cause_writes_nothing_that_no_reader_would_take() -> None:
    cause = Cause(SENT, source="/x", received=RECEIVED)
    with pytest.raises(ValueError, match="must be the instant of its at"):
        cause.write(fact(), at=after(days=9), topics=[CONVERSATION_EVENTS])
    named = fact().model_copy(update={"candidate": builders.ADA.model_copy(update={"name": "A\0da"})})
    with pytest.raises(ValueError, match="NUL"):
        cause.write(named, at=SENT.time, topics=[CONVERSATION_EVENTS])


def test_encoded_form() -> None:
    document = document_of(replace(derived(), traceparent=TRACEPARENT))
    assert document == {
        "specversion": "1.0",
        "id": derived().id,
        "source": "/inmail-responses/ingestion",
        "type": "inmail.status_changed.v1",
        "subject": "thread-1",
        "time": "2026-01-05T09:00:00.123Z",
        "datacontenttype": "application/json",
        "traceparent": TRACEPARENT,
        "causeid": SENT.id,
        "causesource": "/messaging-platform",
        "rootid": SENT.id,
        "receivedtime": "2026-01-05T09:00:01.000Z",
        "data": {
            "thread_id": "thread-1",
            "thread_version": 1,
            "inmail_id": "inmail-1",
            "contract_id": "contract-1",
            "seat_id": "seat-1",
            "candidate": {"id": "candidate-1", "name": "Ada", "locale": "en", "time_zone": "Europe/London"},
            "kind": "initial",
            "automated": False,
            "credit_cost": 1,
            "status": "sent",
            "at": "2026-01-05T09:00:00.123Z",
            "sent_at": "2026-01-05T09:00:00.123Z",
        },
    }


def test_nothing_absent_is_written() -> None:
    event = builders.sent(candidate=Candidate(id="c"))
    assert b"null" not in encode(event)
    assert document_of(event)["data"]["candidate"] == {"id": "c"}


def test_what_no_reader_takes_is_not_written() -> None:
    with pytest.raises(ValueError, match="NUL"):
        encode(builders.reply(text="a\0b"))
    literal = builders.reply(text="\\u0000")
    assert read(document_of(literal)) == literal


def test_the_largest_event_can_be_derived_from() -> None:
    text = "x" * (UPSTREAM_VALUE_BYTES_MAX - 600)
    assert len(encode(builders.reply(text=text))) <= UPSTREAM_VALUE_BYTES_MAX
    candidate = Candidate(id="c", name=text)
    value = encode(replace(derived(), data=fact().model_copy(update={"candidate": candidate})))
    event = decode(value, key=b"thread-1", headers=[], topic=CONVERSATION_EVENTS)
    assert cast("InmailStatusChangedV1", event.data).candidate == candidate


# --- the models ---------------------------------------------------------------------------------------------------


def test_class_names_follow_from_types() -> None:
    for name, data_class in CATALOGUE.items():
        *words, version = name.replace("_", ".").split(".")
        assert data_class.__name__ == "".join(word.capitalize() for word in words) + version.upper()
        assert data_class.type == name
        assert data_class.__doc__


def test_models_are_immutable_and_strict() -> None:
    for data_class in CATALOGUE.values():
        assert issubclass(data_class, BaseModel)
        assert data_class.model_config["frozen"]
        assert data_class.model_config["strict"]
        assert hash(next(iter_examples(data_class))) is not None


def iter_examples(data_class: type[EventData]) -> Any:
    for document in examples_of(schema_of(data_class.type)):
        yield data_class.model_validate_json(json.dumps(document["data"]))


def test_business_ids_are_those_of_upstream_messaging() -> None:
    found = {
        name: data_class.business_id_field for name, data_class in CATALOGUE.items() if data_class.business_id_field
    }
    assert found == {
        "inmail.scheduled.v1": "inmail_id",
        "inmail.sent.v1": "inmail_id",
        "inmail.undelivered.v1": "inmail_id",
        "inmail.withdrawn.v1": "inmail_id",
        "reply.sent.v1": "reply_id",
        "recruiter_message.sent.v1": "message_id",
    }
    assert all(is_upstream(name) for name in found)


def test_own_times() -> None:
    without = {name for name, data_class in CATALOGUE.items() if data_class.time_field is None}
    assert without == {
        "inmail.scheduled.v1",
        "thread.locked.v1",
        "thread.unlocked.v1",
        "notification.requested.v1",
        "notification.retracted.v1",
        "insight.window.v1",
        "thread.state.v1",
    }
    assert time_of(builders.scheduled().data) is None
    assert time_of(SENT.data) == SENT.time
    assert InmailScheduledV1.time_field is None


def test_conversation_and_outcome_events_carry_the_thread_version() -> None:
    for topic in (CONVERSATION_EVENTS, OUTCOME_EVENTS, ACCOUNTING_FACTS):
        for name in TOPICS[topic].types:
            assert "thread_version" in CATALOGUE[name].model_fields
    assert "previous" in OutcomeDecidedV1.model_fields
    assert ReplyRecordedV1.time_field == "sent_at"


# --- properties ---------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()))
    | st.sampled_from(["2026-01-05T09:00:00Z", "inmail.sent.v1", "1.0", 10**25, -0.0, "\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TOPIC_NAMES = st.sampled_from(sorted({topic for _, topic in HOMES}))
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "ce_id", "ce_type", "ce_source", "ce_specversion", "ce_time", "ce_", "x"]),
        st.binary(max_size=8)
        | st.sampled_from([b"application/cloudevents+json", b"application/json", b"1.0", b"inmail.sent.v1"]),
    ),
    max_size=5,
)


def survives(value: bytes | None, key: bytes | None, headers: Headers, topic: str) -> None:
    """Decode, and see that the record is either an event or refused; any other error fails the test."""
    with suppress(InvalidRecordError):
        event = decode(value, key=key, headers=headers, topic=topic)
        assert decode(encode(event), key=key, headers=STRUCTURED_HEADERS, topic=topic) == event
        assert decode_slowly(value, key=key, headers=headers, reader=reader_of(topic)) == event
        return
    error = refusal(value, key=key, headers=headers, topic=topic)
    assert error.reason in {"INVALID_JSON", "INVALID_EVENT", "UNKNOWN_TYPE", "TOO_LARGE"}
    assert (error.source is None) == (error.id is None) == (error.content_hash is None)


@given(st.none() | st.binary(), st.none() | st.binary(max_size=3), HEADERS, TOPIC_NAMES)
def test_any_bytes_are_survived(value: bytes | None, key: bytes | None, headers: Headers, topic: str) -> None:
    survives(value, key, headers, topic)


@given(JSON_VALUES, HEADERS, TOPIC_NAMES)
def test_any_json_is_survived(document: object, headers: Headers, topic: str) -> None:
    survives(json.dumps(document).encode(), b"thread-1", headers, topic)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, str]:
    name, topic = draw(st.sampled_from(HOMES))
    document = list(examples_of(schema_of(name)))[1]
    for _ in range(draw(st.integers(1, 3))):
        node = document
        while isinstance(node, dict) and node:
            member = draw(st.sampled_from(sorted(node)))
            if isinstance(node[member], dict) and draw(st.booleans()):
                node = node[member]
                continue
            action = draw(st.sampled_from(["replace", "drop", "rename"]))
            value = node.pop(member)
            if action == "replace":
                node[member] = draw(JSON_VALUES)
            elif action == "rename":
                node[draw(st.text(max_size=4))] = value
            break
    return json.dumps(document).encode(), topic


@given(mutated())
def test_any_mutation_of_an_event_is_survived(case: tuple[bytes, str]) -> None:
    value, topic = case
    survives(value, TEXT.encode(), STRUCTURED_HEADERS, topic)


@given(st.sampled_from(HOMES), st.data())
def test_any_cut_or_flipped_byte_is_survived(home: tuple[str, str], data: st.DataObject) -> None:
    name, topic = home
    value = bytearray(json.dumps(next(examples_of(schema_of(name)))).encode())
    place = data.draw(st.integers(0, len(value) - 1))
    if data.draw(st.booleans()):
        value[place] = data.draw(st.integers(0, 255))
    else:
        del value[place:]
    survives(bytes(value), TEXT.encode(), STRUCTURED_HEADERS, topic)


INSTANTS = st.datetimes(min_value=datetime(2, 1, 2), max_value=datetime(9998, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=128)


def spelled(instant: datetime, offset_minutes: int) -> str:
    return instant.astimezone(timezone(timedelta(minutes=offset_minutes))).isoformat()


@given(moment=INSTANTS, offset=OFFSETS)
@example(moment=datetime(2026, 1, 5, 9, 0, 0, 999, tzinfo=UTC), offset=-1)
def test_instants_are_cut_off_to_milliseconds_whatever_their_offset(moment: datetime, offset: int) -> None:
    instant = parse_instant(spelled(moment, offset))
    assert instant == to_instant(moment) <= moment
    assert moment - instant < timedelta(milliseconds=1)
    assert instant.tzinfo is UTC


REPLIES = st.builds(
    builders.reply,
    thread_id=IDS,
    reply_id=IDS,
    id=IDS,
    text=TEXTS,
    at=INSTANTS,
    choice=st.sampled_from([None, "interested", "not_interested"]),
    attachments=st.integers(0, 2**31 - 1),
)


@given(event=REPLIES, source=IDS)
def test_what_is_written_is_read_back(event: Event[ReplySentV1], source: str) -> None:
    event = replace(event, source=source)
    for key, value, headers in (record(event), binary_record(event)):
        assert decode(value, key=key, headers=headers, topic=MESSAGING_EVENTS) == event


@given(moment=INSTANTS, offset=OFFSETS, text=TEXTS, time_offset=OFFSETS)
def test_content_hash_sees_content_alone(moment: datetime, offset: int, text: str, time_offset: int) -> None:
    event = builders.reply(text=text, at=moment, id="e")
    document = document_of(event)
    data = {"unknown": 1, **dict(reversed(document["data"].items())), "in_reply_to": None}
    data["sent_at"] = spelled(event.time, offset)
    shuffled = {"data": data, **dict(reversed(document.items()))} | {
        "data": data,
        "time": spelled(event.time, time_offset),
        "traceparent": TRACEPARENT,
        "anything": {"at": [1]},
    }
    assert content_hash(read(shuffled)) == content_hash(read(document)) == content_hash(event)

"""The OpenAPI 3.1 description of the inbox's paths, as data."""

from typing import Any, Final, get_args

from services.inbox.domain import CannotReply
from services.inbox.parameters import LIMIT_DEFAULT, LIMIT_MAX
from shared.events import (
    Choice,
    Content,
    CorrectionRejection,
    InmailKind,
    LedgerKind,
    Outcome,
    OutcomeSource,
    ThreadStatus,
)
from shared.problems import MEDIA_TYPE

Json = dict[str, Any]

_STRING: Final[Json] = {"type": "string"}
_ID: Final[Json] = {"type": "string", "minLength": 1, "maxLength": 128}
_BOOLEAN: Final[Json] = {"type": "boolean"}
_INTEGER: Final[Json] = {"type": "integer"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Json] = {"type": "integer", "minimum": 1}
_INSTANT: Final[Json] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
}
_OPEN: Final[Json] = {"type": "object"}


def _enum(literal: object) -> Json:
    return {"type": "string", "enum": list(get_args(literal))}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Json) -> Json:
    """An object with these members, all of them always there, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _page(item: str) -> Json:
    return _object(items=_list(_ref(item)), next_cursor={**_or_null(_STRING), "description": "Null on the last page."})


_BALANCE: Final = _object(available=_INTEGER, held=_INTEGER)
_CANDIDATE: Final = _object(id=_ID, name=_STRING)
_TEMPLATE: Final = _object(id=_STRING, version={"type": ["integer", "string"]}, locale=_STRING)
_RATE: Final = _object(
    numerator={"type": "number", "minimum": 0},
    denominator=_COUNT,
    rate={**_or_null({"type": "number", "minimum": 0, "maximum": 1}), "description": "Null where denominator is 0."},
)

_OUTCOME: Final[dict[str, Json]] = {
    "outcome_id": _ID,
    "version": _NUMBER,
    "outcome": _enum(Outcome),
    "previous": _or_null(_enum(Outcome)),
    "source": _enum(OutcomeSource),
    "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    "needs_confirmation": _BOOLEAN,
    "signals": _list(_STRING),
    "model_version": _or_null(_STRING),
    "reply_id": _ID,
    "responded_at": _INSTANT,
    "decided_at": _INSTANT,
}

_SCHEMAS: Final[dict[str, Json]] = {
    "FolderItem": _object(
        thread_id=_ID,
        contract_id=_ID,
        seat_id={**_ID, "description": "The thread's owner."},
        candidate=_CANDIDATE,
        status=_enum(ThreadStatus),
        locked=_BOOLEAN,
        can_reply=_BOOLEAN,
        last_inmail_at=_INSTANT,
        first_response_at=_or_null(_INSTANT),
        outcome_version=_COUNT,
        age_seconds={**_COUNT, "description": "Whole seconds since last_inmail_at."},
        days_left={
            **_or_null({"type": "integer", "minimum": 0, "maximum": 90}),
            "description": "Days left in the credit window, rounded up; null unless the thread awaits a reply.",
        },
        lapsed={**_BOOLEAN, "description": "Whether the thread has awaited a reply for more than 90 x 24 h."},
    ),
    "Folder": _page("FolderItem"),
    "ThreadState": {
        "type": "object",
        "description": "What is published as thread.state.v1.",
        "properties": {
            "thread_id": _ID,
            "contract_id": _ID,
            "seat_id": _ID,
            "candidate": {"type": "object"},
            "status": _enum(ThreadStatus),
            "locked": _BOOLEAN,
            "can_reply": _BOOLEAN,
            "last_inmail_at": _INSTANT,
            "first_response_at": _or_null(_INSTANT),
            "outcome_version": _COUNT,
            "thread_version": _NUMBER,
        },
        "required": ["thread_id", "contract_id", "seat_id", "candidate", "status", "locked", "can_reply"],
        "additionalProperties": False,
    },
    "Outcome": _object(**_OUTCOME),
    "ConsumedEvent": _object(
        id=_STRING,
        type=_STRING,
        time=_INSTANT,
        cause_id=_or_null(_STRING),
        root_id=_or_null(_STRING),
        data={**_OPEN, "description": "The event's data, without names and texts."},
    ),
    "Thread": _object(
        state=_ref("ThreadState"),
        can_reply=_BOOLEAN,
        cannot_reply_reason=_or_null(_enum(CannotReply)),
        outcome={**_or_null(_ref("Outcome")), "description": "The standing outcome."},
        timeline={**_list(_ref("ConsumedEvent")), "description": "In the order of event time."},
    ),
    "SmartReplies": _object(
        selected={**_or_null(_enum(Choice)), "description": "What the candidate has picked and not sent yet."},
        options=_list(_object(choice=_enum(Choice), text=_STRING, template=_TEMPLATE)),
    ),
    "InMail": _object(
        thread_id=_ID,
        contract_id=_ID,
        seat_id={**_ID, "description": "The seat that sent it."},
        kind=_enum(InmailKind),
        automated=_BOOLEAN,
        credit_cost=_COUNT,
        scheduled_at=_or_null(_INSTANT),
        sent_at=_or_null(_INSTANT),
        undelivered_at=_or_null(_INSTANT),
        withdrawn_at=_or_null(_INSTANT),
        cancelled_at=_or_null(_INSTANT),
    ),
    "Entry": _object(
        entry_id=_ID,
        entry_number=_NUMBER,
        contract_id=_ID,
        seat_id=_or_null(_ID),
        inmail_id=_or_null(_ID),
        kind=_enum(LedgerKind),
        amount=_NUMBER,
        balance_after=_BALANCE,
        cause_id=_ID,
        effective_at=_INSTANT,
    ),
    "Entries": _page("Entry"),
    "Receipt": _object(
        inmail_id=_ID,
        inmail=_or_null(_ref("InMail")),
        events=_list(_ref("ConsumedEvent")),
        answer=_or_null(
            _object(
                id=_STRING,
                reply_id=_ID,
                sent_at=_INSTANT,
                choice=_or_null(_enum(Choice)),
                content=_enum(Content),
                first_response=_BOOLEAN,
            )
        ),
        outcome={
            **_or_null(_ref("Outcome")),
            "description": "The newest version that a reply to this InMail has led to.",
        },
        model_version=_or_null(_STRING),
        outcomes=_list(_object(id=_ID, **_OUTCOME)),
        lock=_or_null(_object(id=_STRING, locked=_BOOLEAN, reply_id=_ID, at=_INSTANT)),
        ledger=_list(_ref("Entry")),
        denied=_or_null(_object(reason=_STRING, at=_INSTANT)),
        notifications=_list(
            _object(
                id=_STRING,
                notification_id=_ID,
                recipient=_object(seat_id=_ID),
                channel=_STRING,
                kind=_STRING,
                locale=_STRING,
                version=_NUMBER,
                supersedes=_or_null(_ID),
                deliver_after=_or_null(_INSTANT),
                digest_key=_or_null(_STRING),
                retracted=_BOOLEAN,
            )
        ),
        pending={
            **_list({"type": "string", "enum": ["events", "sent", "answer", "outcome", "ledger", "notifications"]}),
            "description": "What the facts call for and has not come yet.",
        },
    ),
    "Credits": _object(
        contract_id=_ID,
        as_of=_INSTANT,
        granted={**_COUNT, "description": "available + held + open + lapsed + expired"},
        available=_INTEGER,
        held=_COUNT,
        open={**_COUNT, "description": "Taken, not given back, at most 90 x 24 h old."},
        returned={**_COUNT, "description": "Given back for an answer in time; a part of available."},
        lapsed={**_COUNT, "description": "Taken for good."},
        expired=_COUNT,
    ),
    "ResponseRate": _object(
        seat_id=_ID,
        as_of=_INSTANT,
        interval={"type": "string", "const": "month"},
        pooled=_RATE,
        report_30d=_RATE,
        mean_of_intervals=_RATE,
    ),
    "Correction": {
        "type": "object",
        "properties": {
            "outcome": _enum(Outcome),
            "corrected_by": {"type": "string", "minLength": 1, "maxLength": 128},
            "version": {
                **_or_null(_NUMBER),
                "description": "The version that is corrected; left out, the one that stands.",
            },
        },
        "required": ["outcome", "corrected_by"],
        "additionalProperties": False,
    },
    "Command": _object(command_id=_ID),
    "Verdict": _object(
        verdict={"type": "string", "enum": ["accepted", "duplicate", "dead_letter"]},
        reason=_or_null(_STRING),
        detail=_or_null(_STRING),
        effects=_list(
            {
                "type": "object",
                "required": ["kind"],
                "properties": {
                    "kind": {
                        "type": "string",
                        "enum": [
                            "recorded",
                            "parked",
                            "lock",
                            "unlock",
                            "follow_up_cancelled",
                            "outcome",
                            "to_be_classified",
                            "ledger",
                            "denied",
                            "unknown",
                        ],
                    }
                },
            }
        ),
    ),
    "Problem": {
        "type": "object",
        "description": "RFC 9457 problem details; cure says what to do.",
        "properties": {
            "type": _STRING,
            "title": _STRING,
            "status": _INTEGER,
            "detail": _STRING,
            "cure": _STRING,
            "reason": _enum(CorrectionRejection),
            "version": _COUNT,
            "parameter": _STRING,
            "errors": _OPEN,
        },
        "required": ["type", "title", "status", "detail", "cure"],
        "additionalProperties": False,
    },
}

_LIMIT: Final[Json] = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
}
_CURSOR: Final[Json] = {
    "name": "cursor",
    "in": "query",
    "description": "next_cursor of the page before.",
    "schema": _STRING,
}
_AS_OF: Final[Json] = {
    "name": "as_of",
    "in": "query",
    "description": "RFC 3339; what happened later is left out. Now, if it is not given.",
    "schema": {"type": "string", "format": "date-time"},
}
_FOLDER: Final[Json] = {
    "name": "folder",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "enum": ["awaiting-reply", "accepted", "declined", "all"]},
}
_LOCALE: Final[Json] = {
    "name": "locale",
    "in": "query",
    "description": "A language tag; else the candidate's locale counts, else English.",
    "schema": _STRING,
}


def _path(name: str) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    }


def _content(schema: str, media_type: str = "application/json") -> Json:
    return {media_type: {"schema": _ref(schema)}}


def _operation(
    summary: str,
    schema: str,
    *parameters: Json,
    status: int = 200,
    body: Json | None = None,
    problems: tuple[int, ...] = (),
) -> Json:
    titles = {400: "Bad request", 404: "Not found", 409: "Refused by R29", 413: "Body too large"}
    titles |= {415: "Body encoded", 422: "Invalid body"}
    responses: Json = {str(status): {"description": summary, "content": _content(schema)}}
    for problem in problems:
        responses[str(problem)] = {"description": titles[problem], "content": _content("Problem", MEDIA_TYPE)}
    responses["default"] = {"description": "Any other failure", "content": _content("Problem", MEDIA_TYPE)}
    operation: Json = {"summary": summary, "parameters": list(parameters), "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


DOCUMENT: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "InMail Responses: inbox",
        "version": "1",
        "description": "Folders, threads, receipts, credits and rates. Ids in paths are percent-encoded.",
    },
    "paths": {
        "/v1/seats/{seat_id}/folders/{folder}": {
            "get": _operation(
                "A seat's threads, newest InMail first.",
                "Folder",
                _path("seat_id"),
                _FOLDER,
                _LIMIT,
                _CURSOR,
                problems=(400, 404),
            )
        },
        "/v1/seats/{seat_id}/response-rate": {
            "get": _operation(
                "How many of a seat's InMails were answered.",
                "ResponseRate",
                _path("seat_id"),
                _AS_OF,
                problems=(400,),
            )
        },
        "/v1/threads/{thread_id}": {
            "get": _operation(
                "A thread's state, what was decided about it and its timeline.",
                "Thread",
                _path("thread_id"),
                problems=(400, 404),
            )
        },
        "/v1/threads/{thread_id}/smart-replies": {
            "get": _operation(
                "Both smart replies, filled in.",
                "SmartReplies",
                _path("thread_id"),
                _LOCALE,
                problems=(400, 404),
            )
        },
        "/v1/threads/{thread_id}/outcome": {
            "post": _operation(
                "Correct what the classifier decided. A repeat is the same command.",
                "Command",
                _path("thread_id"),
                status=202,
                body=_ref("Correction"),
                problems=(400, 404, 409, 413, 415, 422),
            )
        },
        "/v1/inmails/{inmail_id}/receipt": {
            "get": _operation("An InMail's causal chain.", "Receipt", _path("inmail_id"), problems=(400, 404))
        },
        "/v1/contracts/{contract_id}/credits": {
            "get": _operation(
                "Where a contract's credits lie.", "Credits", _path("contract_id"), _AS_OF, problems=(400,)
            )
        },
        "/v1/contracts/{contract_id}/credits/entries": {
            "get": _operation(
                "The ledger, line by line.", "Entries", _path("contract_id"), _LIMIT, _CURSOR, problems=(400,)
            )
        },
        "/v1/validate": {
            "post": _operation(
                "What one event would do, without a side effect.",
                "Verdict",
                body={"description": "A CloudEvent in structured mode; anything is answered.", "type": "object"},
            )
        },
        "/openapi.json": {
            "get": {
                "summary": "This document.",
                "responses": {
                    "200": {"description": "OpenAPI 3.1", "content": {"application/json": {"schema": _OPEN}}}
                },
            }
        },
    },
    "components": {"schemas": _SCHEMAS},
}

"""What one upstream event would do: asked of the services that would read it, without a side effect anywhere."""

import logging
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import httpx
import orjson
from pydantic_core import from_json

from shared.events import InvalidRecordError, decode
from shared.rules import OUTCOME_OF_CHOICE
from shared.settings import Settings
from shared.topics import (
    ACCOUNTING_FACTS,
    CONTRACT_EVENTS,
    CREDIT_EVENTS,
    MESSAGING_EVENTS,
    PRIVACY_EVENTS,
    TOPICS,
    UPSTREAM_VALUE_BYTES_MAX,
)

logger = logging.getLogger(__name__)

Json = dict[str, Any]

ANSWER_SECONDS_MAX: Final = 5.0
EVENT_BYTES_MAX: Final = UPSTREAM_VALUE_BYTES_MAX

_TOPIC_BY_TYPE: Final = {
    event_type: topic.name for topic in TOPICS.values() if topic.upstream for event_type in topic.types
}
_KINDS: Final = {
    "thread.locked.v1": "lock",
    "thread.unlocked.v1": "unlock",
    "follow_up.cancelled.v1": "follow_up_cancelled",
    "credit.posted.v1": "ledger",
    "credit.denied.v1": "denied",
}
_SHOWN: Final = (
    "thread_id",
    "inmail_id",
    "reply_id",
    "message_id",
    "contract_id",
    "status",
    "content",
    "choice",
    "owner_seat_id",
    "reason",
    "amount",
    "balance_after",
    "effective_at",
)
"""Fields of an effect's event that its answer shows; none names a person."""


class Tried(NamedTuple):
    """What a service would do with a record; `emitted` are topic and event."""

    verdict: str
    reason: str | None
    detail: str | None
    parked: bool
    emitted: tuple[tuple[str, Json], ...]


class Validator:
    """Answers for one event at a time; `close` it at the end."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._urls = {
            MESSAGING_EVENTS: settings.ingestion_url,
            CONTRACT_EVENTS: settings.credits_url,
            ACCOUNTING_FACTS: settings.credits_url,
        }
        # One for all: each makes a TLS context of its own, and the loop stands meanwhile. It keeps no connections, for
        # the service that is asked ends idle ones after a while, maybe under a request.
        self._client = httpx.AsyncClient(
            transport=transport, timeout=ANSWER_SECONDS_MAX, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def close(self) -> None:
        """Ask nobody any more."""
        await self._client.aclose()

    async def validate(self, value: bytes | None) -> Json:
        """Say what an event would do; None is one that is too large to be read."""
        addressed = _addressed(value)
        if isinstance(addressed, InvalidRecordError):
            return _dead(addressed)
        topic, key = addressed
        if topic == PRIVACY_EVENTS:
            return _accepted([{"kind": "unknown", "part": "erasure", "detail": "every service erases for itself"}])
        tried = await self._try(topic, [(key, (value or b"").decode())])
        if tried is None:
            return _accepted([_unknown("verdict")])
        first = tried[0]
        if first.verdict != "accepted":
            return {"verdict": first.verdict, "reason": first.reason, "detail": first.detail, "effects": []}
        if first.parked:
            return _accepted([{"kind": "parked"}])
        effects = [effect for emitted in first.emitted for effect in _effects(*emitted)]
        return _accepted((effects or [{"kind": "recorded"}]) + await self._ledger(first.emitted))

    async def _ledger(self, emitted: Iterable[tuple[str, Json]]) -> list[Json]:
        """What credits would post for the accounting facts among the emitted events."""
        facts = [
            (event["data"]["contract_id"], orjson.dumps(event).decode())
            for topic, event in emitted
            if topic == ACCOUNTING_FACTS
        ]
        if not facts:
            return []
        tried = await self._try(ACCOUNTING_FACTS, facts)
        if tried is None:
            return [_unknown("ledger")]
        effects: list[Json] = []
        for one in tried:
            if one.parked:
                effects.append(
                    {"kind": "parked", "part": "ledger", "detail": "the contract or the seat is not known yet"}
                )
            if one.verdict == "dead_letter":
                effects.append({"kind": "unknown", "part": "ledger", "detail": f"credits gives it up: {one.detail}"})
            effects += [effect for event in one.emitted for effect in _effects(*event)]
        return effects

    async def _try(self, topic: str, records: Iterable[tuple[str, str]]) -> list[Tried] | None:
        """Ask the service that reads a topic; None if it gives no answer."""
        url = self._urls[topic]
        if not url:
            return None
        body = {"records": [{"topic": topic, "key": key, "value": value} for key, value in records]}
        try:
            answer = await self._client.post(f"{url.rstrip('/')}/internal/dry-run", content=orjson.dumps(body))
            answer.raise_for_status()
            return [_tried(result) for result in answer.json()["results"]]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            logger.warning("no answer about %s: %s", topic, type(error).__name__)
            return None


def _addressed(value: bytes | None) -> tuple[str, str] | InvalidRecordError:
    """Topic and key that an event belongs under, or what makes it a dead letter on any topic."""
    if value is None:
        return InvalidRecordError("TOO_LARGE", f"more than {EVENT_BYTES_MAX} bytes")
    try:
        envelope = from_json(value, allow_inf_nan=False)  # as a topic's reader does
    except ValueError:
        envelope = None
    event_type, subject = (envelope.get(name) if isinstance(envelope, dict) else None for name in ("type", "subject"))
    topic = _TOPIC_BY_TYPE.get(event_type) if isinstance(event_type, str) else None
    key = subject if isinstance(subject, str) else ""
    # What belongs on no topic would be refused on each in the same words.
    refused = _refused(value, key.encode(errors="surrogatepass"), topic or MESSAGING_EVENTS)
    return refused or (topic or MESSAGING_EVENTS, key)


def _refused(value: bytes, key: bytes, topic: str) -> InvalidRecordError | None:
    try:
        decode(value, key=key, headers=(), topic=topic)
    except InvalidRecordError as error:
        return error
    return None


def _tried(result: Json) -> Tried:
    return Tried(
        result["verdict"],
        result["reason"],
        result["detail"],
        result["parked"],
        tuple((emitted["topic"], emitted["event"]) for emitted in result["emitted"]),
    )


def _effects(topic: str, event: Json) -> list[Json]:
    """What an emitted event stands for. An accounting fact repeats a conversation event and is nothing of its own."""
    if topic == ACCOUNTING_FACTS:
        return []
    event_type, data = event["type"], event["data"]
    if event_type == "classification.requested.v1":
        choice = data.get("choice")
        if choice is None:
            return [{"kind": "to_be_classified", "reply_id": data["reply_id"]}]
        return [
            {"kind": "outcome", "outcome": OUTCOME_OF_CHOICE[choice], "source": "choice", "reply_id": data["reply_id"]}
        ]
    effect: Json = {"kind": _KINDS.get(event_type, "recorded"), "type": event_type}
    effect |= {name: data[name] for name in _SHOWN if name in data}
    if topic == CREDIT_EVENTS and "kind" in data:
        effect["posting"] = data["kind"]
    return [effect]


def _accepted(effects: list[Json]) -> Json:
    return {"verdict": "accepted", "reason": None, "detail": None, "effects": effects}


def _dead(error: InvalidRecordError) -> Json:
    return {"verdict": "dead_letter", "reason": error.reason, "detail": error.detail, "effects": []}


def _unknown(part: str) -> Json:
    return {"kind": "unknown", "part": part, "detail": "the service that decides it gives no answer"}

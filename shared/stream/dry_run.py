"""`POST /internal/dry-run`: what records would do to this service, decided by the real handler and rolled back."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.bodies import parsed_body, unprocessable
from shared.bulkhead import Bulkhead
from shared.events import encode
from shared.problems import answering, not_started
from shared.stream.processor import Outcome, Processor
from shared.stream.records import Position, RawRecord

BODY_BYTES_MAX: Final = 8 * 1024 * 1024


class DryRunRecord(BaseModel):
    """A record to try: `value` is the event as JSON text."""

    model_config = ConfigDict(strict=True, frozen=True)

    topic: str
    key: str | None
    value: str


class DryRunRequest(BaseModel):
    """Records in order; later ones see the effects of earlier ones."""

    model_config = ConfigDict(frozen=True)

    records: tuple[DryRunRecord, ...]


def dry_run_route(processor: Callable[[], Processor | None], bulkhead: Bulkhead) -> Route:
    """The route; `processor` gives the one at work, or None while the service waits for its dependencies."""

    async def dry_run(request: Request) -> Response:
        active = processor()
        if active is None:
            raise not_started("Kafka")
        wanted = await parsed_body(request, DryRunRequest, bytes_max=BODY_BYTES_MAX, cure="Send {records: [...]}.")
        if unread := {record.topic for record in wanted.records} - active.topics:
            errors = {"records.topic": f"this service does not read {len(unread)} of them"}
            raise unprocessable(errors, f"Send records of {', '.join(sorted(active.topics))}.")
        now = datetime.now(UTC)
        records = [
            RawRecord(
                Position(r.topic, -1, offset),
                now.replace(microsecond=now.microsecond // 1000 * 1000),
                r.key.encode("utf-8", "surrogatepass") if r.key is not None else None,
                r.value.encode("utf-8", "surrogatepass"),
                (),
            )
            for offset, r in enumerate(wanted.records)
        ]
        async with bulkhead.place():
            outcome = await active.dry_run(records)
        causes = _causes(records, outcome)
        return JSONResponse({"results": [_result(record, outcome, causes) for record in records]})

    return Route("/internal/dry-run", answering(dry_run), methods=["POST"])


def _causes(records: Sequence[RawRecord], outcome: Outcome) -> list[Position]:
    """Give for each emitted event the record that brings it about.

    Where that is none of them, it is one that was parked, and the record before it has set it free.
    """
    asked = {record.position for record in records}
    causes: list[Position] = []
    for _, _, position in outcome.effects.emitted:
        causes.append(position if position in asked else (causes or [records[0].position])[-1])
    return causes


def _result(record: RawRecord, outcome: Outcome, causes: Sequence[Position]) -> dict[str, Any]:
    dead = next((d for d in outcome.dead if d.record.position == record.position), None)
    mark = outcome.effects.marks.get(record.position)
    verdict = "dead_letter" if dead else "duplicate" if mark == "duplicate" else "accepted"
    emitted = [
        {"topic": topic, "event": orjson.loads(encode(event))}
        for (topic, event, _), cause in zip(outcome.effects.emitted, causes, strict=True)
        if cause == record.position
    ]
    return {
        "verdict": verdict,
        "reason": dead.reason if dead else None,
        "detail": dead.detail if dead else None,
        "parked": mark == "parked",
        "emitted": emitted,
    }

"""`POST /internal/dry-run`: what records would do to this service, decided by the real handler and rolled back."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.events import encode
from shared.stream.processor import Outcome, Processor
from shared.stream.records import Position, RawRecord


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


def dry_run_route(processor: Callable[[], Processor | None]) -> Route:
    """The route; `processor` gives the one at work, or None while the service waits for its dependencies."""

    async def dry_run(request: Request) -> Response:
        active = processor()
        if active is None:
            return JSONResponse({"detail": "the service is not ready"}, status_code=503)
        try:
            wanted = DryRunRequest.model_validate_json(await request.body())
        except ValidationError as error:
            return JSONResponse({"detail": f"{error.error_count()} invalid fields"}, status_code=400)
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
        outcome = await active.dry_run(records)
        return JSONResponse({"results": [_result(record, outcome) for record in records]})

    return Route("/internal/dry-run", dry_run, methods=["POST"])


def _result(record: RawRecord, outcome: Outcome) -> dict[str, Any]:
    dead = next((d for d in outcome.dead if d.record.position == record.position), None)
    mark = outcome.effects.marks.get(record.position)
    verdict = "dead_letter" if dead else "duplicate" if mark == "duplicate" else "accepted"
    emitted = [
        {"topic": topic, "event": orjson.loads(encode(event))}
        for topic, event, position in outcome.effects.emitted
        if position == record.position
    ]
    return {
        "verdict": verdict,
        "reason": dead.reason if dead else None,
        "detail": dead.detail if dead else None,
        "parked": mark == "parked",
        "emitted": emitted,
    }

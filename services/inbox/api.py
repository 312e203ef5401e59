"""The inbox's HTTP paths. Reads see one snapshot; the only write is a human correction."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, get_args

import asyncpg
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.inbox import openapi, parameters, queries, views
from services.inbox.corrections import request_correction
from services.inbox.ledger import credits_at
from services.inbox.problems import not_found, unknown_folder
from services.inbox.queries import Place
from services.inbox.rates import response_rates
from services.inbox.receipt import assemble
from services.inbox.routing import EncodedRoute, anything_else, path_id
from services.inbox.validation import EVENT_BYTES_MAX, Validator
from shared.bodies import bounded_body
from shared.events import Choice, ThreadStatus
from shared.stream.service import Resources
from shared.templates import LOCALES, language_of, render

logger = logging.getLogger(__name__)

FOLDERS: Final[dict[str, ThreadStatus | None]] = {
    "awaiting-reply": "awaiting_reply",
    "accepted": "accepted",
    "declined": "declined",
    "all": None,
}


class JsonResponse(Response):
    """Plain JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Encode an answer."""
        return orjson.dumps(content)


class Api:
    """The endpoints."""

    def __init__(self, resources: Resources, validator: Validator) -> None:
        self._resources = resources
        self._validator = validator

    async def folder(self, request: Request) -> Response:
        """`GET /v1/seats/{seat_id}/folders/{folder}`."""
        seat_id, name = path_id(request, "seat_id"), path_id(request, "folder")
        if name not in FOLDERS:
            raise unknown_folder(name, FOLDERS)
        limit, after = parameters.limit(request), parameters.place(request)
        async with self._resources.connection() as connection:
            # One row more than is shown tells whether there is another page.
            rows = await queries.folder(connection, seat_id, status=FOLDERS[name], after=after, limit=limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        cursor = None if last is None else parameters.place_cursor(Place(last.last_inmail_at, last.thread_id))
        now = parameters.now()
        return _page([views.folder_item(row, now) for row in rows[:limit]], cursor)

    async def thread(self, request: Request) -> Response:
        """`GET /v1/threads/{thread_id}`."""
        thread_id = path_id(request, "thread_id")
        async with self._snapshot() as connection:
            thread = await queries.thread(connection, thread_id)
            if thread is None:
                raise not_found("thread", thread_id)
            facts = await queries.facts(connection, thread_id)
            corrections = await queries.corrections(connection, thread_id)
        return JsonResponse(views.thread_view(thread, facts, corrections))

    async def smart_replies(self, request: Request) -> Response:
        """`GET /v1/threads/{thread_id}/smart-replies`."""
        thread_id = path_id(request, "thread_id")
        async with self._resources.connection() as connection:
            thread = await queries.thread(connection, thread_id)
        if thread is None:
            raise not_found("thread", thread_id)
        locale = _locale(request.query_params.get("locale"), thread.locale)
        options = []
        for choice in get_args(Choice):
            template, text = render(choice, locale, thread.candidate_name)
            options.append({"choice": choice, "text": text, "template": template.model_dump(mode="json")})
        return JsonResponse({"selected": thread.draft_choice, "options": options})

    async def receipt(self, request: Request) -> Response:
        """`GET /v1/inmails/{inmail_id}/receipt`."""
        inmail_id = path_id(request, "inmail_id")
        async with self._snapshot() as connection:
            inmail = await queries.inmail(connection, inmail_id)
            entries = await queries.inmail_entries(connection, inmail_id)
            denial = await queries.denial(connection, inmail_id)
            if inmail is None and denial is None and not entries:
                raise not_found("InMail", inmail_id)
            facts = [] if inmail is None else await queries.facts(connection, inmail.thread_id)
        receipt = assemble(inmail, facts, entries, denial)
        return JsonResponse(views.receipt_view(inmail_id, inmail, receipt, entries, denial))

    async def credits(self, request: Request) -> Response:
        """`GET /v1/contracts/{contract_id}/credits`."""
        contract_id, as_of = path_id(request, "contract_id"), parameters.as_of(request)
        async with self._snapshot() as connection:
            postings, granted, expired = await queries.postings(connection, contract_id, as_of)
        return JsonResponse(
            views.credits_view(contract_id, as_of, credits_at(postings, granted=granted, expired=expired))
        )

    async def entries(self, request: Request) -> Response:
        """`GET /v1/contracts/{contract_id}/credits/entries`."""
        contract_id = path_id(request, "contract_id")
        limit, after_number = parameters.limit(request), parameters.number(request)
        async with self._resources.connection() as connection:
            rows = await queries.entries(connection, contract_id, after_number=after_number, limit=limit + 1)
        cursor = parameters.number_cursor(rows[limit - 1].entry_number) if len(rows) > limit else None
        return _page([views.entry_view(row) for row in rows[:limit]], cursor)

    async def response_rate(self, request: Request) -> Response:
        """`GET /v1/seats/{seat_id}/response-rate`."""
        seat_id, as_of = path_id(request, "seat_id"), parameters.as_of(request)
        async with self._resources.connection() as connection:
            months = await queries.months(connection, seat_id, as_of)
        return JsonResponse(views.rates_view(seat_id, as_of, response_rates(months)))

    async def correct(self, request: Request) -> Response:
        """`POST /v1/threads/{thread_id}/outcome`."""
        thread_id = path_id(request, "thread_id")
        wanted = await parameters.correction(request)
        async with self._resources.connection() as tx, tx.transaction():
            command_id, rows = await request_correction(tx, thread_id, wanted, parameters.now())
        try:
            await self._resources.publish(rows)
        except Exception as error:  # noqa: BLE001  it is committed, so it will be sent
            logger.warning("a command leaves with the next claim or sweep: %s", type(error).__name__)
        return JsonResponse({"command_id": command_id}, 202)

    async def validate(self, request: Request) -> Response:
        """`POST /v1/validate`."""
        return JsonResponse(await self._validator.validate(await bounded_body(request, EVENT_BYTES_MAX)))

    async def openapi(self, _: Request) -> Response:
        """`GET /openapi.json`."""
        return JsonResponse(openapi.DOCUMENT)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection whose statements all see the same instant."""
        async with (
            self._resources.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection


def routes(resources: Resources, validator: Validator | None = None) -> Sequence[Route]:
    """The service's HTTP paths."""
    if validator is None:
        validator = Validator(resources.settings)
        resources.closing.push_async_callback(validator.close)
    api = Api(resources, validator)
    return (
        EncodedRoute("/v1/seats/{seat_id}/folders/{folder}", api.folder, method="GET"),
        EncodedRoute("/v1/seats/{seat_id}/response-rate", api.response_rate, method="GET"),
        EncodedRoute("/v1/threads/{thread_id}", api.thread, method="GET"),
        EncodedRoute("/v1/threads/{thread_id}/smart-replies", api.smart_replies, method="GET"),
        EncodedRoute("/v1/threads/{thread_id}/outcome", api.correct, method="POST"),
        EncodedRoute("/v1/inmails/{inmail_id}/receipt", api.receipt, method="GET"),
        EncodedRoute("/v1/contracts/{contract_id}/credits", api.credits, method="GET"),
        EncodedRoute("/v1/contracts/{contract_id}/credits/entries", api.entries, method="GET"),
        EncodedRoute("/v1/validate", api.validate, method="POST"),
        EncodedRoute("/openapi.json", api.openapi, method="GET"),
        anything_else("/v1/{rest:path}"),
    )


def _page(items: list[views.Json], next_cursor: str | None) -> Response:
    return JsonResponse({"items": items, "next_cursor": next_cursor})


def _locale(*wanted: str | None) -> str | None:
    """The first of these language tags that smart replies are written in; None if there is none."""
    for tag in wanted:
        if tag and language_of(tag) in LOCALES:
            return tag
    return None

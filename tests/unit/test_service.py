"""What ends a service's consumer, and what ends the service."""

from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from shared.health import Health
from shared.problems import MEDIA_TYPE
from shared.settings import Settings
from shared.stream.service import ServiceProcess


def process_whose_consumer_ends(monkeypatch: pytest.MonkeyPatch, error: Exception) -> ServiceProcess:
    settings = Settings(retry_seconds_min=0.001)
    process = ServiceProcess(Mock(), settings, Mock(), Health(settings.progress_seconds_max))
    errors = [error]

    async def consume(self: ServiceProcess, *_: Any) -> None:
        if errors:
            raise errors.pop()
        self.stop()

    monkeypatch.setattr(ServiceProcess, "_consume", consume)
    return process


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InterfaceError("the underlying connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionResetError(),
        TimeoutError(),
        KafkaConnectionError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_new_consumer_starts_when_a_server_goes_away(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    await process_whose_consumer_ends(monkeypatch, error)._work(Mock(), Mock())


async def test_a_mistake_of_ours_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        await process_whose_consumer_ends(monkeypatch, KeyError("x"))._work(Mock(), Mock())


async def test_what_no_route_takes_is_a_problem_and_before_the_start_no_path_is_wrong() -> None:
    settings = Settings()
    process = ServiceProcess(Mock(), settings, Mock(), Health(settings.progress_seconds_max, waiting_for="Postgres"))
    request = Request({"type": "http", "method": "GET", "path": "/v1/contracts/c/credits", "headers": []})
    answers = [await process._refuse(request, HTTPException(404))]
    process._serving = True
    answers += [await process._refuse(request, HTTPException(status)) for status in (404, 405)]
    assert [answer.status_code for answer in answers] == [503, 404, 405]
    assert {answer.media_type for answer in answers} == {MEDIA_TYPE}
    assert b"waits for Postgres" in answers[0].body

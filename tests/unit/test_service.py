"""What ends a service's consumer, and what ends the service."""

from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError

from shared.health import Health
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

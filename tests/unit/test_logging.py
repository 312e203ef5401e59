"""Logs stay readable while a server is away."""

import logging

import pytest

from shared.logging import REPEAT_SECONDS_MIN, _Seldom


def line(name: str, place: int, *, at: float) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "client.py", place, "Unable to connect", None, None)
    made.created = at
    return made


@pytest.mark.parametrize("library", ["aiokafka", "aiokafka.consumer.fetcher", "asyncpg.pool"])
def test_a_library_repeats_itself_only_now_and_then(library: str) -> None:
    allowed = _Seldom().filter
    assert allowed(line(library, 1, at=1000.0))
    assert not allowed(line(library, 1, at=1000.0 + REPEAT_SECONDS_MIN - 1))
    assert allowed(line(library, 2, at=1001.0))
    assert allowed(line(library, 1, at=1000.0 + REPEAT_SECONDS_MIN))


def test_what_the_service_says_is_never_left_out() -> None:
    allowed = _Seldom().filter
    assert [allowed(line("shared.postgres", 1, at=1000.0)) for _ in range(3)] == [True] * 3

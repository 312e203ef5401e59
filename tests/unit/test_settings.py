"""Bounds that only make sense together."""

import pytest
from pydantic import ValidationError

from shared.settings import Settings


@pytest.mark.parametrize(
    ("pool", "lanes", "wanted", "places"), [(6, 2, 3, 3), (7, 4, 3, 2), (3, 2, 3, 1), (9, 2, 4, 4)]
)
def test_the_loop_keeps_connections_that_no_request_may_take(pool: int, lanes: int, wanted: int, places: int) -> None:
    settings = Settings(pool_connections_max=pool, lanes=lanes, http_connections_max=wanted)
    assert settings.http_places == places


@pytest.mark.parametrize("name", ["transaction_timeout_ms", "idle_in_transaction_timeout_ms", "lock_timeout_ms"])
def test_a_frozen_owner_lets_go_before_the_group_gives_its_partitions_away(name: str) -> None:
    limit = Settings().session_timeout_ms
    cause = f"INMAIL_{name.upper()} is {limit}, but must be below INMAIL_SESSION_TIMEOUT_MS "
    with pytest.raises(ValidationError, match=cause):
        Settings.model_validate({name: limit})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):  # Postgres would take it for no limit
        Settings.model_validate({name: 0})


def test_ids_are_remembered_for_longer_than_an_input_topic_keeps_their_records() -> None:
    Settings(inbox_days=31)
    with pytest.raises(ValidationError, match=r"INMAIL_INBOX_DAYS is 30, but must be above 30, .*: raise it"):
        Settings(inbox_days=30)

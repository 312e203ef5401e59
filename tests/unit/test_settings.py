"""Bounds that only make sense together."""

import pytest
from pydantic import ValidationError

from shared.settings import Settings


def test_the_loop_keeps_connections_that_no_request_may_take() -> None:
    Settings(pool_connections_max=7, lanes=3, http_connections_max=3)
    with pytest.raises(ValidationError, match=r"INMAIL_POOL_CONNECTIONS_MAX is 7, but must be at least 8: .* raise"):
        Settings(pool_connections_max=7, lanes=4, http_connections_max=3)

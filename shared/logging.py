"""Logs: one line an event on standard error, `key=value` after the message. Never a candidate's words or name."""

import logging
import os
import time

LIBRARIES = ("aiokafka", "asyncpg")
REPEAT_SECONDS_MIN = 10.0


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"


class _Seldom(logging.Filter):
    """Lets a client library repeat a line only now and then: while its server is away it writes a hundred a second.

    What the service itself says of the same, once a try, is not touched.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the place in the code that writes this line was silent for a while."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        place = record.pathname, record.lineno
        if record.created - self._said_at.get(place, 0.0) < REPEAT_SECONDS_MIN:
            return False
        self._said_at[place] = record.created
        return True


LEVEL_VARIABLE = "INMAIL_LOG_LEVEL"


def setup_logging(service: str) -> None:
    """Configure the root logger of a process; the level comes from the environment (default INFO)."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)s {service} %(name)s: %(message)s"))
    handler.addFilter(_Seldom())
    logging.basicConfig(level=os.environ.get(LEVEL_VARIABLE, "INFO").upper(), handlers=[handler], force=True)
    for chatty in ("aiokafka", "uvicorn", "kafka"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

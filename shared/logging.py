"""Logs: one line an event on standard error, `key=value` after the message. Never a candidate's words or name."""

import logging
import os
import time


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"


def setup_logging(service: str) -> None:
    """Configure the root logger of a process; the level comes from `INMAIL_LOG_LEVEL` (default INFO)."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)s {service} %(name)s: %(message)s"))
    logging.basicConfig(level=os.environ.get("INMAIL_LOG_LEVEL", "INFO"), handlers=[handler], force=True)
    for chatty in ("aiokafka", "uvicorn", "kafka"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

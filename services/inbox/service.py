"""Wiring of the inbox: everything that other services publish in, thread states and corrections out, HTTP on top.

Conversation and outcomes are keyed by thread_id and worked in one loop, so one process owns a thread. The thread states
are read back, so that a process that was frozen before it published cannot leave an older state as the newest.
"""

from services.inbox.api import routes
from services.inbox.projection import Projection
from shared.stream.processor import Read
from shared.stream.service import Resources, ServiceSpec
from shared.topics import CONVERSATION_EVENTS, CREDIT_EVENTS, NOTIFICATION_REQUESTS, OUTCOME_EVENTS, THREAD_STATES


def make_handler(resources: Resources) -> Projection:
    """Build the handler."""
    return Projection(resources.metrics)


SPEC = ServiceSpec(
    name="inbox",
    reads=(
        Read(CONVERSATION_EVENTS, dedupe=False),
        Read(OUTCOME_EVENTS, dedupe=False),
        Read(NOTIFICATION_REQUESTS, dedupe=False),
        Read(CREDIT_EVENTS, dedupe=False),
        Read(THREAD_STATES, dedupe=False),
    ),
    handler=make_handler,
    gather_ms=250,  # nobody waits for it within a blink
    routes=routes,
)

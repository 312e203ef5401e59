"""The registry of Kafka topics: name, key, event types, partitions, retention, writer and readers.

Everything that creates, reads or documents a topic takes its facts from here. `defects` checks what must
hold between the entries; a test runs it on `TOPICS`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

MESSAGING_EVENTS: Final = "inmail.messaging.events"
CONTRACT_EVENTS: Final = "inmail.contract.events"
PRIVACY_EVENTS: Final = "inmail.privacy.events"
CONVERSATION_EVENTS: Final = "inmail.conversation.events"
ACCOUNTING_FACTS: Final = "inmail.accounting.facts"
CLASSIFICATION_REQUESTS: Final = "inmail.classification.requests"
OUTCOME_EVENTS: Final = "inmail.outcome.events"
OUTCOME_COMMANDS: Final = "inmail.outcome.commands"
NOTIFICATION_REQUESTS: Final = "inmail.notification.requests"
CREDIT_EVENTS: Final = "inmail.credit.events"
THREAD_STATES: Final = "inmail.thread.states"
INSIGHT_WINDOWS: Final = "inmail.insight.windows"

SERVICES: Final = ("ingestion", "classification", "credits", "notification", "inbox", "insights")
UPSTREAM: Final = "upstream"
DOWNSTREAM: Final = "downstream"
OPERATORS: Final = "operators"

PARTITIONS: Final = 6
DEAD_LETTER_PARTITIONS: Final = 1

DAY_MS: Final = 24 * 60 * 60 * 1000
# Shorter than the 35 days for which a reader remembers event ids: no record can return after its id was forgotten.
EVENT_RETENTION_MS: Final = 30 * DAY_MS
TEXT_RETENTION_MS: Final = 7 * DAY_MS
WINDOW_RETENTION_MS: Final = 2 * DAY_MS
RETENTION_UNLIMITED_MS: Final = -1

UPSTREAM_VALUE_BYTES_MAX: Final = 256 * 1024
# An event caused by the largest upstream event repeats its text and adds fields, so what services write may be larger.
DERIVED_VALUE_BYTES_MAX: Final = 512 * 1024
# What is compressed below a topic's limit may be far above it once it is read; up to here it is kept as it was.
DEAD_LETTER_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `key` names the field whose value is the record key; `types` are the event types it carries."""

    name: str
    key: str
    types: tuple[str, ...]
    writer: str
    readers: tuple[str, ...]
    partitions: int = PARTITIONS
    retention_ms: int = EVENT_RETENTION_MS
    cleanup: Literal["delete", "compact"] = "delete"
    restricted: bool = False
    """Holds people's own words: nobody but the writer and the readers named here should be let read it."""

    @property
    def upstream(self) -> bool:
        """Whether another system writes it: its records are the roots of causal chains."""
        return self.writer == UPSTREAM

    @property
    def value_bytes_max(self) -> int:
        """The largest value, in bytes, that a reader of this topic accepts."""
        if not self.types:
            return DEAD_LETTER_BYTES_MAX
        return UPSTREAM_VALUE_BYTES_MAX if self.upstream else DERIVED_VALUE_BYTES_MAX


def dead_letters(service: str) -> str:
    """Return the name of the topic that holds what `service` could not process."""
    return f"inmail.{service}.dead-letters"


def _dead_letter_topic(service: str) -> Topic:
    upstream_reads = (UPSTREAM,) if service in {"ingestion", "credits"} else ()
    return Topic(
        name=dead_letters(service),
        key="the original key",
        types=(),
        writer=service,
        readers=(OPERATORS, *upstream_reads),
        partitions=DEAD_LETTER_PARTITIONS,
        retention_ms=TEXT_RETENTION_MS,
        restricted=True,
    )


_TOPICS: Final = (
    Topic(
        name=MESSAGING_EVENTS,
        key="thread_id",
        types=(
            "inmail.scheduled.v1",
            "inmail.sent.v1",
            "inmail.undelivered.v1",
            "inmail.withdrawn.v1",
            "reply.drafted.v1",
            "reply.sent.v1",
            "recruiter_message.sent.v1",
            "thread.followed.v1",
            "thread.unfollowed.v1",
            "thread.reassigned.v1",
        ),
        writer=UPSTREAM,
        readers=("ingestion",),
        restricted=True,
    ),
    Topic(
        name=CONTRACT_EVENTS,
        key="contract_id",
        types=(
            "contract.started.v1",
            "credits.refreshed.v1",
            "contract.ended.v1",
            "seat.assigned.v1",
            "seat.preferences_set.v1",
        ),
        writer=UPSTREAM,
        readers=("credits", "notification"),
    ),
    Topic(name=PRIVACY_EVENTS, key="candidate_id", types=("candidate.erased.v1",), writer=UPSTREAM, readers=SERVICES),
    Topic(
        name=CONVERSATION_EVENTS,
        key="thread_id",
        types=(
            "inmail.status_changed.v1",
            "reply.recorded.v1",
            "reply.draft_changed.v1",
            "thread.locked.v1",
            "thread.unlocked.v1",
            "follow_up.cancelled.v1",
            "thread.audience_changed.v1",
            "recruiter_message.accepted.v1",
            "recruiter_message.rejected.v1",
        ),
        writer="ingestion",
        readers=("notification", "inbox", "insights", UPSTREAM),
    ),
    Topic(
        name=ACCOUNTING_FACTS,
        key="contract_id",
        types=("inmail.status_changed.v1", "reply.recorded.v1"),
        writer="ingestion",
        readers=("credits",),
    ),
    Topic(
        name=CLASSIFICATION_REQUESTS,
        key="thread_id",
        types=("classification.requested.v1",),
        writer="ingestion",
        readers=("classification",),
        retention_ms=TEXT_RETENTION_MS,
        restricted=True,
    ),
    Topic(
        name=OUTCOME_EVENTS,
        key="thread_id",
        types=("outcome.decided.v1", "outcome.unchanged.v1", "outcome.correction_rejected.v1"),
        writer="classification",
        readers=("notification", "inbox", "insights", DOWNSTREAM),
    ),
    Topic(
        name=OUTCOME_COMMANDS,
        key="thread_id",
        types=("outcome.correction_requested.v1",),
        writer="inbox",
        readers=("classification",),
    ),
    Topic(
        name=NOTIFICATION_REQUESTS,
        key="seat_id",
        types=("notification.requested.v1", "notification.retracted.v1"),
        writer="notification",
        readers=("inbox", DOWNSTREAM),
    ),
    Topic(
        name=CREDIT_EVENTS,
        key="contract_id",
        types=("credit.posted.v1", "credit.denied.v1"),
        writer="credits",
        readers=("inbox", UPSTREAM, DOWNSTREAM),
    ),
    Topic(
        name=THREAD_STATES,
        key="thread_id",
        types=("thread.state.v1",),
        writer="inbox",
        readers=(UPSTREAM, DOWNSTREAM),
        retention_ms=RETENTION_UNLIMITED_MS,
        cleanup="compact",
    ),
    Topic(
        name=INSIGHT_WINDOWS,
        key="seat_id",
        types=("insight.window.v1",),
        writer="insights",
        readers=(DOWNSTREAM,),
        retention_ms=WINDOW_RETENTION_MS,
    ),
    *(_dead_letter_topic(service) for service in SERVICES),
)

TOPICS: Final[dict[str, Topic]] = {topic.name: topic for topic in _TOPICS}


def defects(topics: Iterable[Topic]) -> list[str]:
    """Say in words what is wrong between the given topics; an empty list means that the registry is sound."""
    topics = list(topics)
    found = [
        f"{topic.name}: partitions is {topic.partitions}, must be at least 1"
        for topic in topics
        if topic.partitions < 1
    ]
    found += [f"{topic.name}: nobody reads it" for topic in topics if not topic.readers]
    found += [
        f"{topic.name}: its writer reads it too"
        for topic in topics
        if topic.writer in topic.readers and not topic.upstream
    ]
    found += [f"{topic.name}: a type is listed twice" for topic in topics if len(set(topic.types)) < len(topic.types)]
    for one, other in combinations(topics, 2):
        found += _pair_defects(one, other)
    return found


def _pair_defects(one: Topic, other: Topic) -> list[str]:
    found = []
    if one.name == other.name:
        found.append(f"{one.name}: has two entries ({one.writer}, {other.writer}): one writer per topic")
    joining = set(one.readers) & set(other.readers) & set(SERVICES)
    if joining and one.key == other.key and one.partitions != other.partitions:
        found.append(
            f"{one.name} has {one.partitions} partitions and {other.name} {other.partitions}: "
            f"{', '.join(sorted(joining))} joins them by {one.key}, so they must be equal"
        )
    shared_types = set(one.types) & set(other.types)
    if shared_types and one.writer != other.writer:
        found.append(f"{', '.join(sorted(shared_types))}: written by both {one.writer} and {other.writer}")
    return found

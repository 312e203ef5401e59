from dataclasses import replace
from typing import Any

import pytest

from shared.events import CATALOGUE
from shared.topics import (
    ACCOUNTING_FACTS,
    CLASSIFICATION_REQUESTS,
    CONTRACT_EVENTS,
    CONVERSATION_EVENTS,
    CREDIT_EVENTS,
    DAY_MS,
    INSIGHT_WINDOWS,
    MESSAGING_EVENTS,
    NOTIFICATION_REQUESTS,
    OUTCOME_COMMANDS,
    OUTCOME_EVENTS,
    PRIVACY_EVENTS,
    SERVICES,
    THREAD_STATES,
    TOPICS,
    dead_letters,
    defects,
)

INBOX_MEMORY_DAYS = 35


def test_registry_is_sound() -> None:
    assert defects(TOPICS.values()) == []


def test_every_type_is_carried_and_every_carried_type_is_known() -> None:
    carried = {name for topic in TOPICS.values() for name in topic.types}
    assert carried == set(CATALOGUE)


@pytest.mark.parametrize(
    ("name", "key", "writer", "readers"),
    [
        (MESSAGING_EVENTS, "thread_id", "upstream", {"ingestion"}),
        (CONTRACT_EVENTS, "contract_id", "upstream", {"credits", "notification"}),
        (PRIVACY_EVENTS, "candidate_id", "upstream", set(SERVICES)),
        (CONVERSATION_EVENTS, "thread_id", "ingestion", {"notification", "inbox", "insights", "upstream"}),
        (ACCOUNTING_FACTS, "contract_id", "ingestion", {"credits"}),
        (CLASSIFICATION_REQUESTS, "thread_id", "ingestion", {"classification"}),
        (OUTCOME_EVENTS, "thread_id", "classification", {"notification", "inbox", "insights", "downstream"}),
        (OUTCOME_COMMANDS, "thread_id", "inbox", {"classification"}),
        (NOTIFICATION_REQUESTS, "seat_id", "notification", {"inbox", "downstream"}),
        (CREDIT_EVENTS, "contract_id", "credits", {"inbox", "upstream", "downstream"}),
        (THREAD_STATES, "thread_id", "inbox", {"upstream", "downstream"}),
        (INSIGHT_WINDOWS, "seat_id", "insights", {"downstream"}),
        (dead_letters("ingestion"), "the original key", "ingestion", {"operators", "upstream"}),
        (dead_letters("credits"), "the original key", "credits", {"operators", "upstream"}),
        (dead_letters("inbox"), "the original key", "inbox", {"operators"}),
    ],
)
def test_key_writer_and_readers(name: str, key: str, writer: str, readers: set[str]) -> None:
    topic = TOPICS[name]
    assert (topic.key, topic.writer, set(topic.readers)) == (key, writer, readers)


def test_every_service_has_its_dead_letters() -> None:
    assert {dead_letters(service) for service in SERVICES} <= set(TOPICS)
    assert dead_letters("credits") == "inmail.credits.dead-letters"


def test_retention() -> None:
    assert TOPICS[CLASSIFICATION_REQUESTS].retention_ms == 7 * DAY_MS
    assert TOPICS[dead_letters("inbox")].retention_ms == 7 * DAY_MS
    assert TOPICS[INSIGHT_WINDOWS].retention_ms == 2 * DAY_MS
    assert TOPICS[THREAD_STATES].cleanup == "compact"
    assert all(topic.cleanup == "delete" for topic in TOPICS.values() if topic.name != THREAD_STATES)
    assert all(topic.retention_ms < INBOX_MEMORY_DAYS * DAY_MS for topic in TOPICS.values())


def test_topics_with_peoples_words_are_restricted() -> None:
    restricted = {topic.name for topic in TOPICS.values() if topic.restricted}
    assert restricted == {MESSAGING_EVENTS, CLASSIFICATION_REQUESTS, *map(dead_letters, SERVICES)}


def test_a_derived_event_may_be_larger_than_its_cause() -> None:
    assert TOPICS[MESSAGING_EVENTS].value_bytes_max == 256 * 1024
    assert TOPICS[CLASSIFICATION_REQUESTS].value_bytes_max > TOPICS[MESSAGING_EVENTS].value_bytes_max


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        (ACCOUNTING_FACTS, {"partitions": 12}, "credits joins them by contract_id"),
        (OUTCOME_COMMANDS, {"partitions": 3}, "classification joins them by thread_id"),
        (CONVERSATION_EVENTS, {"partitions": 0}, "must be at least 1"),
        (ACCOUNTING_FACTS, {"writer": "credits", "readers": ("inbox",)}, "written by both"),
        (THREAD_STATES, {"readers": ()}, "nobody reads it"),
        (OUTCOME_EVENTS, {"readers": ("classification",)}, "its writer reads it too"),
        (THREAD_STATES, {"types": ("thread.state.v1", "thread.state.v1")}, "listed twice"),
    ],
)
def test_a_defect_is_found(name: str, change: dict[str, Any], complaint: str) -> None:
    changed = [replace(topic, **change) if topic.name == name else topic for topic in TOPICS.values()]
    assert any(complaint in line for line in defects(changed))


def test_a_second_writer_is_found() -> None:
    assert any("one writer per topic" in line for line in defects([*TOPICS.values(), TOPICS[CREDIT_EVENTS]]))

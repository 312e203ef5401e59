"""The AsyncAPI document of the system, made from the registry of topics and the catalogue of events."""

from typing import Any, Final

from shared.events.catalogue import CATALOGUE
from shared.events.event import STRUCTURED_CONTENT_TYPE
from shared.events.schema import schema_of
from shared.topics import TOPICS, Topic

Document = dict[str, Any]

_KAFKA_BINDING_VERSION: Final = "0.5.0"
_DEAD_LETTER: Final = "dead-letter"
_DEAD_LETTER_HEADERS: Final = {
    "dlq-reason": "Why the record could not be processed.",
    "dlq-detail": "The fields and kinds of error, never values.",
    "dlq-topic": "The topic that the record came from.",
    "dlq-partition": "Its partition there.",
    "dlq-offset": "Its offset there.",
    "dlq-first-seen": "When the broker took it.",
}


def document() -> Document:
    """Return the AsyncAPI 3 document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "inmail-responses",
            "version": "1.0.0",
            "description": "CloudEvents 1.0 on Kafka: read in structured and binary mode, written in structured mode. "
            "The record key is the event's subject. Readers ignore fields that they do not know.",
        },
        "defaultContentType": STRUCTURED_CONTENT_TYPE,
        "channels": {topic.name: _channel(topic) for topic in TOPICS.values()},
        "operations": dict(_operation(topic) for topic in TOPICS.values()),
        "components": {
            "messages": {
                **{type_name: _message(type_name) for type_name in CATALOGUE},
                _DEAD_LETTER: _dead_letter_message(),
            },
            "schemas": {type_name: _embedded(type_name) for type_name in CATALOGUE},
        },
    }


def _channel(topic: Topic) -> Document:
    configuration: Document = {"cleanup.policy": [topic.cleanup], "retention.ms": topic.retention_ms}
    return {
        "address": topic.name,
        "description": f"Keyed by {topic.key}. Written by {topic.writer}, read by {', '.join(topic.readers)}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in topic.types or (_DEAD_LETTER,)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": _KAFKA_BINDING_VERSION,
            }
        },
        "x-key": topic.key,
        "x-writer": topic.writer,
        "x-readers": list(topic.readers),
        "x-restricted": topic.restricted,
    }


def _operation(topic: Topic) -> tuple[str, Document]:
    action = "receive" if topic.upstream else "send"
    return f"{action}-{topic.name}", {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{topic.writer} writes {topic.name}",
    }


def _message(type_name: str) -> Document:
    return {
        "name": type_name,
        "title": type_name,
        "summary": schema_of(type_name)["description"],
        "contentType": STRUCTURED_CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{type_name}"},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": _KAFKA_BINDING_VERSION}},
    }


def _dead_letter_message() -> Document:
    return {
        "name": _DEAD_LETTER,
        "title": "Dead letter",
        "summary": "A record that could not be processed: its key and value as they came.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "required": list(_DEAD_LETTER_HEADERS),
            "properties": {
                name: {"type": "string", "description": description}
                for name, description in _DEAD_LETTER_HEADERS.items()
            },
        },
        "payload": {"description": "Any bytes."},
    }


def _embedded(type_name: str) -> Document:
    # AsyncAPI names the dialect itself, and the schema's place in the document is its identity.
    return {name: value for name, value in schema_of(type_name).items() if name not in {"$schema", "$id"}}

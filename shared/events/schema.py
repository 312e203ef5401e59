"""The JSON Schema of every event type, made from the models.

A schema describes the whole event in structured mode. Nested objects are written in place: a schema stands on its own,
without references, and so can be put into other documents.
"""

from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from shared.events.base import EventData
from shared.events.catalogue import CATALOGUE
from shared.events.readers import attributes_of
from shared.topics import TOPICS

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_of(type_name: str) -> Schema:
    """Return the JSON Schema of one event type."""
    data_class = CATALOGUE[type_name]
    properties: Schema = {}
    required = []
    for name, annotation, is_required in attributes_of(upstream=is_upstream(type_name)):
        properties[name] = _clean(TypeAdapter(annotation).json_schema())
        if is_required:
            required.append(name)
    properties["type"] = {"const": type_name}
    properties["data"] = _data_schema(data_class)
    return {
        "$schema": DIALECT,
        "$id": f"urn:inmail-responses:event:{type_name}",
        "title": type_name,
        "description": _description(data_class),
        "type": "object",
        "required": [*required, "type", "data"],
        "properties": properties,
    }


def is_upstream(type_name: str) -> bool:
    """Whether another system writes this type."""
    return any(topic.upstream for topic in TOPICS.values() if type_name in topic.types)


def _description(data_class: type[EventData]) -> str:
    return " ".join((data_class.__doc__ or "").split())


def _data_schema(data_class: type[EventData]) -> Schema:
    schema = data_class.model_json_schema(schema_generator=GenerateJsonSchema)
    definitions = schema.pop("$defs", {})
    cleaned: Schema = _clean(_inline(schema, definitions))
    cleaned.pop("description", None)  # it is the event's
    return cleaned


def _inline(node: Any, definitions: Schema) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].removeprefix("#/$defs/")], definitions)
    return {name: _inline(member, definitions) for name, member in node.items()}


def _clean(schema: Any) -> Any:
    """Drop the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned: Schema = {}
    for keyword, value in schema.items():
        if keyword == "properties":
            cleaned[keyword] = {name: _clean(member) for name, member in value.items()}
        elif keyword == "description":
            cleaned[keyword] = " ".join(value.split())
        elif keyword != "title":
            cleaned[keyword] = _clean(value) if keyword in {"items", "anyOf"} else value
    return cleaned

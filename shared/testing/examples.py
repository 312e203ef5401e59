"""Examples made from a schema alone: the smallest and the fullest document, and one for each value that it lists.

They are consistent as the envelope wants it: all texts are equal, and so are all instants, so the key is the subject
and the data's own time is the envelope's.
"""

from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final = "example"
INSTANT: Final = "2026-01-31T12:00:00.000Z"


def examples_of(schema: Schema) -> Iterator[Any]:
    """Yield documents that the schema allows; the first is the smallest, the second the fullest."""
    if schema.get("type") == "object":
        yield from _objects(schema)
    elif "anyOf" in schema:
        for alternative in schema["anyOf"]:
            yield from examples_of(alternative)
    elif schema.get("type") == "array":
        yield []
        yield list(examples_of(schema["items"]))
    else:
        yield from _scalars(schema)


def _objects(schema: Schema) -> Iterator[dict[str, Any]]:
    members = schema["properties"]
    choices = {name: list(examples_of(member)) for name, member in members.items()}
    smallest = {name: choices[name][0] for name in members if name in schema.get("required", ())}
    fullest = {
        name: next(choice for choice in reversed(found) if choice is not None) for name, found in choices.items()
    }
    yield smallest
    yield fullest
    for name, found in choices.items():
        yield from ({**fullest, name: choice} for choice in found)


def _scalars(schema: Schema) -> Iterator[Any]:
    if "const" in schema:
        yield schema["const"]
    elif "enum" in schema:
        yield from schema["enum"]
    elif "examples" in schema:
        yield from schema["examples"]
    elif schema.get("format") == "date-time":
        yield INSTANT
    else:
        yield from _plain(schema)


def _plain(schema: Schema) -> Iterator[Any]:
    match schema.get("type"):
        case "string":
            yield TEXT
        case "boolean":
            yield from (False, True)
        case "integer":
            yield from (schema.get("minimum", 0), schema.get("maximum", 1))
        case "number":
            yield from (schema.get("minimum", 0.0), schema.get("maximum", 1.5))
        case "null":
            yield None
        case other:
            raise ValueError(f"no example for a {other}: {schema}")

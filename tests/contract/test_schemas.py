"""The stored schemas: fresh, only growing, and understood by old and new readers alike."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared.events import CATALOGUE, STRUCTURED_HEADERS, Event, EventData, decode, encode, key_of
from shared.events.compatibility import incompatibilities
from shared.events.generate import EVENTS_DIRECTORY, SCHEMAS, main, refusals, stale
from shared.events.schema import Schema, schema_of
from shared.testing.examples import TEXT, examples_of
from shared.topics import TOPICS

STORED = {path.stem: json.loads(path.read_text()) for path in (EVENTS_DIRECTORY / SCHEMAS).glob("*.json")}
ASYNCAPI = json.loads((EVENTS_DIRECTORY / "asyncapi.json").read_text())
HOMES = [(name, topic.name) for topic in TOPICS.values() for name in topic.types]


def read(document: Schema, topic: str) -> Event[EventData]:
    return decode(json.dumps(document).encode(), key=TEXT.encode(), headers=STRUCTURED_HEADERS, topic=topic)


def test_every_type_has_a_stored_schema() -> None:
    assert set(STORED) == set(CATALOGUE)


def test_generated_files_are_fresh() -> None:
    assert stale(EVENTS_DIRECTORY) == []
    assert main(["--check"]) == 0


@pytest.mark.parametrize("name", sorted(STORED))
def test_stored_schema_only_grows(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(STORED[name])
    assert incompatibilities(STORED[name], schema_of(name)) == []


@pytest.mark.parametrize(("name", "topic"), HOMES)
def test_old_events_are_read_by_the_models(name: str, topic: str) -> None:
    documents = list(examples_of(STORED[name]))
    assert len(documents) > 2
    for document in documents:
        event = read(document, topic)
        assert event.type == name
        assert key_of(event.data, topic) == TEXT


@pytest.mark.parametrize(("name", "topic"), HOMES)
def test_new_events_are_read_with_the_stored_schema(name: str, topic: str) -> None:
    validator = jsonschema.Draft202012Validator(STORED[name])
    for document in examples_of(schema_of(name)):
        validator.validate(document)
        written = encode(read(document, topic))
        validator.validate(json.loads(written))
        assert b":null" not in written


@pytest.mark.parametrize(("name", "topic"), HOMES)
def test_an_event_of_a_grown_schema_is_read(name: str, topic: str) -> None:
    grown = copy.deepcopy(STORED[name])
    grown["properties"]["data"]["properties"]["added"] = {"type": "string"}
    assert incompatibilities(STORED[name], grown) == []
    fullest = list(examples_of(grown))[1]
    assert fullest["data"]["added"] == TEXT
    read(fullest, topic)


def changed(change: Callable[[Schema], None]) -> list[str]:
    schema = copy.deepcopy(STORED["reply.sent.v1"])
    change(schema["properties"]["data"])
    return incompatibilities(STORED["reply.sent.v1"], schema)


def remove(data: Schema) -> None:
    del data["properties"]["attachments"]
    data["required"].remove("attachments")


def rename(data: Schema) -> None:
    data["properties"]["body"] = data["properties"].pop("text")


def retype(data: Schema) -> None:
    data["properties"]["attachments"]["type"] = "string"


def add_required(data: Schema) -> None:
    data["properties"]["language"] = {"type": "string"}
    data["required"].append("language")


def require(data: Schema) -> None:
    data["required"].append("choice")


def relax(data: Schema) -> None:
    data["required"].remove("text")


def narrow_enum(data: Schema) -> None:
    data["properties"]["choice"]["anyOf"][0]["enum"].remove("interested")


def widen_enum(data: Schema) -> None:
    data["properties"]["choice"]["anyOf"][0]["enum"].append("maybe")


def narrow_bound(data: Schema) -> None:
    data["properties"]["attachments"]["maximum"] = 10


def bound(data: Schema) -> None:
    data["properties"]["text"]["maxLength"] = 10


def forbid_null(data: Schema) -> None:
    data["properties"]["in_reply_to"] = data["properties"]["in_reply_to"]["anyOf"][0]


def change_nested(data: Schema) -> None:
    del data["properties"]["template"]["anyOf"][0]["properties"]["locale"]


def make_list(data: Schema) -> None:
    data["properties"]["text"]["items"] = {"type": "string"}


def close(data: Schema) -> None:
    data["additionalProperties"] = False


@pytest.mark.parametrize(
    "change",
    [
        remove,
        rename,
        retype,
        add_required,
        require,
        relax,
        narrow_enum,
        widen_enum,
        narrow_bound,
        bound,
        forbid_null,
        change_nested,
        make_list,
        close,
    ],
)
def test_what_breaks_a_reader_is_detected(change: Callable[[Schema], None]) -> None:
    assert changed(change) != []


def test_a_changed_list_item_is_detected() -> None:
    schema = copy.deepcopy(STORED["seat.preferences_set.v1"])
    schema["properties"]["data"]["properties"]["channels"]["items"]["enum"].remove("push")
    assert incompatibilities(STORED["seat.preferences_set.v1"], schema) != []


def describe(data: Schema) -> None:
    data["properties"]["text"]["description"] = "What the candidate wrote."


def add_optional(data: Schema) -> None:
    data["properties"]["language"] = {"type": "string"}


def reorder(data: Schema) -> None:
    data["required"].reverse()
    data["properties"]["choice"]["anyOf"][0]["enum"].reverse()


@pytest.mark.parametrize("change", [describe, add_optional, reorder])
def test_what_breaks_nobody_is_allowed(change: Callable[[Schema], None]) -> None:
    assert changed(change) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copytree(EVENTS_DIRECTORY / SCHEMAS, tmp_path / SCHEMAS)
    shutil.copy(EVENTS_DIRECTORY / "asyncapi.json", tmp_path)
    return tmp_path


def test_generate_writes_what_is_missing_and_check_notices(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / SCHEMAS / "reply.sent.v1.json").unlink()
    (package / "asyncapi.json").write_text("{}")
    assert stale(package) == ["asyncapi.json", "schemas/reply.sent.v1.json"]
    assert main(["--check"], package) == 1
    assert "schemas/reply.sent.v1.json" in capsys.readouterr().err
    assert main([], package) == 0
    assert stale(package) == []


def test_generate_refuses_to_replace_what_readers_rely_on(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = package / SCHEMAS / "reply.sent.v1.json"
    stored = json.loads(path.read_text())
    stored["properties"]["data"]["properties"]["mood"] = {"type": "string"}
    path.write_text(json.dumps(stored))
    assert main([], package) == 1
    assert "reply.sent.v1: data.mood: removed or renamed" in capsys.readouterr().err
    assert json.loads(path.read_text()) == stored


def test_generate_refuses_to_forget_a_type(package: Path) -> None:
    (package / SCHEMAS / "reply.unsent.v1.json").write_text("{}")
    assert any("reply.unsent.v1" in line for line in refusals(package))
    assert main([], package) == 1


def resolve(reference: str) -> Any:
    node: Any = ASYNCAPI
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for member in node.values():
            yield from references(member)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def test_asyncapi_references_resolve() -> None:
    found = list(references(ASYNCAPI))
    assert len(found) > len(CATALOGUE)
    for reference in found:
        assert resolve(reference)


def test_asyncapi_describes_every_topic_and_type() -> None:
    assert ASYNCAPI["asyncapi"].startswith("3.")
    assert set(ASYNCAPI["channels"]) == set(TOPICS)
    assert set(ASYNCAPI["components"]["schemas"]) == set(CATALOGUE)
    for name, topic in TOPICS.items():
        channel = ASYNCAPI["channels"][name]
        assert channel["address"] == name
        assert set(channel["messages"]) == set(topic.types or ("dead-letter",))
        assert channel["bindings"]["kafka"]["partitions"] == topic.partitions
        assert channel["bindings"]["kafka"]["topicConfiguration"]["retention.ms"] == topic.retention_ms


def test_asyncapi_has_one_operation_per_topic_from_our_side() -> None:
    actions = {
        operation["channel"]["$ref"].removeprefix("#/channels/"): operation["action"]
        for operation in ASYNCAPI["operations"].values()
    }
    assert actions == {name: "receive" if topic.upstream else "send" for name, topic in TOPICS.items()}

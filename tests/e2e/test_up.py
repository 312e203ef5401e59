"""`inmail up` and the commands beside it, as an operator runs them: in processes of their own, on a real stack."""

import asyncio
import base64
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from deploy.commands.records import reader, records_between
from deploy.local.system import ROOT
from deploy.verifier import Target
from deploy.verifier.drain import drained
from services.classification.model import corpus
from services.classification.model.classifier import ARTEFACT, MANIFEST_FILE
from shared.testing import builders
from shared.testing.processes import none_left
from shared.topics import (
    CONTRACT_EVENTS,
    CREDIT_EVENTS,
    MESSAGING_EVENTS,
    NOTIFICATION_REQUESTS,
    OUTCOME_EVENTS,
    TOPICS,
)

_START_SECONDS_MAX = 120
_WAIT_SECONDS_MAX = 60
_SAID_CHARS_MAX = 4_000
_DERIVED = (OUTCOME_EVENTS, NOTIFICATION_REQUESTS, CREDIT_EVENTS)
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class Up:
    """A running `inmail up`, by the addresses it printed."""

    addresses: dict[str, Any]

    async def inmail(self, *arguments: str, expect: int = 0) -> str:
        """Run another command against it."""
        environment = os.environ | {
            "INMAIL_KAFKA_BOOTSTRAP": self.addresses["kafka"],
            "INMAIL_POSTGRES_DSN": self.addresses["postgres"],
        }
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", *arguments),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await done.communicate()
        assert done.returncode == expect, errors.decode()
        return output.decode()

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Publish one record as upstream would."""
        producer = AIOKafkaProducer(bootstrap_servers=self.addresses["kafka"])
        await producer.start()
        try:
            await producer.send_and_wait(topic, key=key, value=value, headers=headers)
        finally:
            await producer.stop()

    async def letters(self, service: str) -> list[dict[str, Any]]:
        """A service's dead letters."""
        return list(json.loads(await self.inmail("dlq", "list", "--service", service, "--json")))

    async def at_rest(self) -> None:
        """Wait until everything was read, and everything published and known to be."""
        target = Target(self.addresses["kafka"], self.addresses["postgres"], self.addresses["services"])
        await drained(target, seconds_max=_WAIT_SECONDS_MAX)

    async def published(self, *topics: str) -> list[dict[str, Any]]:
        """All events that stand on the topics, repeats included."""
        slots = [TopicPartition(topic, number) for topic in topics for number in range(TOPICS[topic].partitions)]
        async with reader(self.addresses["kafka"], client_id="test") as consumer:
            ends = await consumer.end_offsets(slots)
            parts = records_between(consumer, dict.fromkeys(slots, 0), ends)
            return [json.loads(record.value) async for _, records in parts for record in records]

    async def events_total(self, service: str) -> float:
        """How many events a service has counted, whatever became of them."""
        async with httpx.AsyncClient(base_url=self.addresses["services"][service]) as client:
            metrics = (await client.get("/metrics")).text
        (family,) = [each for each in text_string_to_metric_families(metrics) if each.name == "inmail_events"]
        return sum(sample.value for sample in family.samples)

    async def until(self, path: str, holds: Any) -> Any:
        """Ask the inbox until its answer is as wanted."""
        async with httpx.AsyncClient(base_url=self.addresses["services"]["inbox"]) as client:
            async with asyncio.timeout(_WAIT_SECONDS_MAX):
                while True:
                    answer = await client.get(path)
                    if answer.status_code == httpx.codes.OK and holds(answer.json()):
                        return answer.json()
                    await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def started(state: Path) -> AsyncIterator[Up]:
    """Run `inmail up` for the block and stop it as an operator does; when anything fails it is killed."""
    said = state.with_name(f"{state.name}.stderr")
    with said.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", "up", "--json", "--state", str(state)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    try:
        line = b""
        with suppress(TimeoutError):
            line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS_MAX)
        assert line, f"inmail up printed no addresses:\n{said.read_text()[-_SAID_CHARS_MAX:]}"
        yield Up(json.loads(line))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), _WAIT_SECONDS_MAX) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture(scope="module")
async def up(folder: Path) -> AsyncIterator[Up]:
    async with started(folder / "up") as running:
        yield running


async def answered_thread(up: Up, name: str) -> str:
    """A contract, a seat, an InMail and a smart reply: the main job."""
    contract, seat, thread = f"contract-{name}", f"seat-{name}", f"thread-{name}"
    for event in (
        builders.contract_started(contract_id=contract, at=builders.after(days=-1)),
        builders.seat_assigned(seat_id=seat, contract_id=contract, at=builders.after(days=-1)),
    ):
        key, value, _ = builders.record(event)
        await up.send(CONTRACT_EVENTS, key, value)
    for said in (
        builders.sent(inmail_id=f"inmail-{name}", thread_id=thread, contract_id=contract, seat_id=seat),
        builders.reply(reply_id=f"reply-{name}", thread_id=thread, choice="interested", text=""),
    ):
        key, value, _ = builders.record(said)
        await up.send(MESSAGING_EVENTS, key, value)
    return thread


async def test_a_reply_becomes_outcome_notification_and_credit(up: Up) -> None:
    thread = await answered_thread(up, "main")
    state = await up.until(f"/v1/threads/{thread}", lambda t: "accepted" in json.dumps(t))
    assert "accepted" in json.dumps(state)
    balance = await up.until("/v1/contracts/contract-main/credits", lambda c: c["returned"] == 1)
    assert balance["open"] == 0
    receipt = await up.until("/v1/inmails/inmail-main/receipt", lambda r: r["notifications"])
    (told,) = receipt["notifications"]
    assert (told["channel"], told["recipient"]["seat_id"]) == ("in_thread", "seat-main")
    (said,) = [event for event in await up.published(NOTIFICATION_REQUESTS) if event["id"] == told["id"]]
    assert said["data"]["text"] == (
        "Candidate Ada is interested in starting a conversation. Please follow up soon to continue the conversation."
    )


async def test_bad_input_is_listed_shown_and_sent_back(up: Up) -> None:
    await up.send(MESSAGING_EVENTS, b"k", b"{not json")
    async with asyncio.timeout(_WAIT_SECONDS_MAX):
        while not (letters := json.loads(await up.inmail("dlq", "list", "--json"))):
            pass  # starting the command takes long enough
    assert [x["reason"] for x in letters] == ["INVALID_JSON"]
    number = str(letters[0]["number"])
    assert "{not json" in await up.inmail("dlq", "show", "ingestion", number)
    assert "would send 1" in await up.inmail("dlq", "redrive", "--service", "ingestion", "--dry-run")
    assert "sent 1 back" in await up.inmail("dlq", "redrive", "--service", "ingestion", "--number", number)
    async with asyncio.timeout(_WAIT_SECONDS_MAX):
        while len(json.loads(await up.inmail("dlq", "list", "--json"))) < 2:
            pass
    assert "would send 1" in await up.inmail("dlq", "redrive", "--dry-run"), "what failed again is one record still"
    await up.inmail("dlq", "show", "ingestion", "999", expect=1)
    await up.inmail("dlq", "redrive", "--service", "ingestion", "--number", "999", expect=1)


async def test_a_record_of_nothing_holds_no_other_back_when_it_is_sent_back(up: Up) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=up.addresses["kafka"])
    await producer.start()
    try:
        nothing = producer.create_batch()
        nothing.append(timestamp=None, key=None, value=None)
        await (await producer.send_batch(nothing, CONTRACT_EVENTS, partition=0))
    finally:
        await producer.stop()
    await up.send(CONTRACT_EVENTS, b"k", b"{not json")

    async with asyncio.timeout(_WAIT_SECONDS_MAX):
        while len(await up.letters("credits")) < 2:
            pass
        redriven = json.loads(await up.inmail("dlq", "redrive", "--service", "credits", "--json"))["redriven"]
        assert len(redriven) == 2
        while len(await up.letters("credits")) < 4:
            pass


async def test_a_redriven_record_in_binary_mode_keeps_its_attributes(up: Up) -> None:
    """In binary mode an event's attributes are headers: without them a mended cause would not help."""
    reply = builders.reply(reply_id="binary", thread_id="thread-binary", text="Yes, please!")
    key, value, _ = builders.record(reply)
    attributes = {name: field for name, field in json.loads(value).items() if name not in ("data", "datacontenttype")}
    headers = [(f"ce_{name}", field.encode()) for name, field in attributes.items()]
    headers.append(("content-type", b"application/json"))
    await up.send(MESSAGING_EVENTS, b"another key", json.dumps(json.loads(value)["data"]).encode(), headers)

    async def letters() -> list[dict[str, Any]]:
        return [x for x in await up.letters("ingestion") if x["reason"] != "INVALID_JSON"]

    async def own_headers(number: int) -> dict[str, bytes]:
        shown = json.loads(await up.inmail("dlq", "show", "ingestion", str(number), "--json"))
        return {name: base64.b64decode(text) for name, text in shown["headers"] if not name.startswith("dlq-")}

    async with asyncio.timeout(_WAIT_SECONDS_MAX):
        while not (first := await letters()):
            pass
        number = first[0]["number"]
        assert "sent 1 back" in await up.inmail("dlq", "redrive", "--service", "ingestion", "--number", str(number))
        while len(again := await letters()) < 2:
            pass
    assert await own_headers(again[1]["number"]) == await own_headers(number) == dict(headers)
    assert key == b"thread-binary"


async def test_a_replay_of_a_topic_that_a_service_never_read_is_refused(up: Up) -> None:
    await up.inmail("replay", "--consumer", "inbox", "--topic", MESSAGING_EVENTS, "--from-oldest", expect=2)


async def test_a_replay_changes_nothing(up: Up) -> None:
    thread = await answered_thread(up, "replayed")
    entries = await up.until("/v1/contracts/contract-replayed/credits/entries", lambda c: "returned" in json.dumps(c))
    await up.at_rest()
    before = {event["id"] for event in await up.published(*_DERIVED)}
    for service in ("ingestion", "classification", "credits", "notification", "inbox"):
        counted = await up.events_total(service)
        moved = json.loads(await up.inmail("replay", "--consumer", service, "--from-oldest", "--json"))["moved"]
        assert {move["after"] for move in moved} == {0}
        again = sum(move["before"] - move["after"] for move in moved)
        async with asyncio.timeout(_WAIT_SECONDS_MAX):
            while await up.events_total(service) < counted + again:  # noqa: ASYNC110  it sends no word of it
                await asyncio.sleep(_POLL_SECONDS)
    await answered_thread(up, "after-replay")
    await up.until("/v1/contracts/contract-after-replay/credits", lambda c: c["returned"] == 1)
    await up.at_rest()
    after = await up.published(*_DERIVED)
    assert len({event["id"] for event in after}) == len(after)
    new = {event["subject"] for event in after if event["id"] not in before}
    assert new == {"contract-after-replay", "seat-after-replay", "thread-after-replay"}
    assert await up.until("/v1/contracts/contract-replayed/credits/entries", lambda _: True) == entries
    state = await up.until(f"/v1/threads/{thread}", lambda _: True)
    assert "accepted" in json.dumps(state)


async def test_r29_a_correction_posts_nothing_and_becomes_an_example_and_a_new_model_is_tried_in_the_shadow(
    up: Up, tmp_path: Path
) -> None:
    thread = await answered_thread(up, "taught")
    said = builders.reply(reply_id="reply-words", thread_id=f"{thread}-2", text="No thanks [/b], I am not interested.")
    sent = builders.sent(
        inmail_id="inmail-words", thread_id=f"{thread}-2", contract_id="contract-taught", seat_id="seat-taught"
    )
    for event in (sent, said):
        key, value, _ = builders.record(event)
        await up.send(MESSAGING_EVENTS, key, value)
    before = await up.until(f"/v1/threads/{thread}-2", lambda t: "declined" in json.dumps(t))
    await up.until("/v1/contracts/contract-taught/credits", lambda c: c["returned"] == 2)
    async with httpx.AsyncClient(base_url=up.addresses["services"]["inbox"]) as client:
        taken = await client.post(
            f"/v1/threads/{thread}-2/outcome", json={"outcome": "accepted", "corrected_by": "recruiter"}
        )
        assert taken.status_code == httpx.codes.ACCEPTED
    after = await up.until(f"/v1/threads/{thread}-2", lambda t: '"human"' in json.dumps(t))
    assert (after["state"]["locked"], after["can_reply"]) == (before["state"]["locked"], before["can_reply"])
    await answered_thread(up, "taught-later")
    await up.until("/v1/contracts/contract-taught-later/credits", lambda c: c["returned"] == 1)
    entries = await up.until("/v1/contracts/contract-taught/credits/entries", lambda _: True)
    assert sorted(entry["kind"] for entry in entries["items"]) == [
        "charged",
        "charged",
        "granted",
        "returned",
        "returned",
    ]

    (example,) = [json.loads(line) for line in (await up.inmail("corrections")).splitlines()]
    assert example == {
        "text": "No thanks [/b], I am not interested.",
        "label": "accept",
        "lang": example["lang"],
        "tags": ["corrected"],
        "author": "corrections",
        "split": "train",
    }
    assert await up.inmail("corrections", "--since", "2999-01-01") == ""
    (tmp_path / "corrected.jsonl").write_text(json.dumps(example))
    assert [e.text for e in corpus.read(tmp_path / "corrected.jsonl")] == [example["text"]]

    model = tmp_path / "never-declines"
    shutil.copytree(ARTEFACT, model)
    manifest = json.loads((model / MANIFEST_FILE).read_text())
    manifest["limits"]["decline_probability_min"] = 1.1
    (model / MANIFEST_FILE).write_text(json.dumps(manifest | {"model_version": "never-declines"}))
    report = json.loads(await up.inmail("shadow", str(model), "--json"))
    assert (report["texts"], report["outcomes_changed"], report["new"]) == (1, 1, "never-declines")
    assert [(c["text"], c["old"], c["new"]) for c in report["samples"]] == [(example["text"], "decline", "accept")]
    assert json.loads(await up.inmail("shadow", str(model), "--json", "--since", "2999-01-01"))["texts"] == 0
    assert "1 of 1 outcomes would change" in await up.inmail("shadow", str(model))
    await up.inmail("shadow", str(tmp_path), expect=1)


async def test_data_is_kept_and_no_process_is_left(folder: Path) -> None:
    async with none_left(), started(folder / "state") as up:
        thread = await answered_thread(up, "kept")
        await up.until(f"/v1/threads/{thread}", lambda t: "accepted" in json.dumps(t))
    assert (folder / "state" / "postgres" / "pgdata").exists(), "it lies elsewhere, where nobody removes it"
    async with none_left(), started(folder / "state") as up:
        await up.until(f"/v1/threads/{thread}", lambda t: "accepted" in json.dumps(t))

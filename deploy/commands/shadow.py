"""`inmail shadow`: a new model beside the one at work, over what really came in."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.table import Table
from rich.text import Text

from deploy.commands.records import reader, records_between
from deploy.commands.stack import kafka_address, kafka_option
from deploy.commands.terminal import json_option, output
from deploy.local.errors import StackError
from deploy.local.servers import reaching
from services.classification.model.classifier import ARTEFACT, ArtefactError, Classifier
from services.classification.shadow import Shadow
from shared.events import ClassificationRequestedV1, InvalidRecordError, decode
from shared.topics import CLASSIFICATION_REQUESTS, PARTITIONS

_SHOWN_CHARS_MAX = 200


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--old", type=click.Path(exists=True, file_okay=False, path_type=Path), default=ARTEFACT, hidden=True)
@click.option("--since", type=click.DateTime(), help="From this time on, UTC [default: all that the broker holds].")
@click.option("--until", type=click.DateTime(), help="Before this time, UTC [default: now].")
@click.option(
    "--samples", type=click.IntRange(min=0), default=20, help="Show so many texts whose outcome would change."
)
@json_option
@kafka_option
def command(
    *,
    model: Path,
    old: Path,
    since: datetime | None,
    until: datetime | None,
    samples: int,
    as_json: bool,
    kafka: str | None,
) -> None:
    """Let the model in folder MODEL decide every reply that was to be classified, and say what would change.

    Nothing is published and nothing stored. The samples are people's words.
    """
    bootstrap = kafka_address(kafka)
    try:
        shadow = Shadow(Classifier.load(old), Classifier.load(model), samples_max=samples)
    except ArtefactError as error:
        raise StackError(str(error), "name a folder that `make train` has written.") from error
    with reaching(kafka=bootstrap):
        asyncio.run(_run(shadow, bootstrap, _milliseconds(since), _milliseconds(until)))
    if as_json:
        click.echo(json.dumps(report(shadow)))
    else:
        _show(shadow)


def report(shadow: Shadow) -> dict[str, object]:
    """Give the comparison as plain data."""
    return {
        "old": shadow.old.version,
        "new": shadow.new.version,
        "texts": shadow.texts,
        "outcomes_changed": shadow.changed,
        "labels": [{"old": old, "new": new, "texts": count} for (old, new), count in sorted(shadow.labels.items())],
        "confirmations": [
            {"old": old, "new": new, "texts": count} for (old, new), count in sorted(shadow.confirmations.items())
        ],
        "samples": [
            {"text": c.text, "old": c.old.label, "new": c.new.label, "confidence": [c.old.confidence, c.new.confidence]}
            for c in shadow.changes
        ],
    }


def _show(shadow: Shadow) -> None:
    click.echo(f"old {shadow.old.version}\nnew {shadow.new.version}")
    share = f" ({shadow.changed / shadow.texts:.1%})" if shadow.texts else ""
    click.echo(f"{shadow.changed} of {shadow.texts} outcomes would change{share}")
    for (was, would), count in sorted(shadow.labels.items()):
        if was != would:
            click.echo(f"  {was} -> {would}: {count}")
    asked, ask = (sum(n for key, n in shadow.confirmations.items() if key[side]) for side in (0, 1))
    click.echo(f"asking for confirmation: {asked} before, {ask} after")
    if not shadow.changes:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("old", "new", "reply"):
        table.add_column(heading)
    for c in shadow.changes:
        table.add_row(
            f"{c.old.label} {c.old.confidence:.2f}",
            f"{c.new.label} {c.new.confidence:.2f}",
            Text(" ".join(c.text.split())[:_SHOWN_CHARS_MAX]),  # words of people are no markup
        )
    output().print(table)


async def _run(shadow: Shadow, bootstrap: str, since_ms: int | None, until_ms: int | None) -> None:
    """Compare the texts of a range of the topic, by the broker's timestamps."""
    slots = [TopicPartition(CLASSIFICATION_REQUESTS, number) for number in range(PARTITIONS)]
    async with reader(bootstrap, client_id="inmail-shadow") as consumer:
        ends = await consumer.end_offsets(slots)
        ends |= await _places(consumer, slots, until_ms)
        starts = await consumer.beginning_offsets(slots)
        starts |= await _places(consumer, slots, since_ms, otherwise=ends)
        async for _, records in records_between(consumer, starts, ends):
            shadow.add(text for r in records if (text := _text_of(r.value, r.key, tuple(r.headers))))


async def _places(
    consumer: AIOKafkaConsumer,
    slots: list[TopicPartition],
    at_ms: int | None,
    otherwise: dict[TopicPartition, int] | None = None,
) -> dict[TopicPartition, int]:
    """Offsets of the first records from that time on; where there is none, what `otherwise` says."""
    if at_ms is None:
        return {}
    found = await consumer.offsets_for_times(dict.fromkeys(slots, at_ms))
    known = {slot: place.offset for slot, place in found.items() if place is not None}
    return (otherwise or {}) | known


def _text_of(value: bytes | None, key: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> str | None:
    """The text of a request that the model decides; None for a choice, and for what is no event."""
    try:
        data = decode(value, key=key, headers=headers, topic=CLASSIFICATION_REQUESTS).data
    except InvalidRecordError:
        return None
    return data.text if isinstance(data, ClassificationRequestedV1) and not data.choice else None


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)

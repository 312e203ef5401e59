"""`inmail dlq`: what the services could not process; look at it, and send it back once its cause is mended."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import get_args

import click
from aiokafka import AIOKafkaProducer, TopicPartition
from rich.table import Table

from deploy.commands.records import reader, records_between
from deploy.commands.stack import kafka_address, kafka_option
from deploy.commands.terminal import json_option, output
from deploy.local.servers import reaching
from shared.events import Reason
from shared.stream.records import LEFT_OUT_HEADER, REDRIVE_HEADER, Header
from shared.topics import DEAD_LETTER_BYTES_MAX, SERVICES, dead_letters

_SHOWN_BYTES_MAX = 2_000
_DLQ_PREFIX = "dlq-"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it stands on its topic; `number` is its offset there."""

    service: str
    number: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    first_seen: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def complete(self) -> bool:
        """Whether it holds the original record, which was not too large for a letter."""
        return LEFT_OUT_HEADER not in dict(self.headers)

    @property
    def own_headers(self) -> tuple[Header, ...]:
        """The record's, without those of the letter: in binary mode an event's attributes."""
        return tuple(header for header in self.headers if not header[0].startswith(_DLQ_PREFIX))


service_option = click.option("--service", type=click.Choice(SERVICES), help="Only the dead letters of this service.")
reason_option = click.option("--reason", type=click.Choice(get_args(Reason)), help="Only those with this reason.")


@click.group()
def command() -> None:
    """List, show and redrive dead letters."""


@command.command("list")
@service_option
@reason_option
@json_option
@kafka_option
def list_letters(*, service: str | None, reason: str | None, as_json: bool, kafka: str | None) -> None:
    """Count the dead letters and list them, newest last; contents are not shown."""
    bootstrap = kafka_address(kafka)
    with reaching(kafka=bootstrap):
        letters = asyncio.run(_read(bootstrap, service, reason, with_bytes=False))
    if as_json:
        hidden = {"key", "value", "headers"}
        click.echo(json.dumps([{k: v for k, v in asdict(x).items() if k not in hidden} for x in letters]))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "number", "reason", "detail", "from", "first seen"):
        table.add_column(heading)
    for x in letters:
        table.add_row(
            x.service, str(x.number), x.reason, x.detail, f"{x.topic}[{x.partition}]@{x.offset}", x.first_seen
        )
    output().print(table)
    counts = Counter(x.reason for x in letters)
    click.echo(f"{len(letters)} dead letters" + "".join(f", {n} {reason}" for reason, n in counts.most_common()))


@command.command("show")
@click.argument("service", type=click.Choice(SERVICES))
@click.argument("number", type=int)
@json_option
@kafka_option
def show_letter(*, service: str, number: int, as_json: bool, kafka: str | None) -> None:
    """Show one dead letter with its original bytes: they may hold people's words."""
    bootstrap = kafka_address(kafka)
    with reaching(kafka=bootstrap):
        letters = asyncio.run(_read(bootstrap, service, None))
    letter = _only(letters, number)
    if as_json:
        readable = asdict(letter) | {
            "encoding": "base64",
            "key": _base64(letter.key),
            "value": _base64(letter.value),
            "headers": [[name, _base64(text)] for name, text in letter.headers],
        }
        click.echo(json.dumps(readable))
        return
    click.echo(f"{letter.reason}: {letter.detail}")
    click.echo(f"from {letter.topic}[{letter.partition}]@{letter.offset}, first seen {letter.first_seen}")
    click.echo(f"key   {letter.key!r}")
    value = letter.value
    if not letter.complete:
        click.echo("value left where it came from: too large for a dead letter")
        return
    if value is None:
        click.echo("value none")
        return
    click.echo(f"value {len(value)} bytes")
    click.echo(value[:_SHOWN_BYTES_MAX].decode("utf-8", "backslashreplace"))


@command.command("redrive")
@service_option
@reason_option
@click.option("--number", type=int, multiple=True, help="Only this number (with --service); may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@json_option
@kafka_option
def redrive_letters(
    *, service: str | None, reason: str | None, number: tuple[int, ...], dry_run: bool, as_json: bool, kafka: str | None
) -> None:
    """Send dead letters back to where they came from, with their original bytes and key.

    What failed again after an earlier redrive is there twice, and is sent once.
    """
    if number and service is None:
        raise click.UsageError("--number counts within one service: name it with --service")
    bootstrap = kafka_address(kafka)
    with reaching(kafka=bootstrap):
        sent = asyncio.run(_redrive(bootstrap, service, reason, number, dry_run=dry_run))
    if as_json:
        click.echo(
            json.dumps({"dry_run": dry_run, "redriven": [{"service": x.service, "number": x.number} for x in sent]})
        )
        return
    counts = Counter(x.topic for x in sent)
    for topic, count in counts.items():
        click.echo(f"{'would send' if dry_run else 'sent'} {count} back to {topic}")
    if not sent:
        click.echo("no dead letter matches")


async def _redrive(
    bootstrap: str, service: str | None, reason: str | None, numbers: Sequence[int], *, dry_run: bool
) -> list[Letter]:
    found = [x for x in await _read(bootstrap, service, reason) if x.complete and (not numbers or x.number in numbers)]
    missing = sorted(set(numbers) - {x.number for x in found})
    if missing:
        raise click.ClickException(
            f"nothing was sent: of {service}, {', '.join(map(str, missing))} cannot be; "
            "`inmail dlq list` shows what is kept, and `inmail dlq show` whether it was too large to be kept whole"
        )
    letters = list({(x.topic, x.key, x.value, x.own_headers): x for x in found}.values())
    if dry_run or not letters:
        return letters
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        client_id="inmail-dlq-redrive",
        acks="all",
        enable_idempotence=True,
        compression_type="gzip",  # what is larger than its topic takes came in compressed
        max_request_size=2 * DEAD_LETTER_BYTES_MAX,
    )
    try:
        await producer.start()
        for x in letters:
            batch = producer.create_batch()  # `send` takes no record that has neither key nor value
            batch.append(timestamp=None, key=x.key, value=x.value, headers=[*x.own_headers, (REDRIVE_HEADER, b"1")])
            await (await producer.send_batch(batch, x.topic, partition=x.partition))
    finally:
        await producer.stop()
    return letters


async def _read(bootstrap: str, service: str | None, reason: str | None, *, with_bytes: bool = True) -> list[Letter]:
    """Every dead letter that is still kept, oldest first per service, with its bytes only where they are wanted."""
    names = {TopicPartition(dead_letters(name), 0): name for name in SERVICES if service in (None, name)}
    found: dict[str, list[Letter]] = {name: [] for name in names.values()}
    async with reader(bootstrap, client_id="inmail-dlq") as consumer:
        slots = list(names)
        starts, ends = await consumer.beginning_offsets(slots), await consumer.end_offsets(slots)
        async for slot, records in records_between(consumer, starts, ends):
            letters = [_letter(names[slot], r.offset, r.key, r.value, tuple(r.headers)) for r in records]
            wanted = [x for x in letters if reason in (None, x.reason)]
            found[names[slot]] += (
                wanted if with_bytes else [replace(x, key=None, value=None, headers=()) for x in wanted]
            )
    return [x for letters in found.values() for x in letters]


def _letter(service: str, number: int, key: bytes | None, value: bytes | None, headers: tuple[Header, ...]) -> Letter:
    said = {
        name.removeprefix(_DLQ_PREFIX): (text or b"").decode() for name, text in headers if name.startswith(_DLQ_PREFIX)
    }
    return Letter(
        service=service,
        number=number,
        reason=said["reason"],
        detail=said["detail"],
        topic=said["topic"],
        partition=int(said["partition"]),
        offset=int(said["offset"]),
        first_seen=said["first-seen"],
        key=key,
        value=value,
        headers=headers,
    )


def _base64(given: bytes | None) -> str | None:
    return None if given is None else base64.b64encode(given).decode()


def _only(letters: Sequence[Letter], number: int) -> Letter:
    found = next((x for x in letters if x.number == number), None)
    if found is None:
        raise click.ClickException(f"there is no dead letter {number}; `inmail dlq list` shows those that are kept")
    return found

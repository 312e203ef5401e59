"""`inmail up`: everything on this machine, until Ctrl-C or SIGTERM."""

import asyncio
import json
import signal
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from deploy.commands.stack import DESCRIPTION
from deploy.commands.terminal import output, progress_reporter
from deploy.local.stack import LocalStack
from deploy.local.system import ROOT, LocalSystem

STATE = ROOT / ".run" / "stack"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as JSON once everything is up.")
@click.option("--state", type=click.Path(path_type=Path), default=STATE, help="Where data is kept across runs.")
def command(*, as_json: bool, state: Path) -> None:
    """Start Kafka, Postgres and all services; Ctrl-C or SIGTERM stops all of it.

    INMAIL_KAFKA_BOOTSTRAP and INMAIL_POSTGRES_DSN name servers of your own instead.
    """
    asyncio.run(_up(state, as_json=as_json))


async def _up(state: Path, *, as_json: bool) -> None:
    console = Console(stderr=True)
    description = DESCRIPTION if state == STATE else state / DESCRIPTION.name
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    with progress_reporter(console) as report:
        system = LocalSystem(LocalStack(state, progress=report), progress=report)
        starting = asyncio.create_task(system.start())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, stopping, starting)
        try:
            await starting
        except asyncio.CancelledError:
            console.print("stopped before everything was up")
            return
    try:
        system.write_description(description)
        _show(system, description, as_json=as_json)
        failure = asyncio.create_task(system.stack.wait_failed())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({failure, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            raise failure.result()
        failure.cancel()
    finally:
        description.unlink(missing_ok=True)
        console.print("stopping ...")
        await system.stop()


def _stop(stopping: asyncio.Event, starting: "asyncio.Task[None]") -> None:
    stopping.set()
    if not starting.done():
        starting.cancel()


def _show(system: LocalSystem, description: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(json.loads(description.read_text())))
        return
    table = Table(title="InMail Responses is up", title_justify="left", show_header=False, box=None)
    table.add_row("Kafka", system.stack.kafka_bootstrap)
    table.add_row("Postgres", f"see {description}")
    for name, address in system.addresses.items():
        table.add_row(name, address.url)
    table.add_row("API", f"{system.addresses['inbox'].url}/openapi.json" if "inbox" in system.addresses else "-")
    output().print(table)
    click.echo("Ctrl-C stops everything; data is kept for the next start.")

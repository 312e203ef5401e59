"""`inmail demo`: real traffic through a real stack, told as it happened and checked by an independent verifier."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console

from deploy.commands.stack import DESCRIPTION
from deploy.commands.terminal import output, progress_reporter
from deploy.demo import report
from deploy.demo.play import Played, play
from deploy.local.errors import StackError
from deploy.local.stack import LocalStack
from deploy.local.system import LocalSystem
from deploy.traffic.scenario import Scenario
from deploy.verifier import NotDrainedError, Target

INMAILS_DEFAULT: Final = 2_400
INMAILS_MAX: Final = 200_000
SEED_DEFAULT: Final = 1
RATE_DEFAULT: Final = 2_500.0


@click.command()
@click.option("--inmails", type=click.IntRange(1, INMAILS_MAX), default=INMAILS_DEFAULT, help="About so many InMails.")
@click.option("--seed", type=int, default=SEED_DEFAULT, help="The same seed tells the same conversations.")
@click.option("--rate", type=click.FloatRange(min=1.0), default=RATE_DEFAULT, help="Records a second, at the most.")
@click.option("--keep", is_flag=True, help="Stay up afterwards, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the report.")
def command(*, inmails: int, seed: int, rate: float, keep: bool, as_json: bool) -> None:
    """Start everything on free ports with temporary data, play traffic through it, and check all that comes of it.

    Exits with 1 if a line of the account does not hold.
    """
    console = output(stderr=as_json)
    holds = asyncio.run(_until_interrupted(_demo(console, inmails, seed, rate, keep=keep, as_json=as_json)))
    if not holds:
        sys.exit(1)


async def _until_interrupted(work: Coroutine[Any, Any, bool]) -> bool:
    """Run the demo; the first Ctrl-C or SIGTERM cancels it, and what it started is stopped on the way out."""
    task = asyncio.ensure_future(work)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        return False


async def _demo(console: Console, inmails: int, seed: int, rate: float, *, keep: bool, as_json: bool) -> bool:
    began = time.monotonic()
    with progress_reporter(console) as progress:
        # Servers that the environment names hold other data: the account would be about that, too.
        system = LocalSystem(LocalStack(progress=progress, environ={}), progress=progress)
        await system.start()
    try:
        started = time.monotonic()
        scenario = Scenario.make(seed=seed, inmails=inmails, until=datetime.now(UTC).replace(microsecond=0))
        title = f"inmail demo, {inmails:,} InMails, seed {seed}"
        work = play(Target.of(system), scenario, console, title=title, records_per_second=rate)
        played = await _while_up(system, work)
        played.seconds = {"started": started - began, **played.seconds}
        _tell(played, console, as_json=as_json)
        if keep:
            await _keep(system, console)
    except NotDrainedError as error:
        raise StackError(
            f"The services did not come to rest: {error}.", f"read the logs in {system.stack.state_dir / 'logs'}."
        ) from error
    else:
        return played.holds
    finally:
        console.print("[dim]stopping ...[/]")
        await system.stop()


def _tell(played: Played, console: Console, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.document(played), ensure_ascii=False, indent=2))
    else:
        console.print()
        report.show(played, console)


async def _while_up(system: LocalSystem, work: Coroutine[Any, Any, Played]) -> Played:
    """Do the work, or say what broke down meanwhile."""
    working, failing = asyncio.create_task(work), asyncio.create_task(system.stack.wait_failed())
    try:
        await asyncio.wait({working, failing}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise failing.result()
        return working.result()
    finally:
        for task in (working, failing):
            task.cancel()
        await asyncio.gather(working, failing, return_exceptions=True)


async def _keep(system: LocalSystem, console: Console) -> None:
    """Stay up until Ctrl-C, or until something breaks down."""
    description = DESCRIPTION.with_name("demo.json") if DESCRIPTION.exists() else DESCRIPTION  # beside `inmail up`
    system.write_description(description)
    try:
        console.print(f"\n[bold]Still up[/]; addresses are in {description}. Ctrl-C stops everything.")
        console.print(f"  Kafka          {system.stack.kafka_bootstrap}", highlight=False)
        for name, address in system.addresses.items():
            console.print(f"  {name:<14} {address.url}", highlight=False)
        with contextlib.suppress(asyncio.CancelledError):
            raise await system.stack.wait_failed()
    finally:
        description.unlink(missing_ok=True)

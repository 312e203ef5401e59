"""What the commands share on a terminal: progress as bars where someone looks, as lines where it is logged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deploy.local.progress import ProgressCallback, ProgressEvent

PIPED_COLUMNS: Final = 160

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def output(*, stderr: bool = False) -> Console:
    """The console to print on: as wide as the terminal, and where there is none wide enough for what programs read."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=PIPED_COLUMNS)


@contextmanager
def progress_reporter(console: Console) -> Iterator[ProgressCallback]:
    """A callback for the stack's progress, drawn on `console` while the context is open."""
    if not console.is_terminal:
        yield lambda event: _line(console, event)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(event: ProgressEvent) -> None:
            if event.what not in tasks:
                tasks[event.what] = bars.add_task(event.what, total=event.total, amount="")
            bars.update(tasks[event.what], completed=event.done, total=event.total, amount=_amount(event))

        yield draw


def _line(console: Console, event: ProgressEvent) -> None:
    if event.done == 0:
        console.print(f"{event.what} ...")
    elif event.finished:
        console.print(f"{event.what}: done ({_amount(event)})")


def _amount(event: ProgressEvent) -> str:
    if event.unit == "bytes":
        return f"{event.done / 1e6:.0f} of {event.total / 1e6:.0f} MB"
    return f"{event.done} of {event.total}"

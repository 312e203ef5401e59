"""`inmail doctor`: can this machine run the stack, and if not, what is missing and how to get it."""

import asyncio
import json
import sys
from dataclasses import asdict

import click
from rich.table import Table

from deploy.commands.terminal import output
from deploy.local.doctor import Check, run_checks


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def command(*, as_json: bool) -> None:
    """Check Python, packages, disk, Java, Kafka's jars and Postgres' programs; exit 1 when something is missing."""
    checks = asyncio.run(run_checks())
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks]))
    else:
        _show(checks)
    sys.exit(0 if all(check.ok for check in checks) else 1)


def _show(checks: list[Check]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]FAILED[/]"
        table.add_row(mark, check.name, check.detail if check.ok else f"{check.cause}\nCure: {check.cure}")
    output().print(table)

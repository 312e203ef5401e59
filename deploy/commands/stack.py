"""How a command finds the running stack: by option, by environment, or by what `inmail up` has written."""

import json
import os
from pathlib import Path
from typing import Any

import click

from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE

DESCRIPTION = Path(__file__).resolve().parents[2] / ".run" / "stack.json"

kafka_option = click.option(
    "--kafka", metavar="HOST:PORT", help=f"The broker [default: {KAFKA_VARIABLE}, or the running stack]."
)
postgres_option = click.option(
    "--postgres",
    metavar="DSN",
    help=f"The database, as its administrator [default: {POSTGRES_VARIABLE}, or the running stack].",
)


def kafka_address(given: str | None) -> str:
    """The broker to talk to.

    Raises:
        click.ClickException: none was named and no stack is up.
    """
    return given or os.environ.get(KAFKA_VARIABLE) or str(_running()["kafka"])


def postgres_address(given: str | None) -> str:
    """The database to talk to, likewise."""
    return given or os.environ.get(POSTGRES_VARIABLE) or str(_running()["postgres"])


def _running() -> dict[str, Any]:
    try:
        description = json.loads(DESCRIPTION.read_text())
    except FileNotFoundError:
        message = "no stack is up here, and none was named: run `inmail up`, or give --kafka and --postgres"
        raise click.ClickException(message) from None
    assert isinstance(description, dict)  # noqa: S101  written by `inmail up`
    return description

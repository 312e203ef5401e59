"""`inmail classify`: the model on standard input."""

import sys

import click

from services.classification.cli import BadLineError, classify_jsonl


@click.command()
@click.option("--json", is_flag=True, expose_value=False, help="As it is without: JSON Lines.")
def command() -> None:
    """Read JSON Lines {id, text}; write label, confidence, needs_confirmation, signals, model_version, in order."""
    if sys.stdin is None:
        raise click.ClickException("standard input is closed: give JSON Lines {id, text}.")
    try:
        classify_jsonl(click.get_binary_stream("stdin"), click.get_binary_stream("stdout"))
    except BadLineError as error:
        raise click.ClickException(str(error)) from error

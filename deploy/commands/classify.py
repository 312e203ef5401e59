"""`inmail classify`: the model on standard input."""

import sys

import click

from services.classification.cli import BadLineError, classify_jsonl


@click.command()
def command() -> None:
    """Read JSON Lines {id, text}; write label, confidence, needs_confirmation, signals, model_version, in order."""
    try:
        classify_jsonl(click.get_text_stream("stdin", encoding="utf-8"), sys.stdout)
    except BadLineError as error:
        raise click.UsageError(str(error)) from error

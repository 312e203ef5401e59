"""The command `inmail`: each subcommand is a module of `deploy.commands`, imported only when it runs."""

import importlib
import sys
from importlib.util import find_spec

import click

COMMANDS = {
    "up": "Start everything on this machine and keep it up until Ctrl-C",
    "demo": "Play real traffic through a real stack, show what happened and verify it",
    "classify": "Classify replies: JSON Lines {id, text} in, JSON Lines out",
    "shadow": "Let a new model decide what came in, and say which outcomes would change",
    "corrections": "Write what humans corrected as examples to train on: JSON Lines out",
    "doctor": "Check that this machine can run the stack",
    "dlq": "List, show and redrive dead letters",
    "replay": "Set the stored position of a service back",
    "topics": "Show the topics, and create those that are missing",
    "bench": "Measure throughput, latency and memory",
}
PROBLEM_EXIT_CODE = 1
VERSION = "0.1.0"
"""That of pyproject.toml, which the container image does not hold: there the project is not installed."""


class _LazyGroup(click.Group):
    """Knows its commands without importing them: `inmail classify` should not load Kafka."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_present())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _present():
            return None
        command = importlib.import_module(f"deploy.commands.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101  a slip of ours, not of the user
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_present().items()))


def _present() -> dict[str, str]:
    """The commands of this installation: a container has none that start or test a stack on this machine."""
    return {name: text for name, text in COMMANDS.items() if find_spec(f"deploy.commands.{name}") is not None}


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION)
def cli() -> None:
    """InMail Responses: what candidates reply becomes outcomes, notifications, credits and an awaiting-reply folder."""


def main() -> None:
    """Run the command; exit codes are 0, 1 (failed) and 2 (usage)."""
    from deploy.local.errors import StackError  # noqa: PLC0415  what needs no server starts without it

    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except StackError as error:
        click.echo(f"{error.cause}\nCure: {error.cure}", err=True)
        sys.exit(PROBLEM_EXIT_CODE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(PROBLEM_EXIT_CODE)


if __name__ == "__main__":
    main()

"""The command `inmail`: bad options, odd streams, commands that are not installed, class archives that it leaves."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from deploy import cli
from deploy.commands import classify, dlq
from deploy.local.java import ARCHIVES_MAX, JavaProgram
from deploy.local.system import ROOT


def test_a_container_lists_no_command_that_it_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name.endswith(".doctor") else object())
    context = click.Context(cli.cli)
    assert set(cli.COMMANDS) - set(cli.cli.list_commands(context)) == {"doctor"}
    assert cli.cli.get_command(context, "doctor") is None
    assert cli.cli.get_command(context, "topics") is not None


def test_the_version_is_known_where_the_project_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert CliRunner().invoke(cli.cli, ["--version"]).output.endswith(f" {version}\n")


def test_checkouts_leave_each_other_their_class_archives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = JavaProgram(())
    folder = program.archive.parent
    folder.mkdir(parents=True)
    for age in range(8):
        (folder / f"{age}.jsa").touch()
        os.utime(folder / f"{age}.jsa", (1_000 - age, 1_000 - age))
    program._forget_others()
    assert {path.stem for path in folder.glob("*.jsa")} == {str(age) for age in range(ARCHIVES_MAX - 1)}


@pytest.mark.parametrize("name", ["list", "redrive"])
def test_a_reason_that_no_dead_letter_has_is_an_error(name: str) -> None:
    refused = CliRunner().invoke(dlq.command, [name, "--reason", "NOPE"])
    assert refused.exit_code == 2
    assert "INVALID_JSON" in refused.output


def test_classify_writes_utf_8_whatever_the_terminal_s_encoding() -> None:
    line = json.dumps({"id": "ü", "text": "no"}, ensure_ascii=False).encode()
    program = [sys.executable, "-c", "from deploy.cli import main; main()", "classify"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    ended = subprocess.run(program, input=line, env=environment, stdout=subprocess.PIPE, check=True)  # noqa: S603  ours
    assert json.loads(ended.stdout.decode("utf-8"))["id"] == "ü"


def test_classify_says_that_its_input_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert classify.command.callback is not None
    with pytest.raises(click.ClickException, match="closed"):
        classify.command.callback()

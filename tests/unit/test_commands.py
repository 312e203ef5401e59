"""The command `inmail` where some of its commands are not installed, and the class archives that it leaves."""

import os
from pathlib import Path

import click
import pytest

from deploy import cli
from deploy.local.java import ARCHIVES_MAX, JavaProgram


def test_a_container_lists_no_command_that_it_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name.endswith(".doctor") else object())
    context = click.Context(cli.cli)
    assert set(cli.COMMANDS) - set(cli.cli.list_commands(context)) == {"doctor"}
    assert cli.cli.get_command(context, "doctor") is None
    assert cli.cli.get_command(context, "topics") is not None


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

"""The documents hold: links lead somewhere, and commands, paths, topics, types and settings they name exist."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from deploy.cli import COMMANDS, cli
from deploy.local.maven import REPOSITORY_VARIABLE
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE
from services.inbox.openapi import DOCUMENT
from shared.events import CATALOGUE
from shared.logging import LEVEL_VARIABLE
from shared.settings import Settings
from shared.topics import SERVICES, TOPICS, dead_letters

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
MAKEFILE = ROOT / "Makefile"
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
)

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```.*?^```|^(?: {4}.*\n)+|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_TARGET = re.compile(r"^([a-z]+):.*## ", re.MULTILINE)
_INVOKED = re.compile(r"(?:^|[\s|])(?:\.venv/bin/)?inmail +(?!=)([^\n#`]*)", re.MULTILINE)
_FILE = re.compile(r"`((?:\.ci|services|shared|deploy|tests|docs)/[\w./-]+)`")
_TYPE = re.compile(r"\b[a-z_]+\.[a-z_]+\.v\d+\b")
_TOPIC = re.compile(r"\binmail\.[a-z]+\.[a-z-]+\b(?!\.v\d)")
_SETTING = re.compile(r"\bINMAIL_[A-Z_]*[A-Z]\b")
_HTTP_PATH = re.compile(r"/v1/[\w/{}.-]+")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def code_of(document: Path) -> str:
    """The document's code blocks and code spans, one after the other."""
    return "\n".join(found.strip("`") for found in _CODE.findall(document.read_text()))


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    targets = _LINK.findall(_FENCED.sub("", document.read_text()))
    assert [target for target in targets if "://" not in target and is_broken(document, target)] == []


def is_broken(document: Path, target: str) -> bool:
    path, _, heading = target.partition("#")
    file = document.parent / path if path else document
    if not file.exists():
        return True
    return bool(heading) and heading not in {anchor(text) for text in _HEADING.findall(file.read_text())}


def anchor(heading: str) -> str:
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def make_targets() -> frozenset[str]:
    return frozenset(_TARGET.findall(MAKEFILE.read_text()))


@each_document
def test_make_targets_exist(document: Path) -> None:
    named = set(re.findall(r"(?:^|\s)make +([a-z]+)", code_of(document), re.MULTILINE))
    assert named - make_targets() == set()


def test_the_readme_lists_every_make_target() -> None:
    listed = set(re.findall(r"^\| `make ([a-z]+)` \|", README.read_text(), re.MULTILINE))
    assert listed == make_targets() - {"help"}


@each_document
def test_commands_exist_with_their_options(document: Path) -> None:
    assert [line for line in invocations(document) if not is_known(shlex.split(line))] == []


def invocations(document: Path) -> Iterator[str]:
    """What follows `inmail` wherever code names it."""
    for line in _INVOKED.findall(code_of(document)):
        yield re.split(r"[<>|]", line)[0].strip()


def is_known(words: list[str]) -> bool:
    """Whether a command line names commands and options that exist; the values are not looked at."""
    if not words or words[0] not in COMMANDS:
        return False
    command: click.Command = cli
    context = click.Context(command)
    for word in words:
        if isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return False
            command = found
    known = {option for parameter in command.params for option in parameter.opts}
    return {word for word in words if word.startswith("--")} <= known


@each_document
def test_files_named_in_code_exist(document: Path) -> None:
    assert [name for name in _FILE.findall(document.read_text()) if not (ROOT / name).exists()] == []


@each_document
def test_event_types_and_topics_exist(document: Path) -> None:
    text = document.read_text()
    assert set(_TYPE.findall(text)) - CATALOGUE.keys() == set()
    known = {*TOPICS, *(dead_letters(service) for service in SERVICES)}
    assert set(_TOPIC.findall(text)) - known == set()


@each_document
def test_settings_exist(document: Path) -> None:
    known = {f"INMAIL_{name.upper()}" for name in Settings.model_fields}
    known |= {KAFKA_VARIABLE, POSTGRES_VARIABLE, LEVEL_VARIABLE, REPOSITORY_VARIABLE}
    assert set(_SETTING.findall(document.read_text())) - known == set()


def test_the_readmes_http_paths_are_served() -> None:
    templates = [re.sub(r"\{\w+\}", "[^/]+", path) for path in [*DOCUMENT["paths"], "/v1/classify"]]
    named = _HTTP_PATH.findall(README.read_text())
    assert named
    assert [path for path in named if not any(re.fullmatch(template, path) for template in templates)] == []


def test_the_readmes_programs_are_python() -> None:
    programs = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        compile(program, str(README), "exec")

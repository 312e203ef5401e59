"""`python -m shared.events.generate [--check]`: write, or check, the schemas and the AsyncAPI document.

A stored schema is only replaced by one that grows: whatever else changes is refused, and wants a new version of the
type. `--check` writes nothing and fails where a file does not stand as it would be written.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.events.asyncapi import document
from shared.events.catalogue import CATALOGUE
from shared.events.compatibility import incompatibilities
from shared.events.schema import schema_of

EVENTS_DIRECTORY: Final = Path(__file__).parent
SCHEMAS: Final = "schemas"
ASYNCAPI: Final = "asyncapi.json"


def generated() -> dict[str, str]:
    """Return the text of every generated file, by its path below this package."""
    files = {f"{SCHEMAS}/{type_name}.json": _text(schema_of(type_name)) for type_name in CATALOGUE}
    return {**files, ASYNCAPI: _text(document())}


def stale(directory: Path) -> list[str]:
    """Return the paths below `directory` that are missing, differ, or should not be there."""
    files = generated()
    stored = {f"{SCHEMAS}/{path.name}" for path in (directory / SCHEMAS).glob("*.json")}
    differing = {name for name, text in files.items() if _stored_text(directory / name) != text}
    return sorted(differing | (stored - set(files)))


def refusals(directory: Path) -> list[str]:
    """Say which stored schemas must not be replaced by what the models say now."""
    found = []
    for path in sorted((directory / SCHEMAS).glob("*.json")):
        type_name = path.stem
        if type_name not in CATALOGUE:
            found.append(f"{type_name}: gone from the catalogue, but topics may still hold it")
            continue
        stored = json.loads(path.read_text(encoding="utf-8"))
        found += [f"{type_name}: {line}" for line in incompatibilities(stored, schema_of(type_name))]
    return found


def write(directory: Path) -> None:
    """Write every generated file below `directory`."""
    (directory / SCHEMAS).mkdir(parents=True, exist_ok=True)
    for name, text in generated().items():
        (directory / name).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None, directory: Path = EVENTS_DIRECTORY) -> int:
    """Run the command; return 0, or 1 where something is stale or refused."""
    parser = argparse.ArgumentParser(prog="python -m shared.events.generate", description="JSON Schemas and AsyncAPI.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    check = parser.parse_args(arguments).check
    problems = [f"incompatible: {line}" for line in refusals(directory)]
    if check:
        problems += [f"out of date: {name}; run python -m shared.events.generate" for name in stale(directory)]
    elif not problems:
        write(directory)
    sys.stderr.writelines(f"{line}\n" for line in problems)
    return 1 if problems else 0


def _text(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _stored_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())

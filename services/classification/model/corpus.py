"""The replies that the model is trained and measured on, and nothing else that touches their files."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

T = TypeVar("T")
Label = Literal["accept", "decline", "auto_reply"]
Split = Literal["train", "test"]

HARD_TAGS: Final = frozenset(
    {
        *("code_switch", "emoji", "indirect", "long", "mixed", "negation", "one_word", "pair"),
        *("polite_decline", "quoted", "reluctant_accept", "sarcasm", "signature", "slang", "typos"),
    }
)
"""What makes a reply hard to read, for its words do not simply say what it means."""

JUDGES: Final = ("c3", "k1", "n2", "q2", "r2")
"""Authors whose rows teach nothing: limits are chosen on them, as they will be for authors that no model has met.

None of them is one whose rows the lexicon was extended by (a1, b2): those flatter the words.
"""

LATER: Final = (*(f"j{n}" for n in range(1, 7)), *(f"l{n}" for n in range(1, 9)))
"""Authors whose rows came after the encoder's first training: it learns them in a second, short one (`further.py`)."""

REPLIES: Final = Path(__file__).parent / "data" / "replies"


@dataclass(frozen=True, slots=True)
class Example:
    """A reply as its author wrote and labelled it."""

    text: str
    label: Label
    lang: str
    tags: tuple[str, ...]
    author: str
    split: Split

    @property
    def hard(self) -> bool:
        """Whether its author marked it with something that makes replies hard to read."""
        return not HARD_TAGS.isdisjoint(self.tags)


def load(split: Split, folder: Path = REPLIES) -> list[Example]:
    """Give the examples of one split, in the order of file names and lines.

    Raises:
        ValueError: a line is no example; the message names file and line.

    """
    paths = sorted(folder.glob("*.jsonl"))
    return [example for path in paths for example in read(path) if example.split == split]


def first_and_later(examples: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Part training rows into those of the encoder's first training and those of its second."""
    first: list[Example] = []
    later: list[Example] = []
    for example in examples:
        (later if example.author in LATER else first).append(example)
    return first, later


def read(path: Path) -> list[Example]:
    """Give the examples of one file.

    Raises:
        ValueError: a line is no example; the message names file and line.

    """
    return parsed(path, _example, "an example")


def parsed(path: Path, make: Callable[[Any], T], what: str) -> list[T]:
    """Make something of each line's JSON.

    Raises:
        ValueError: a line is not `what`; the message names file and line.

    """
    made: list[T] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            made.append(make(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            message = f"{path.name}, line {number}: not {what}: {error!r}"
            raise ValueError(message) from error
    return made


def _example(row: Any) -> Example:
    return Example(row["text"], row["label"], row["lang"], tuple(row["tags"]), row["author"], row["split"])


def digest(examples: Iterable[Example]) -> str:
    """Name the data: equal for equal texts and labels in the same order."""
    return digest_of((example.text, example.label) for example in examples)


def digest_of(values: Iterable[object]) -> str:
    """Name values that JSON can write: equal for equal ones in the same order."""
    hashed = hashlib.sha256()
    for value in values:
        hashed.update(json.dumps(value, ensure_ascii=False).encode() + b"\n")
    return hashed.hexdigest()

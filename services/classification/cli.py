"""`inmail classify`: JSON Lines in, JSON Lines out, in the same order."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from typing import Annotated, BinaryIO, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.classification.model.classifier import Classifier

LINES_PER_BATCH: Final = 256
LINE_BYTES_MAX: Final = 1024 * 1024


class BadLineError(ValueError):
    """A line of the input is not {id, text}; the message says which one and why."""


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    id: str | Annotated[int, Field(ge=-(2**63), lt=2**64)]
    """A number has 64 bits at most, as JSON is written here."""
    text: str


def classify_jsonl(stdin: Iterable[bytes], stdout: BinaryIO) -> int:
    """Classify lines of {id, text} and return how many; blank lines are left out. Both streams are UTF-8.

    Raises:
        BadLineError: at the first bad line, after the answers to all lines before it were written.

    """
    classifier = Classifier.load()
    numbered = ((number, line) for number, line in enumerate(stdin, start=1) if line.strip())
    count = 0
    while batch := list(islice(numbered, LINES_PER_BATCH)):
        lines, bad = _read(batch)
        predictions = classifier.classify([line.text for line in lines])
        stdout.writelines(
            orjson.dumps({"id": line.id, **asdict(prediction)}, option=orjson.OPT_APPEND_NEWLINE)
            for line, prediction in zip(lines, predictions, strict=True)
        )
        stdout.flush()
        count += len(lines)
        if bad is not None:
            raise bad
    return count


def _read(numbered: Iterable[tuple[int, bytes]]) -> tuple[list[_Line], BadLineError | None]:
    """Give the good lines before the first bad one, and what is wrong with that one."""
    lines: list[_Line] = []
    for number, line in numbered:
        if len(line) > LINE_BYTES_MAX:
            return lines, BadLineError(f"line {number}: {len(line)} bytes, at most {LINE_BYTES_MAX} are read")
        try:
            lines.append(_Line.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            return lines, BadLineError(
                f'line {number}: {where}: {first["msg"]}; expected {{"id": "...", "text": "..."}}'
            )
    return lines, None

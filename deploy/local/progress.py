"""How the stack tells a caller what it is doing, so that a terminal can show bars and a program can log lines."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One step of the way: ``done`` of ``total``, both in ``unit``. The step is over when they are equal."""

    what: str
    done: int
    total: int
    unit: Literal["bytes", "steps"] = "steps"

    @property
    def finished(self) -> bool:
        """Whether this is the last event of its step."""
        return self.done >= self.total


ProgressCallback = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Ignore the event: the default callback."""

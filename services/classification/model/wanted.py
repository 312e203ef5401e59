"""What the model was to reach, and where it falls short: how far, what was tried, and what would get it there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Wanted:
    """A figure that was wanted: at least or at most so much, told with so many digits after the point.

    `tried` and `helps` say, of what has fallen short before, what was tried and what would help.
    """

    figure: str
    bound: Literal["at least", "at most"]
    value: float
    digits: int = 3
    tried: str = ""
    helps: str = ""

    def reached(self, found: float) -> bool:
        """Whether a figure is as wanted."""
        return found >= self.value if self.bound == "at least" else found <= self.value


WANTED: Final = (
    Wanted("accuracy, English", "at least", 0.92),
    Wanted("accuracy, the lowest of es, fr, de, pt", "at least", 0.90),
    Wanted("accuracy, the lowest of the other languages", "at least", 0.85),
    Wanted("accuracy of answers that need no confirmation", "at least", 0.97),
    Wanted("share of answers that need no confirmation", "at least", 0.80),
    Wanted("expected calibration error", "at most", 0.03),
    Wanted(
        "automated replies suspected",
        "at least",
        0.99,
        tried="trainings with ever more of them, 7,281 by 69 authors now; a longer list of notices, which found 3 of "
        "43 that were missed (decision 0009); a rule for what mail programs write before them",
        helps="what stands around the text, such as the mail's headers or how fast it came: those that are missed, as "
        '"I have retired.", are what people write too, and of these at most 0.2 % may be suspected',
    ),
    Wanted("people's replies falsely suspected", "at most", 0.003),
    Wanted(
        "answers a second, whole path, one core",
        "at least",
        1_000,
        digits=0,
        tried="six layers instead of twelve, narrower ones, frequent runs of words as one, leaving early, pairs of "
        "pieces, several texts in one run, fused operators (decisions 0008 and 0009)",
        helps="a processor with sums of products of bytes (twice as fast), or a network of half the size that is as "
        "good: more rows of other kinds, and teachers that have read all of them",
    ),
    Wanted(
        "answers a second, the words alone, one core",
        "at least",
        20_000,
        digits=0,
        tried="all regressions in one pass, notices by their first letter, no Python per word (decision 0010)",
        helps="a processor that nobody else uses at the same time: on one the figure moves by half within a minute",
    ),
    Wanted(
        "seconds from a cold start",
        "at most",
        1.0,
        digits=1,
        tried="hashing the vocabulary at once, leaving out what the model does not need (decision 0010)",
        helps="a file of hashes beside the network",
    ),
)


def rows(found: Mapping[str, float], wanted: Sequence[Wanted] = WANTED) -> list[tuple[str, str, str, str]]:
    """Give each figure with what was wanted, what was found, and whether that will do."""
    return [
        (
            one.figure,
            f"{one.bound} {one.value:,.{one.digits}f}",
            f"{found[one.figure]:,.{one.digits}f}",
            "yes" if one.reached(found[one.figure]) else "no",
        )
        for one in wanted
    ]


def shortfalls(found: Mapping[str, float], wanted: Sequence[Wanted] = WANTED) -> list[str]:
    """Say of each figure that is not as wanted what was tried, and what would get it there."""
    return [
        f"- **{one.figure}**. Tried: {one.tried or 'nothing yet'}. Would help: {one.helps or 'not known yet'}."
        for one in wanted
        if not one.reached(found[one.figure])
    ]

"""Who talks, and what they say: invented people and hand-written replies in five languages."""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Literal, cast

from deploy.traffic.records import Leaning

TextKind = Literal["accept", "decline", "unclear", "add_yes", "add_no", "away", "automatic"]

_HERE: Final = Path(__file__).parent
TEXTS: Final[dict[str, dict[TextKind, list[str]]]] = json.loads((_HERE / "texts.json").read_text(encoding="utf-8"))
_PEOPLE: Final = json.loads((_HERE / "people.json").read_text(encoding="utf-8"))
LANGUAGES: Final = tuple(TEXTS)

# What people do, roughly: most who write their own words lean somewhere.
_LEANINGS: Final[tuple[tuple[Leaning, int], ...]] = (("accept", 45), ("decline", 40), ("unclear", 15))
_NAMELESS_SHARE: Final = 0.05
_NO_LOCALE_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Person:
    """A candidate: `language` is what they write in, `locale` what the platform knows of it."""

    id: str
    name: str | None
    language: str
    locale: str | None
    time_zone: str

    @classmethod
    def drawn(cls, rng: Random, candidate_id: str) -> "Person":
        """Invent somebody."""
        language = rng.choice(LANGUAGES)
        known = _PEOPLE[language]
        name = f"{rng.choice(known['first'])} {rng.choice(known['last'])}"
        return cls(
            candidate_id,
            None if rng.random() < _NAMELESS_SHARE else name,
            language,
            None if rng.random() < _NO_LOCALE_SHARE else language,
            known["time_zone"],
        )

    def words(self, rng: Random, kind: TextKind) -> str:
        """Let them write something of a kind."""
        return rng.choice(TEXTS[self.language][kind])


def leaning(rng: Random) -> Leaning:
    """Draw what somebody's own words mean."""
    names, weights = zip(*_LEANINGS, strict=True)
    return cast("Leaning", rng.choices(names, weights)[0])

"""Smart replies: the wordings offered to a candidate, by choice, locale and version.

templates.json is versioned data: a new wording is a new version beside the old ones, because a candidate may send a
reply that was begun with an old one. Nothing is ever changed or taken out of it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.events import Choice, Template
from shared.text import known_name, normalise

DEFAULT_LOCALE: Final = "en"

_SLOT: Final = "{name}"


@dataclass(frozen=True, slots=True)
class Wording:
    """What one version of a smart reply says in one locale, with the candidate's name and without."""

    template: Template
    choice: Choice
    named: str
    unnamed: str

    def filled(self, name: str | None) -> str:
        """Give the text with `name` in its slot; a blank name is no name."""
        known = known_name(name)
        return self.unnamed if known is None else self.named.replace(_SLOT, known)

    def says(self, normalised: str, names: Iterable[str | None]) -> bool:
        """Whether a normalised text is this wording without a name, or with one of `names` in its slot."""
        return normalised == normalise(self.unnamed) or any(
            normalised == normalise(self.filled(name)) for name in names
        )


def _load() -> dict[tuple[str, int | str, str], Wording]:
    rows = json.loads(Path(__file__).with_name("templates.json").read_text(encoding="utf-8"))
    return {
        (row["id"], row["version"], row["locale"]): Wording(
            template=Template(id=row["id"], version=row["version"], locale=row["locale"]),
            choice=row["choice"],
            named=row["named"],
            unnamed=row["unnamed"],
        )
        for row in rows
    }


_WORDINGS: Final = _load()
# The order of versions decides, not that of the file.
_NEWEST: Final = {
    (wording.choice, wording.template.locale): wording
    for wording in sorted(_WORDINGS.values(), key=lambda wording: wording.template.version)
}

LOCALES: Final = tuple(sorted({locale for _, locale in _NEWEST}))


def find(template: Template) -> Wording | None:
    """Give the wording a reply names, or None for an id, version or locale that is not known."""
    return _WORDINGS.get((template.id, template.version, template.locale))


def language_of(locale: str) -> str:
    """Give the language of a tag such as `pt-BR`, in small letters."""
    return locale.replace("_", "-").split("-")[0].lower()


def render(choice: Choice, locale: str | None, name: str | None) -> tuple[Template, str]:
    """Give the newest wording for a choice, ready to edit.

    `locale` is a language tag (`pt-BR`); its language decides, and English stands in for the ones that are not known.
    """
    language = language_of(locale or DEFAULT_LOCALE)
    wording = _NEWEST.get((choice, language)) or _NEWEST[choice, DEFAULT_LOCALE]
    return wording.template, wording.filled(name)

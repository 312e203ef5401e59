"""Secondary labels: what else a reply says beside yes or no."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path
from typing import Final

import numpy as np

from services.classification.model.features import Bools

AUTO_REPLY_SUSPECTED: Final = "auto_reply_suspected"
WAYS_TO_DECLINE: Final = ("not_now", "referral", "unsubscribe")
"""Labels that authors gave refusals, and that words have learnt from them."""
SIGNALS: Final = (AUTO_REPLY_SUSPECTED, "not_now", "question", "referral", "unsubscribe")
"""All labels, in the order in which they are listed."""


MACHINES_WORDS: Final = re.compile(
    r"(?:ooo\b|auto(?:matic|mated)?[ -]?(?:reply|response)|automatische antwort|abwesenheitsnotiz|"
    r"réponse automatique|message automatique|respuesta automática|mensaje automático|resposta automática|"
    r"mensagem automática|risposta automatica|automatisch antwoord|odpowiedź automatyczna|automatyczna odpowiedź|"
    r"autoresponder|otomatik yan\u0131t|自動返信|自動応答|自动回复|自動回覆)"
)
"""What mail programs write before an automated reply, and people do not. Cleaned texts begin with it."""


NOTICES_PATH: Final = Path(__file__).parent / "notices.json"
"""What is announced to whoever writes, in the words of most such announcements: patterns by occasion and language."""
ABSENCES_PATH: Final = Path(__file__).parent / "absences.json"
"""How people's mail programs say in one sentence that they are away, by language and by the parts of the sentence."""
_EITHER: Final = re.compile(r"\(\?:(?P<words>[^()]*)\)(?![?*+{])(?P<rest>.*)")
UNSPACED: Final = frozenset({"ja", "zh"})
"""Languages that write no blanks between words."""


@lru_cache(maxsize=1)
def notices() -> re.Pattern[str]:
    """Load the patterns of notices, as one."""
    occasions = json.loads(NOTICES_PATH.read_text(encoding="utf-8")).values()
    anywhere = chain.from_iterable(patterns[lang] for patterns in occasions for lang in patterns.keys() & UNSPACED)
    spaced = chain.from_iterable(patterns[lang] for patterns in occasions for lang in patterns.keys() - UNSPACED)
    return re.compile(rf"\b(?:{_by_first_letter(spaced)})|{_by_first_letter(anywhere)}")


def _by_first_letter(patterns: Iterable[str]) -> str:
    """Write patterns by the letter with which they begin, so that few are tried at each word: a third of the time."""
    begun = [(_first_letter(pattern), pattern) for pattern in chain.from_iterable(map(_begun, patterns))]
    alike = groupby(sorted(begun), key=lambda pair: pair[0])
    parts = ((letter, "|".join(pattern.removeprefix(letter) for _, pattern in some)) for letter, some in alike)
    return "|".join(f"{letter}(?:{rest})" for letter, rest in parts)


def _begun(pattern: str) -> list[str]:
    """Write a pattern that begins with one of several words as one pattern for each."""
    either = _EITHER.fullmatch(pattern)
    return [word + either["rest"] for word in either["words"].split("|")] if either else [pattern]


def _first_letter(pattern: str) -> str:
    """Give the letter with which all begins that a pattern finds; empty where it does not show."""
    return pattern[0] if pattern[0].isalnum() and pattern[1:2] not in {"?", "*", "+", "{"} else ""


@lru_cache(maxsize=1)
def absences() -> re.Pattern[str]:
    """Load what tells an absence and nothing else, as one pattern for whole texts."""
    languages = json.loads(ABSENCES_PATH.read_text(encoding="utf-8"))
    told = "|".join(_absence(parts, "" if lang in UNSPACED else " ") for lang, parts in languages.items())
    return re.compile(rf"\s*(?:{told})\s*")


def _absence(parts: Mapping[str, Sequence[str]], blank: str) -> str:
    """Write the pattern of one language: a greeting, who is away, until when, and what then; only the second must be.

    Who has more to say than that wrote it: what says when is short, and holds no other clause.
    """
    first, who, now, away, until, no, later = (
        "|".join(parts[name]) for name in ("first", "who", "now", "away", "until", "no", "later")
    )
    edge = r"\b" if blank else ""
    when = rf"(?:[{blank},]*(?:{until}){edge}(?:(?!{edge}(?:{no}){edge})[^.!?,;。]){{0,30}})?" if until else ""
    link = rf"(?:(?:{no}){edge}{blank})?" if no else ""
    return (
        rf"(?:(?:{first}){edge}[^.!?。]{{0,50}}?[,.!。]\s*){{0,2}}(?:(?:{who}){edge}{blank})?(?:(?:{now}){edge}{blank})?"
        rf"(?:{away}){edge}{when}(?:[,.!。]*\s*{link}(?:{later}){edge}[^.!?。]{{0,60}})?[.!。]*"
    )


def hold_a_notice(cleaned: Sequence[str]) -> Bools:
    """Tell which texts hold the words of a notice (somebody left, nobody reads this), or say that one is away only."""
    search, is_absence = notices().search, absences().fullmatch
    return np.array([(search(text) or is_absence(text)) is not None for text in cleaned], dtype=bool)


def calls_itself_automatic(cleaned: Sequence[str]) -> Bools:
    """Tell which texts say by their first words that a machine sent them."""
    return np.array([MACHINES_WORDS.match(text.lstrip()) is not None for text in cleaned], dtype=bool)


def signals_of(
    *, questions: Bools, declined: Bools, suspected: Bools, ways: Mapping[str, Bools]
) -> list[tuple[str, ...]]:
    """Give the labels of each text: which hold a question, decline, read like a machine's (R9), and read like `ways`.

    "Not now", a referral and a wish for no more messages are ways to decline; a candidate who accepts and mentions a
    friend or next year says something else.
    """
    said = {name: declined & flags for name, flags in ways.items()}
    flags = said | {AUTO_REPLY_SUSPECTED: suspected, "question": questions}
    return [tuple(name for name in SIGNALS if name in flags and flags[name][text]) for text in range(len(declined))]

"""Secondary labels: what else a reply says beside yes or no. Rules over the lexicon, the same for every language."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from services.classification.model.features import Bools, Features, Ints, lexicon

AUTO_REPLY_SUSPECTED: Final = "auto_reply_suspected"
SIGNALS: Final = (AUTO_REPLY_SUSPECTED, "not_now", "question", "referral", "unsubscribe")
"""All labels, in the order in which they are listed."""


MACHINES_WORDS: Final = re.compile(
    r"(?:ooo\b|auto(?:matic|mated)?[ -]?(?:reply|response)|automatische antwort|abwesenheitsnotiz|"
    r"réponse automatique|message automatique|respuesta automática|mensaje automático|resposta automática|"
    r"mensagem automática|risposta automatica|automatisch antwoord|odpowiedź automatyczna|automatyczna odpowiedź|"
    r"autoresponder|otomatik yan\u0131t|自動返信|自動応答|自动回复|自動回覆)"
)
"""What mail programs write before an automated reply, and people do not. Cleaned texts begin with it."""


def calls_itself_automatic(cleaned: Sequence[str]) -> Bools:
    """Tell which texts say by their first words that a machine sent them."""
    return np.array([MACHINES_WORDS.match(text.lstrip()) is not None for text in cleaned], dtype=bool)


def signals_of(features: Features, declined: Bools, suspected: Bools) -> list[tuple[str, ...]]:
    """Give the labels of each text; `declined` says which decline, `suspected` which read like a machine's (R9).

    "Not now", a referral and a wish for no more messages are ways to decline; a candidate who accepts and mentions a
    friend or next year says something else.
    """
    flags: Sequence[Bools] = (
        suspected,
        declined & (_said(features, "not_now") > 0),
        features.questions,
        declined & (_said(features, "referral") > 0),
        declined & (_said(features, "unsubscribe") > 0),
    )
    return [
        tuple(name for name, flag in zip(SIGNALS, flags, strict=True) if flag[text]) for text in range(len(declined))
    ]


def _said(features: Features, name: str) -> Ints:
    said: Ints = features.cues[:, lexicon().classes.index(name)]
    return said

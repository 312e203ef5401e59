"""Secondary labels: what else a reply says beside yes or no. Rules over the lexicon, the same for every language."""

from collections.abc import Sequence
from typing import Final

from services.classification.model.features import Bools, Features, Ints, lexicon

AUTO_REPLY_SUSPECTED: Final = "auto_reply_suspected"
SIGNALS: Final = (AUTO_REPLY_SUSPECTED, "not_now", "question", "referral", "unsubscribe")
"""All labels, in the order in which they are listed."""

AUTO_STRONG_MIN: Final = 1
AUTO_WEAK_MIN: Final = 3
"""Phrases that a person uses too, such as "on holiday", must come in company."""


def suspects_auto_reply(features: Features) -> Bools:
    """Say of each text whether it reads like an answering machine (R9).

    Machines do not ask: a question with but one telling phrase is taken for a person's.
    """
    strong, weak = _said(features, "auto_strong"), _said(features, "auto_weak")
    asks = features.questions
    telling = (strong >= AUTO_STRONG_MIN + 1) | ((strong >= AUTO_STRONG_MIN) & ~asks)
    return telling | ((weak >= AUTO_WEAK_MIN) & ~asks)


def signals_of(features: Features, declined: Bools) -> list[tuple[str, ...]]:
    """Give the labels of each text; `declined` says which texts decline.

    "Not now", a referral and a wish for no more messages are ways to decline; a candidate who accepts and mentions a
    friend or next year says something else.
    """
    flags: Sequence[Bools] = (
        suspects_auto_reply(features),
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

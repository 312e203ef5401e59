"""Rules that more than one service goes by, and must decide alike."""

from datetime import timedelta
from typing import Final

from shared.events import Choice, CorrectionRejection, Outcome, OutcomeSource

CREDIT_WINDOW: Final = timedelta(hours=90 * 24)
"""R13: an answer brings the credit back up to so long after its InMail was sent, equality included."""

OUTCOME_OF_CHOICE: Final[dict[Choice, Outcome]] = {"interested": "accepted", "not_interested": "declined"}
"""R1: what a smart reply says."""

UNKNOWN_CANDIDATE: Final = "A candidate"
"""Stands for one whose name is not known."""


def correction_rejection(
    *, outcome: Outcome | None, source: OutcomeSource | None, version: int, seen_version: int, wanted: Outcome
) -> CorrectionRejection | None:
    """Say why the outcome that stands, None where there is none, is not corrected to `wanted` (R29); None when it is.

    The inbox asks at once, classification when the command's turn comes. The version comes first: who looked at an
    older one has not seen what they would correct.
    """
    if outcome is None:
        return "NOT_CLASSIFIED"
    if seen_version != version:
        return "STALE_VERSION"
    if outcome == wanted:
        return "SAME_VALUE"
    return None if source == "classifier" else "NOT_CLASSIFIED"

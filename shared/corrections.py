"""Which outcomes a human may correct (R29): asked by the inbox at once, and by classification when its turn comes."""

from shared.events import CorrectionRejection, Outcome
from shared.events.outcome import OutcomeSource


def correction_rejection(
    *, outcome: Outcome | None, source: OutcomeSource | None, version: int, seen_version: int, wanted: Outcome
) -> CorrectionRejection | None:
    """Say why the outcome that stands, None where there is none, is not corrected to `wanted`; None when it is.

    The version comes first: who looked at an older one has not seen what they would correct.
    """
    if outcome is None:
        return "NOT_CLASSIFIED"
    if seen_version != version:
        return "STALE_VERSION"
    if outcome == wanted:
        return "SAME_VALUE"
    return None if source == "classifier" else "NOT_CLASSIFIED"

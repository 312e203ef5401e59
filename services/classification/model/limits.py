"""What turns scores into answers: weights of the scores, calibrations and thresholds, chosen on left-out scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.classification.model.classifier import Limits, probability, weighed
from services.classification.model.meaning import Scores
from services.classification.model.regression import DENSE_FACTOR, GROUP_FACTORS, logistic

SURE_PRECISION_MIN: Final = 0.97
"""Of the answers that ask nobody to confirm them, this share is to be right."""
SURE_PRECISION_MARGIN: Final = 0.001
"""And so much more on the rows on which limits are chosen: two of them, so that no single row decides."""
_SURE_PRECISION: Final = SURE_PRECISION_MIN + SURE_PRECISION_MARGIN
DECLINE_PROBABILITY_MIN: Final = 0.55
KNOWN_WORDS_MIN: Final = 0.3

FALSE_SUSPICION_MAX: Final = 0.002
"""So large a share of people's replies may be suspected to be a machine's, on rows left out of the fit."""
CASCADE_LOSS_MAX: Final = 0.002
"""So much accuracy may be given up for asking the encoder less often."""
WAY_PRECISION_MIN: Final = 0.7
"""Of the refusals told to be "not now" or the like, this share has the tag, on the judges' rows."""
SURE_SHARE_MIN: Final = 0.8
"""So large a share of the answers is to be sure; the encoder is asked more often until it is, or as sure as it gets."""
SURE_SHARE_MARGIN: Final = 0.02
"""And so much more of the rows on which limits are chosen, for what is chosen there does a little worse elsewhere."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Scores of the judges' rows by models that have not seen them, (rows,) each, and what the rows are."""

    words: Scores
    meant: Scores
    auto_words: Scores
    auto_meant: Scores
    declined: Scores
    by_person: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.bool_]
    """Rows that limits are chosen on: a person's, by none of `MIMICS`."""
    noticed: npt.NDArray[np.bool_]
    """Rows that hold the words of a notice."""
    ways: Mapping[str, tuple[Scores, npt.NDArray[np.bool_]]]
    """For each way to decline the scores of the refusals among the rows, and which have its tag."""


def choose_limits(left: LeftOut) -> Limits:
    """Choose what turns scores into answers, on left-out scores.

    Raises:
        ValueError: no row counts.

    """
    counts = left.counts
    if not counts.any():
        message = "limits are chosen on people's replies by the judges, and there are none: add some"
        raise ValueError(message)
    declined = left.declined[counts]
    words_calibration = calibrate(left.words[counts], declined)
    together = weigh(left.words[counts], left.meant[counts], declined)
    by_words = probability(left.words[counts], words_calibration)
    by_both = probability(weighed(left.words[counts], left.meant[counts], together))
    words_confidence = _words_confidence(by_words, by_both, declined == 1)
    says_decline, confidence = _said(_decided(by_words, by_both, words_confidence))
    sure = sure_confidence(confidence, says_decline == (declined == 1), _SURE_PRECISION)
    known = counts | ~left.by_person
    auto_together = weigh(left.auto_words[known], left.auto_meant[known], (~left.by_person[known]).astype(np.float64))
    auto_asked, auto_score = _auto_limits(left, auto_together)
    return Limits(
        group_factors=GROUP_FACTORS,
        dense_factor=DENSE_FACTOR,
        words_calibration=words_calibration,
        together=together,
        auto_together=auto_together,
        words_confidence_min=words_confidence,
        decline_probability_min=DECLINE_PROBABILITY_MIN,
        sure_confidence_min=min(math.ceil(sure * 10_000), 9_999) / 10_000,
        auto_asked_min=auto_asked,
        auto_score_min=auto_score,
        way_score_min=_way_limits(left),
        known_words_min=KNOWN_WORDS_MIN,
    )


def _way_limits(left: LeftOut) -> dict[str, float]:
    """Give the lowest scores from which upwards a way to decline is told well enough; a way that is not is left out."""
    lowest = {way: lowest_score(scores, tagged, WAY_PRECISION_MIN) for way, (scores, tagged) in left.ways.items()}
    return {way: math.ceil(low * 10_000) / 10_000 for way, low in lowest.items() if low is not None}


def _auto_limits(left: LeftOut, together: Sequence[float]) -> tuple[float, float]:
    """Give the score of words from which to ask, the lowest that is found, and that of both from which to suspect."""
    scores = weighed(left.auto_words, left.auto_meant, together)
    by_people = np.sort(scores[left.counts])
    suspect = float(by_people[-1 - int(len(by_people) * FALSE_SUSPICION_MAX)]) + 1e-4
    found = left.auto_words[~left.by_person & (scores >= suspect)]
    return (math.floor(found.min() * 10_000) / 10_000 if len(found) else 0.0), round(suspect, 4)


def _words_confidence(by_words: Scores, by_both: Scores, declined: npt.NDArray[np.bool_]) -> float:
    """Give the lowest confidence from which the words alone do next to as well as words and meaning together."""

    def figures(limit: float) -> tuple[float, float]:
        says_decline, confidence = _said(_decided(by_words, by_both, limit))
        right = says_decline == declined
        return float(right.mean()), float((confidence >= sure_confidence(confidence, right, _SURE_PRECISION)).mean())

    best_accuracy, best_sure = figures(math.inf)
    sure_wanted = min(SURE_SHARE_MIN + SURE_SHARE_MARGIN, best_sure)
    for step in range(80, 100):
        accuracy, sure = figures(step / 100)
        if accuracy >= best_accuracy - CASCADE_LOSS_MAX and sure >= sure_wanted:
            return step / 100
    return 1.0


def _decided(by_words: Scores, by_both: Scores, words_confidence_min: float) -> Scores:
    """Give the probability of a refusal: by the words alone where they are sure enough."""
    return np.where(np.maximum(by_words, 1 - by_words) >= words_confidence_min, by_words, by_both)


def _said(decline: Scores) -> tuple[npt.NDArray[np.bool_], Scores]:
    """Give whether the answer is a refusal, and its confidence."""
    says_decline = decline >= DECLINE_PROBABILITY_MIN
    return says_decline, np.where(says_decline, decline, 1 - decline)


def calibrate(scores: Scores, declined: Scores) -> tuple[float, float]:
    """Fit slope and offset that turn left-out scores into probabilities (Platt)."""
    slope, offset = logistic(np.column_stack((scores, np.ones(len(scores)))), declined)
    return round(float(slope), 6), round(float(offset), 6)


def weigh(words: Scores, meant: Scores, wanted: Scores) -> tuple[float, float, float]:
    """Find what the scores of words and meaning count for together, and the offset, for a probability.

    Both are left-out scores: beside weights fitted on the same rows, honest scores would count for too little.
    """
    found = logistic(np.column_stack((words, meant, np.ones(len(words)))), wanted)
    by_words, by_meaning, offset = (round(float(weight), 6) for weight in found)
    return by_words, by_meaning, offset


def sure_confidence(confidence: Scores, right: npt.NDArray[np.bool_], precision: float) -> float:
    """Give the lowest confidence from which upwards the answers are right often enough; 1 where none is."""
    lowest = lowest_score(confidence, right, precision)
    return 1.0 if lowest is None else lowest


def lowest_score(scores: Scores, right: npt.NDArray[np.bool_], precision: float) -> float | None:
    """Give the lowest score from which upwards so large a share is right; None where there is none."""
    order = np.argsort(-scores, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= precision)
    return float(scores[order][enough[-1]]) if len(enough) else None


def summary(left: LeftOut, limits: Limits) -> dict[str, float]:
    """Say how the words, and words and meaning, do on the rows that limits were chosen on: a little too well."""
    declined = left.declined[left.counts] == 1
    by_words = probability(left.words, limits.words_calibration)[left.counts]
    by_both = probability(weighed(left.words, left.meant, limits.together))[left.counts]
    says_decline, confidence = _said(_decided(by_words, by_both, limits.words_confidence_min))
    right, sure = says_decline == declined, confidence >= limits.sure_confidence_min
    suspected = weighed(left.auto_words, left.auto_meant, limits.auto_together) >= limits.auto_score_min
    suspected = (suspected & (left.auto_words >= limits.auto_asked_min)) | left.noticed
    figures = {
        "rows": float(len(declined)),
        "accuracy_words": ((by_words >= limits.decline_probability_min) == declined).mean(),
        "accuracy_meaning": ((left.meant[left.counts] > 0) == declined).mean(),
        "accuracy_words_and_meaning": ((by_both >= limits.decline_probability_min) == declined).mean(),
        "accuracy": right.mean(),
        "share_by_words_alone": (np.maximum(by_words, 1 - by_words) >= limits.words_confidence_min).mean(),
        "sure_share": sure.mean(),
        "sure_accuracy": right[sure].mean() if sure.any() else 0.0,
        "auto_replies_found": suspected[~left.by_person].mean() if not left.by_person.all() else 0.0,
        "falsely_suspected": suspected[left.counts].mean(),
    }
    for way, low in limits.way_score_min.items():
        scores, tagged = left.ways[way]
        figures[f"{way}_found"] = (scores >= low)[tagged].mean()
    return {name: round(float(figure), 4) for name, figure in figures.items()}

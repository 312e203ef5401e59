"""`python -m services.classification.model.training`: train the model and write its artefact.

A logistic regression with an L2 penalty, fitted by L-BFGS in plain numpy. Nothing is random and nothing runs in
parallel, so the same data give the same weights. Only training rows are read. What turns scores into answers
(calibration, thresholds) is chosen on predictions for rows that were left out of the fit.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.classification.model import corpus
from services.classification.model.classifier import (
    ARTEFACT,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Limits,
    Scores,
    lexicon_hash,
    probability,
    scale,
    weights_hash,
)
from services.classification.model.corpus import Example
from services.classification.model.features import (
    BUCKETS,
    FEATURES_VERSION,
    Features,
    Ints,
    clean,
    dense_names,
    extract,
)

GROUP_FACTORS: Final = {
    "word": 1.0,
    "word2": 0.7,
    "stem": 1.0,
    "skip2": 0.5,
    "tail": 0.7,
    "char2": 0.5,
    "char3": 0.7,
    "char4": 0.7,
    "char5": 0.7,
}
DENSE_FACTOR: Final = 1.0
PENALTY: Final = 3e-3
"""These three were chosen by cross-validation on the training rows; CARD.md says what else was tried."""

FOLDS: Final = 8
SURE_PRECISION_MIN: Final = 0.97
"""Of the answers that ask nobody to confirm them, this share is right, on rows left out of the fit."""
DECLINE_PROBABILITY_MIN: Final = 0.55
KNOWN_WORDS_MIN: Final = 0.3

CALIBRATION_SLOPE_MAX: Final = 1.0
"""Calibration may only lower confidence: the lexicon was extended by reading training rows, which flatters the scores
of rows that were left out of the fit."""

ITERATIONS_MAX: Final = 200
MEMORY_STEPS: Final = 8


@dataclass(frozen=True, slots=True)
class Matrix:
    """A sparse matrix as its entries; `columns` counts the hashed buckets, then the dense features."""

    rows: int
    row: Ints
    column: Ints
    value: Scores

    def only(self, wanted: npt.NDArray[np.bool_]) -> "Matrix":
        """The rows that are wanted, numbered anew."""
        number = np.cumsum(wanted) - 1
        kept = wanted[self.row]
        return Matrix(int(wanted.sum()), number[self.row[kept]], self.column[kept], self.value[kept])

    def times(self, weights: Scores) -> Scores:
        """Multiply by (COLUMNS + 1) weights, the last of which is added to every row."""
        sums = np.bincount(self.row, weights=weights[self.column] * self.value, minlength=self.rows)
        return np.asarray(sums + weights[-1], dtype=np.float64)


COLUMNS: Final = BUCKETS + len(dense_names())


def matrix_of(features: Features) -> Matrix:
    """Write features as a matrix, scaled as the classifier scales them."""
    texts = len(features.words)
    rows, columns, values = [], [], []
    for group in features.groups:
        factor = GROUP_FACTORS.get(group.name, 0.0)
        if factor:
            rows.append(group.text)
            columns.append(group.bucket)
            values.append(factor * scale(group, texts)[group.text])
    row, column = np.nonzero(features.dense)
    rows.append(row)
    columns.append(column + BUCKETS)
    values.append(DENSE_FACTOR * features.dense[row, column].astype(np.float64))
    return Matrix(texts, np.concatenate(rows), np.concatenate(columns), np.concatenate(values))


def fit(matrix: Matrix, declined: Scores) -> Scores:
    """Find the weights, (COLUMNS + 1,), that explain `declined` (1 or 0 a row) best."""
    used, column = np.unique(matrix.column, return_inverse=True)
    size, rows = len(used), max(matrix.rows, 1)

    def loss(weights: Scores) -> tuple[float, Scores]:
        scores = np.bincount(matrix.row, weights=weights[column] * matrix.value, minlength=matrix.rows) + weights[-1]
        errors = (1 / (1 + np.exp(-np.clip(scores, -30, 30))) - declined) / rows
        gradient = np.empty(size + 1)
        gradient[:size] = np.bincount(column, weights=matrix.value * errors[matrix.row], minlength=size)
        gradient[:size] += PENALTY * weights[:size]
        gradient[size] = errors.sum()
        value = float((np.logaddexp(0, scores) - declined * scores).sum()) / rows
        return value + PENALTY / 2 * float((weights[:size] ** 2).sum()), gradient

    found = minimise(loss, np.zeros(size + 1))
    weights = np.zeros(COLUMNS + 1)
    weights[used] = found[:size]
    weights[-1] = found[size]
    return weights


def minimise(loss: Callable[[Scores], tuple[float, Scores]], start: Scores) -> Scores:
    """L-BFGS with a backtracking line search, until a step gains next to nothing."""
    at, (value, gradient) = start, loss(start)
    moves: list[tuple[Scores, Scores]] = []
    for _ in range(ITERATIONS_MAX):
        direction = _direction(gradient, moves)
        slope = _dot(gradient, direction)
        length = 1.0 if moves else min(1.0, 10 / float(np.abs(gradient).sum()))
        while True:
            there = at + length * direction
            value_there, gradient_there = loss(there)
            if value_there <= value + 1e-4 * length * slope or length < 1e-9:
                break
            length /= 2
        moved, bent = there - at, gradient_there - gradient
        if _dot(moved, bent) > 1e-14:
            moves = [*moves[1 - MEMORY_STEPS :], (moved, bent)]
        gained = value - value_there
        at, value, gradient = there, value_there, gradient_there
        if gained < 1e-7 * max(1.0, abs(value)):
            break
    return at


def _direction(gradient: Scores, moves: Sequence[tuple[Scores, Scores]]) -> Scores:
    direction = -gradient
    factors: list[float] = []
    for moved, bent in reversed(moves):
        factors.append(_dot(moved, direction) / _dot(moved, bent))
        direction = direction - factors[-1] * bent
    if moves:
        moved, bent = moves[-1]
        direction = direction * (_dot(moved, bent) / _dot(bent, bent))
    for (moved, bent), factor in zip(moves, reversed(factors), strict=True):
        direction = direction + (factor - _dot(bent, direction) / _dot(moved, bent)) * moved
    return direction


def _dot(one: Scores, other: Scores) -> float:
    # Not `@`: the BLAS library adds in an order that depends on the number of its threads.
    return float((one * other).sum())


def fold_of(example: Example) -> int:
    """Assign a row to a fold by its text alone: adding rows moves no other."""
    return int.from_bytes(hashlib.sha256(example.text.encode()).digest()[:8], "big") % FOLDS


def left_out_scores(matrix: Matrix, declined: Scores, fold: Ints) -> Scores:
    """Score each row by a model that has not seen its fold."""
    scores = np.zeros(matrix.rows)
    for number in np.unique(fold):
        mine = fold == number
        weights = fit(matrix.only(~mine), declined[~mine])
        scores[mine] = matrix.only(mine).times(weights)
    return scores


def calibrate(scores: Scores, declined: Scores) -> tuple[float, float]:
    """Fit slope and offset that turn left-out scores into probabilities (Platt)."""

    def loss(line: Scores) -> tuple[float, Scores]:
        exponent = np.clip(line[0] * scores + line[1], -30, 30)
        errors = 1 / (1 + np.exp(-exponent)) - declined
        value = float((np.logaddexp(0, exponent) - declined * exponent).sum())
        return value, np.array([float((errors * scores).sum()), float(errors.sum())])

    slope, offset = minimise(loss, np.array([1.0, 0.0]))
    return float(slope), float(offset)


def sure_confidence(confidence: Scores, right: npt.NDArray[np.bool_], precision: float) -> float:
    """Give the lowest confidence from which upwards the answers are right often enough; 1 where none is."""
    order = np.argsort(-confidence, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= precision)
    return float(confidence[order][enough[-1]]) if len(enough) else 1.0


def quantised(weights: Scores) -> tuple[npt.NDArray[np.int8], float]:
    """Round weights to 8 bits."""
    step = float(np.abs(weights).max()) / 127 or 1.0
    return np.round(weights / step).astype(np.int8), step


def choose_limits(scores: Scores, declined: Scores) -> Limits:
    """Choose what turns scores into answers, on left-out scores."""
    slope, offset = calibrate(scores, declined)
    slope = min(slope, CALIBRATION_SLOPE_MAX)
    limits = Limits(
        group_factors=GROUP_FACTORS,
        dense_factor=DENSE_FACTOR,
        calibration_slope=round(slope, 6),
        calibration_offset=round(offset, 6),
        decline_probability_min=DECLINE_PROBABILITY_MIN,
        sure_confidence_min=1.0,
        known_words_min=KNOWN_WORDS_MIN,
    )
    decline = probability(scores, limits)
    says_decline = decline >= DECLINE_PROBABILITY_MIN
    confidence = np.where(says_decline, decline, 1 - decline)
    sure = sure_confidence(confidence, says_decline == (declined == 1), SURE_PRECISION_MIN)
    return replace(limits, sure_confidence_min=round(sure, 4))


def train(examples: Sequence[Example]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Train on the examples; return the arrays and the manifest to store.

    Automated replies are fitted as acceptances, for that is the side to take when nobody has declined; calibration and
    figures leave them out.
    """
    features = extract(clean([example.text for example in examples]))
    matrix = matrix_of(features)
    declined = np.array([example.label == "decline" for example in examples], dtype=np.float64)
    scores = left_out_scores(matrix, declined, np.array([fold_of(example) for example in examples]))
    by_person = np.array([example.label != "auto_reply" for example in examples])
    limits = choose_limits(scores[by_person], declined[by_person])
    weights = fit(matrix, declined)
    buckets, step = quantised(weights[:BUCKETS])
    seen = np.zeros(BUCKETS, dtype=bool)
    seen[next(group for group in features.groups if group.name == "stem").bucket] = True
    arrays: dict[str, npt.NDArray[Any]] = {
        "buckets": buckets,
        "step": np.array(step),
        "dense": weights[BUCKETS:COLUMNS].astype(np.float32),
        "bias": np.array(weights[-1]),
        "seen": np.packbits(seen),
    }
    identity = json.dumps([FEATURES_VERSION, lexicon_hash(), weights_hash(arrays), asdict(limits)], sort_keys=True)
    manifest = {
        "model_version": f"lr-{FEATURES_VERSION}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        "features_version": FEATURES_VERSION,
        "lexicon_sha256": lexicon_hash(),
        "weights_sha256": weights_hash(arrays),
        "data_sha256": corpus.digest(examples),
        "rows": len(examples),
        "penalty": PENALTY,
        "limits": asdict(limits),
        "cross_validation": _summary(scores[by_person], declined[by_person], limits),
    }
    return arrays, manifest


def _summary(scores: Scores, declined: Scores, limits: Limits) -> dict[str, float]:
    decline = probability(scores, limits)
    says_decline = decline >= limits.decline_probability_min
    right = says_decline == (declined == 1)
    confidence = np.where(says_decline, decline, 1 - decline)
    sure = confidence >= limits.sure_confidence_min
    return {
        "accuracy": round(float(right.mean()), 4),
        "sure_share": round(float(sure.mean()), 4),
        "sure_accuracy": round(float(right[sure].mean()), 4) if sure.any() else 0.0,
    }


def write(arrays: dict[str, npt.NDArray[Any]], manifest: dict[str, Any], folder: Path = ARTEFACT) -> None:
    """Store a trained model."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / WEIGHTS_FILE, allow_pickle=False, **arrays)
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def main() -> None:
    """Train on all training rows and store the model."""
    examples = corpus.load("train")
    arrays, manifest = train(examples)
    write(arrays, manifest)
    json.dump(manifest, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

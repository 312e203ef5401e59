"""`python -m services.classification.model.training`: train the model and write its artefact.

Logistic regressions with an L2 penalty, fitted by L-BFGS in numpy: on words, and on words and meaning together. Nothing
is random and nothing runs in parallel, so the same data give the same weights. Only training rows are read. What turns
scores into answers (calibration, thresholds) is chosen on predictions by models that have not met the rows' authors.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

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
from services.classification.model.meaning import meanings

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
PENALTY: Final = 3e-4
MEANING_PENALTY: Final = 4e-4
"""These were chosen by cross-validation on the training rows; CARD.md says what else was tried."""

SURE_PRECISION_MIN: Final = 0.95
"""Of the answers that ask nobody to confirm them, this share is right, on rows left out of the fit."""
DECLINE_PROBABILITY_MIN: Final = 0.55
KNOWN_WORDS_MIN: Final = 0.3

LEXICON_AUTHORS: Final = ("a1", "b2")
"""The lexicon was extended by reading these authors' rows, which flatters their scores even when left out."""
MIMICS: Final = ("r1", "r2")
"""Authors whose people sound like machines on purpose: their rows teach, but limits are not chosen on them."""
FALSE_SUSPICION_MAX: Final = 0.002
"""So large a share of people's replies may be suspected to be a machine's, on rows left out of the fit."""
AUTO_MARGIN: Final = 1.0
"""So far below all automated replies that were found, by the score of their words, the encoder is still asked."""
CASCADE_LOSS_MAX: Final = 0.001
"""So much accuracy may be given up for asking the encoder less often."""

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


def fold_of(examples: Sequence[Example]) -> Ints:
    """Number the rows by author: what an author would score with a model that has never met that author's phrasing.

    Raises:
        ValueError: there is one author only.

    """
    authors = sorted({example.author for example in examples})
    if len(authors) < 2:
        message = "the rows are by one author: limits are chosen on authors left out, so add rows by another"
        raise ValueError(message)
    return np.array([authors.index(example.author) for example in examples], dtype=np.intp)


def left_out_scores(matrix: Matrix, declined: Scores, fold: Ints) -> Scores:
    """Score each row by a model that has not seen its fold."""
    return _left_out(fold, lambda mine: matrix.only(mine).times(fit(matrix.only(~mine), declined[~mine])))


def _left_out(fold: Ints, score: Callable[[npt.NDArray[np.bool_]], Scores]) -> Scores:
    """Let `score` score the rows of each fold, having learnt from the others."""
    scores = np.zeros(len(fold))
    for number in np.unique(fold):
        mine = fold == number
        scores[mine] = score(mine)
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


def fit_meaning(meaning: Scores, wanted: Scores) -> Scores:
    """Find the weights of the meaning's numbers, and the offset."""
    rows, columns = meaning.shape

    def loss(weights: Scores) -> tuple[float, Scores]:
        scores = meaning @ weights[:-1] + weights[-1]
        errors = (1 / (1 + np.exp(-np.clip(scores, -30, 30))) - wanted) / rows
        gradient = np.append(meaning.T @ errors + MEANING_PENALTY * weights[:-1], errors.sum())
        value = float((np.logaddexp(0, scores) - wanted * scores).sum()) / rows
        return value + MEANING_PENALTY / 2 * float((weights[:-1] ** 2).sum()), gradient

    return minimise(loss, np.zeros(columns + 1))


def left_out_meaning(meaning: Scores, wanted: Scores, fold: Ints) -> Scores:
    """Score each row's meaning by weights that have not seen its fold."""

    def score(mine: npt.NDArray[np.bool_]) -> Scores:
        weights = fit_meaning(meaning[~mine], wanted[~mine])
        return np.asarray(meaning[mine] @ weights[:-1] + weights[-1])

    return _left_out(fold, score)


def weigh(words: Scores, meant: Scores, wanted: Scores) -> Scores:
    """Find what the two scores count for together, and the offset.

    Both are left-out scores: beside weights fitted on the same rows, honest scores would count for too little.
    """
    table = np.column_stack((words, meant, np.ones(len(words))))

    def loss(weights: Scores) -> tuple[float, Scores]:
        scores = table @ weights
        errors = 1 / (1 + np.exp(-np.clip(scores, -30, 30))) - wanted
        return float((np.logaddexp(0, scores) - wanted * scores).sum()) / len(table), table.T @ errors / len(table)

    return minimise(loss, np.array([0.5, 0.5, 0.0]))


@dataclass(frozen=True, slots=True)
class Stage:
    """What tells one thing by words and meaning: left-out scores of both, (rows,), and how they count together."""

    words: Scores
    meant: Scores
    weights: Scores

    @classmethod
    def of(cls, matrix: Matrix, meaning: Scores, wanted: Scores, fold: Ints) -> "Stage":
        """Score every row by models that have not seen its author."""
        words, meant = left_out_scores(matrix, wanted, fold), left_out_meaning(meaning, wanted, fold)
        return cls(words, meant, weigh(words, meant, wanted))

    @property
    def together(self) -> Scores:
        """The score of words and meaning, left out."""
        return np.asarray(self.weights[0] * self.words + self.weights[1] * self.meant + self.weights[2])


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Scores of rows by models that have not seen their authors, (rows,) each, and what the rows are."""

    words: Scores
    together: Scores
    auto: Scores
    auto_together: Scores
    declined: Scores
    by_person: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.bool_]
    """Rows that limits are chosen on: a person's, by none of `LEXICON_AUTHORS` and `MIMICS`."""


def choose_limits(left: LeftOut) -> Limits:
    """Choose what turns scores into answers, on left-out scores."""
    declined = left.declined[left.counts]
    words_calibration = calibrate(left.words[left.counts], declined)
    meaning_calibration = calibrate(left.together[left.counts], declined)
    by_words = probability(left.words[left.counts], words_calibration)
    by_meaning = probability(left.together[left.counts], meaning_calibration)
    words_confidence = _words_confidence(by_words, by_meaning, declined == 1)
    decline = np.where(np.maximum(by_words, 1 - by_words) >= words_confidence, by_words, by_meaning)
    says_decline = decline >= DECLINE_PROBABILITY_MIN
    confidence = np.where(says_decline, decline, 1 - decline)
    sure = sure_confidence(confidence, says_decline == (declined == 1), SURE_PRECISION_MIN)
    auto_asked, auto_score = _auto_limits(left)
    return Limits(
        group_factors=GROUP_FACTORS,
        dense_factor=DENSE_FACTOR,
        words_calibration=(round(words_calibration[0], 6), round(words_calibration[1], 6)),
        meaning_calibration=(round(meaning_calibration[0], 6), round(meaning_calibration[1], 6)),
        words_confidence_min=words_confidence,
        decline_probability_min=DECLINE_PROBABILITY_MIN,
        sure_confidence_min=round(sure, 4),
        auto_asked_min=auto_asked,
        auto_score_min=auto_score,
        known_words_min=KNOWN_WORDS_MIN,
    )


def _auto_limits(left: LeftOut) -> tuple[float, float]:
    """Give the score of words from which to ask, below all that is found, and that of both from which to suspect."""
    by_people = np.sort(left.auto_together[left.counts])
    suspect = float(by_people[-1 - int(len(by_people) * FALSE_SUSPICION_MAX)]) + 1e-4
    found = left.auto[~left.by_person & (left.auto_together >= suspect)]
    return (round(float(found.min()) - AUTO_MARGIN, 4) if len(found) else 0.0), round(suspect, 4)


def _words_confidence(by_words: Scores, by_meaning: Scores, declined: npt.NDArray[np.bool_]) -> float:
    """Give the lowest confidence from which the words alone do next to as well as words and meaning together."""
    best = float(((by_meaning >= DECLINE_PROBABILITY_MIN) == declined).mean())
    for step in range(85, 100):  # lower ones cost no accuracy, but sureness
        alone = np.maximum(by_words, 1 - by_words) >= step / 100
        decline = np.where(alone, by_words, by_meaning)
        if float(((decline >= DECLINE_PROBABILITY_MIN) == declined).mean()) >= best - CASCADE_LOSS_MAX:
            return step / 100
    return 1.0


def train(examples: Sequence[Example]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Train on the examples; return the arrays and the manifest to store.

    Automated replies are fitted as acceptances, for that is the side to take when nobody has declined; calibration and
    figures leave them out.
    """
    with threadpool_limits(1, user_api="blas"):  # sums in one order, whatever the number of cores
        return _train(examples)


def _train(examples: Sequence[Example]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    cleaned = clean([example.text for example in examples])
    features = extract(cleaned)
    matrix, fold = matrix_of(features), fold_of(examples)
    meaning = meanings(cleaned).astype(np.float64)
    declined = np.array([example.label == "decline" for example in examples], dtype=np.float64)
    by_person = np.array([example.label != "auto_reply" for example in examples])
    automatic = 1.0 - by_person
    answer, machine = (Stage.of(matrix, meaning, wanted, fold) for wanted in (declined, automatic))
    left = LeftOut(
        answer.words,
        answer.together,
        machine.words,
        machine.together,
        declined,
        by_person,
        by_person & ~np.isin([example.author for example in examples], LEXICON_AUTHORS + MIMICS),
    )
    limits = choose_limits(left)
    seen = np.zeros(BUCKETS, dtype=bool)
    seen[next(group for group in features.groups if group.name == "stem").bucket] = True
    arrays: dict[str, npt.NDArray[Any]] = {
        **_stored("", fit(matrix, declined)),
        **_stored("auto_", fit(matrix, automatic)),
        "seen": np.packbits(seen),
        **_stored_meaning("", fit_meaning(meaning, declined), answer.weights),
        **_stored_meaning("auto_", fit_meaning(meaning, automatic), machine.weights),
    }
    identity = json.dumps([FEATURES_VERSION, lexicon_hash(), weights_hash(arrays), asdict(limits)], sort_keys=True)
    manifest = {
        "model_version": f"cascade-{FEATURES_VERSION}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        "features_version": FEATURES_VERSION,
        "lexicon_sha256": lexicon_hash(),
        "weights_sha256": weights_hash(arrays),
        "data_sha256": corpus.digest(examples),
        "rows": len(examples),
        "penalty": PENALTY,
        "meaning_penalty": MEANING_PENALTY,
        "limits": asdict(limits),
        "left_out": _summary(left, limits),
    }
    return arrays, manifest


def _stored(prefix: str, weights: Scores) -> dict[str, npt.NDArray[Any]]:
    buckets, step = quantised(weights[:BUCKETS])
    return {
        f"{prefix}buckets": buckets,
        f"{prefix}step": np.array(step),
        f"{prefix}dense": weights[BUCKETS:COLUMNS].astype(np.float32),
        f"{prefix}bias": np.array(weights[-1]),
    }


def _stored_meaning(prefix: str, weights: Scores, together: Scores) -> dict[str, npt.NDArray[Any]]:
    words, meant, offset = together
    return {
        f"{prefix}meaning": (meant * weights[:-1]).astype(np.float32),
        f"{prefix}meaning_score": np.array(words),
        f"{prefix}meaning_bias": np.array(meant * weights[-1] + offset),
    }


def _summary(left: LeftOut, limits: Limits) -> dict[str, float]:
    """Say how the two stages and both together do on the rows that limits were chosen on."""
    declined = left.declined[left.counts] == 1
    by_words = probability(left.words[left.counts], limits.words_calibration)
    by_meaning = probability(left.together[left.counts], limits.meaning_calibration)
    alone = np.maximum(by_words, 1 - by_words) >= limits.words_confidence_min
    decline = np.where(alone, by_words, by_meaning)
    says_decline = decline >= limits.decline_probability_min
    right = says_decline == declined
    sure = np.where(says_decline, decline, 1 - decline) >= limits.sure_confidence_min
    suspected = (left.auto >= limits.auto_asked_min) & (left.auto_together >= limits.auto_score_min)
    figures = {
        "rows": float(len(declined)),
        "accuracy_words": ((by_words >= limits.decline_probability_min) == declined).mean(),
        "accuracy_words_and_meaning": ((by_meaning >= limits.decline_probability_min) == declined).mean(),
        "accuracy": right.mean(),
        "share_by_words_alone": alone.mean(),
        "sure_share": sure.mean(),
        "sure_accuracy": right[sure].mean() if sure.any() else 0.0,
        "auto_replies_found": suspected[~left.by_person].mean() if not left.by_person.all() else 0.0,
        "falsely_suspected": suspected[left.counts].mean(),
    }
    return {name: round(float(figure), 4) for name, figure in figures.items()}


def write(arrays: dict[str, npt.NDArray[Any]], manifest: dict[str, Any], folder: Path = ARTEFACT) -> None:
    """Store a trained model."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / WEIGHTS_FILE, allow_pickle=False, **arrays)
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def main() -> None:
    """Train on all training rows, and on those of further files, and store the model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--also", type=Path, action="append", default=[], help="JSON Lines as in data/replies")
    parser.add_argument("--out", type=Path, default=ARTEFACT, help="the folder to write to [default: the one at work]")
    given = parser.parse_args()
    examples = corpus.load("train") + [example for path in given.also for example in corpus.read(path)]
    arrays, manifest = train(examples)
    write(arrays, manifest, given.out)
    json.dump(manifest, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

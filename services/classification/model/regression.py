"""Logistic regressions with an L2 penalty, fitted by L-BFGS in numpy: one on texts' features, one on a few numbers.

Nothing is random and nothing runs in parallel, so the same rows give the same weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.classification.model.features import BUCKETS, Features, dense_names
from services.classification.model.hashing import Ints
from services.classification.model.meaning import Scores
from services.classification.model.words import Regression, scale

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
PENALTY: Final = 2e-5
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

    def above(self, other: "Matrix") -> "Matrix":
        """These rows, and the other's below them."""
        return Matrix(
            self.rows + other.rows,
            np.concatenate((self.row, other.row + self.rows)),
            np.concatenate((self.column, other.column)),
            np.concatenate((self.value, other.value)),
        )

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
            values.append(factor * scale(np.bincount(group.text, minlength=texts))[group.text])
    row, column = np.nonzero(features.dense)
    rows.append(row)
    columns.append(column + BUCKETS)
    values.append(DENSE_FACTOR * features.dense[row, column].astype(np.float64))
    return Matrix(texts, np.concatenate(rows), np.concatenate(columns), np.concatenate(values))


def fit(matrix: Matrix, wanted: Scores, counts: Scores) -> Scores:
    """Find the weights, (COLUMNS + 1,), that explain `wanted` (0 to 1 a row) best; each row counts for so much."""
    used, column = np.unique(matrix.column, return_inverse=True)
    size, parts = len(used), counts / counts.sum()

    def loss(weights: Scores) -> tuple[float, Scores]:
        scores = np.bincount(matrix.row, weights=weights[column] * matrix.value, minlength=matrix.rows) + weights[-1]
        errors = (1 / (1 + np.exp(-np.clip(scores, -30, 30))) - wanted) * parts
        gradient = np.empty(size + 1)
        gradient[:size] = np.bincount(column, weights=matrix.value * errors[matrix.row], minlength=size)
        gradient[:size] += PENALTY * weights[:size]
        gradient[size] = errors.sum()
        value = float(((np.logaddexp(0, scores) - wanted * scores) * parts).sum())
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


def logistic(table: Scores, wanted: Scores) -> Scores:
    """Find the weights of a few numbers a row, (rows, numbers), that explain `wanted` (1 or 0 a row) best."""

    def loss(weights: Scores) -> tuple[float, Scores]:
        scores = table @ weights
        errors = 1 / (1 + np.exp(-np.clip(scores, -30, 30))) - wanted
        value = float((np.logaddexp(0, scores) - wanted * scores).sum()) / len(table)
        return value, table.T @ errors / len(table)

    return minimise(loss, np.zeros(table.shape[1]))


def rounded(weights: Scores) -> Regression:
    """Round weights as `fit` gives them to 8 bits, for use."""
    buckets = weights[:BUCKETS]
    step = float(np.abs(buckets).max()) / 127 or 1.0
    return Regression(
        np.round(buckets / step).astype(np.int8), step, weights[BUCKETS:COLUMNS].copy(), float(weights[-1])
    )

"""What a text's words say: logistic regressions on its features, as they are stored and applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.classification.model.features import Features
from services.classification.model.hashing import Ints
from services.classification.model.meaning import Scores


@dataclass(frozen=True, slots=True)
class Regression:
    """Weights in 8 bits: (BUCKETS,) of hashed n-grams in steps of `step`, and one for each dense feature."""

    buckets: npt.NDArray[np.int8]
    step: float
    dense: npt.NDArray[np.float64]
    bias: float

    @classmethod
    def read(cls, arrays: Mapping[str, npt.NDArray[Any]], name: str) -> "Regression":
        """Read one as `stored` gives it."""
        return cls(
            arrays[f"{name}_buckets"],
            float(arrays[f"{name}_step"]),
            arrays[f"{name}_dense"].astype(np.float64),
            float(arrays[f"{name}_bias"]),
        )

    def stored(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Give it as arrays for a file."""
        return {
            f"{name}_buckets": self.buckets,
            f"{name}_step": np.array(self.step),
            f"{name}_dense": self.dense.astype(np.float32),
            f"{name}_bias": np.array(self.bias),
        }


def scores(
    features: Features, regressions: Mapping[str, Regression], group_factors: Mapping[str, float], dense_factor: float
) -> dict[str, Scores]:
    """Add up the weights of each text's features: log odds, (texts,), by each regression."""
    texts = len(features.words)
    used = [group for group in features.groups if group_factors.get(group.name, 0.0)]
    bucket = np.concatenate([group.bucket for group in used])
    counts = np.array([np.bincount(group.text, minlength=texts) for group in used])
    # Those of one text are a stretch of its group's. Should a running sum overflow, the differences still hold.
    ends = np.cumsum(counts).reshape(counts.shape)
    factors = np.array([[group_factors[group.name]] for group in used]) * scale(counts)

    def total(r: Regression) -> Scores:
        sums = np.zeros(len(bucket) + 1, dtype=np.int32)
        np.cumsum(r.buckets[bucket], out=sums[1:])
        of_groups = sums[ends] - sums[ends - counts]
        dense = (features.dense * (r.dense * dense_factor)).sum(axis=1)
        return np.asarray(dense + (of_groups * factors).sum(axis=0) * r.step + r.bias, dtype=np.float64)

    return {name: total(r) for name, r in regressions.items()}


def scale(features: Ints) -> Scores:
    """Say what a feature counts for where a text has so many: together those of a long text weigh no more."""
    return np.asarray(1 / np.sqrt(np.maximum(features, 1)), dtype=np.float64)

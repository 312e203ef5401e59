"""What a text's words say: logistic regressions on its features, as they are stored and applied."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.classification.model.features import Features, Group
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
    totals = {name: (features.dense * (r.dense * dense_factor)).sum(axis=1) for name, r in regressions.items()}
    for group in features.groups:
        factor = group_factors.get(group.name, 0.0)
        if factor:
            scaled = scale(group, texts)
            for name, r in regressions.items():
                sums = np.bincount(group.text, weights=r.buckets[group.bucket], minlength=texts)
                totals[name] += sums * (factor * r.step) * scaled
    return {name: np.asarray(total + regressions[name].bias, dtype=np.float64) for name, total in totals.items()}


def scale(group: Group, texts: int) -> Scores:
    """Scale so that a long text's features weigh no more, all together, than a short one's."""
    return np.asarray(1 / np.sqrt(np.maximum(np.bincount(group.text, minlength=texts), 1)), dtype=np.float64)

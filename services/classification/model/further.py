"""A second, short training of a network, on rows that came after its first: minutes instead of hours."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.classification.model.finetuning import Recipe, fine_tuned
from services.classification.model.network import network_of, parameters_of

EPOCHS: Final = 2
STEP: Final = 5e-5
"""A third of the first training's: what it has learnt is to stay."""
REPLAYED: Final = 4
"""For each new row it reads so many again that it knows, or it would forget them."""
REPLAYED_MIN: Final = 2_000

Pieces = Sequence[Sequence[int]]
Odds = npt.NDArray[np.float32]


def further_recipe(recipe: Recipe) -> Recipe:
    """Give the recipe of the second training after a first."""
    return replace(recipe, epochs=EPOCHS, step=STEP)


def taught_further(network: bytes, new: tuple[Pieces, Odds], known: tuple[Pieces, Odds], recipe: Recipe) -> bytes:
    """Teach a network rows in pieces and their odds, among some of those it knows; `recipe` is its first training's."""
    parameters, superwords = parameters_of(network)
    count = min(len(known[0]), max(REPLAYED_MIN, REPLAYED * len(new[0])))
    replayed = np.random.default_rng(recipe.seed).choice(len(known[0]), count, replace=False).tolist()
    pieces = [*new[0], *(known[0][row] for row in replayed)]
    odds = np.concatenate((new[1], known[1][replayed]))
    return network_of(fine_tuned(pieces, odds, further_recipe(recipe), superwords, parameters), superwords)

"""Training of the encoder's first layers on texts and odds of their classes, in jax on the CPU.

The vectors of pieces of words stay as they are.

Nothing depends on time or the number of cores, and what is random comes from one seed, so the same data give the same
numbers on the same kind of processor.
"""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

os.environ["NPROC"] = "2"  # so many threads share each product: with another number, sums add up in another order

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from services.classification.model.batching import batches, speed
from services.classification.model.encoder import CLASSES, TOKENS_MAX, shortened, vectors
from services.classification.model.narrowing import narrowed
from services.classification.model.pretrained import WIDTH, Pretrained, pretrained
from services.classification.model.superwords import Run, Superwords
from services.classification.model.transformer import Batch, Parameters, forward

jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]

LENGTHS: Final = (12, 16, 20, 24, 32, 40, 56, 80, 112, TOKENS_MAX)
"""Texts are filled up to one of these many tokens: each length is compiled once."""
FIRST_MOMENT: Final = 0.9
SECOND_MOMENT: Final = 0.999
MOMENT_EPSILON: Final = 1e-8
GRADIENT_NORM_MAX: Final = 1.0
HEAD_SPEED: Final = 10.0
"""The last layer starts from nothing and learns so much faster."""
HEAD_SPREAD: Final = 0.02
NARROWED_BY: Final = 256
"""So many texts show which inner numbers to keep."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the encoder is trained."""

    epochs: int = 4
    layers: int = 6
    """The first ones of the twelve."""
    batch_texts: int = 64
    step: float = 1.5e-4
    warm_up: float = 0.1
    """Over this share of the steps their size rises to `step`; then it falls to nothing."""
    decay: float = 0.01
    dropout: float = 0.1
    superword_dropout: float = 0.1
    """So often a superword is read in its pieces, so that the network goes on knowing those."""
    inner_width: int = 1_024
    """Inner numbers that each layer keeps of its 1,536."""
    seed: int = 0


def fine_tuned(
    pieces: Sequence[Sequence[int]],
    odds: npt.NDArray[np.float32],
    recipe: Recipe,
    superwords: Superwords,
    start: Parameters | None = None,
) -> Parameters:
    """Train on texts in pieces and how likely each class of `CLASSES` is, (texts, 3); give the parameters.

    `start` are those of a network that has learnt before; else it begins with the pretrained ones.
    """
    lengths = [range(len(superwords.joined(ids))) for ids in pieces]
    random = np.random.default_rng(recipe.seed)

    def read(rows: Sequence[int]) -> list[list[Run]]:
        return [superwords.joined(pieces[row], lambda: random.random() < recipe.superword_dropout) for row in rows]

    if start is None:
        parameters = jax.tree.map(jnp.asarray, _start(pretrained(), recipe.layers, len(superwords.runs), random))
        sample = read(random.choice(len(pieces), min(len(pieces), NARROWED_BY), replace=False).tolist())
        parameters = narrowed(parameters, filled(sample, superwords, len(sample)), recipe.inner_width)
    else:
        parameters = jax.tree.map(jnp.asarray, start)
    moments = jax.tree.map(jnp.zeros_like, (parameters, parameters))
    update = jax.jit(partial(_update, recipe), donate_argnums=(0, 1))
    keys = jax.random.key(recipe.seed, impl="unsafe_rbg")
    steps = recipe.epochs * math.ceil(len(pieces) / recipe.batch_texts)
    number = 0
    for epoch in range(recipe.epochs):
        for rows in batches(lengths, recipe.batch_texts, random):
            number += 1
            batch = filled(read(rows), superwords, recipe.batch_texts)
            wanted = np.zeros((recipe.batch_texts, len(CLASSES)), dtype=np.float32)
            wanted[: len(rows)] = odds[rows]
            step = recipe.step * speed(number, steps, recipe.warm_up)
            key = jax.random.fold_in(keys, number)
            parameters, moments = update(parameters, moments, batch, wanted, step, number, key)
        sys.stderr.write(f"encoder: {len(pieces)} texts read {epoch + 1} of {recipe.epochs} times\n")
    found: Parameters = jax.tree.map(np.asarray, parameters)
    return found


def _start(from_: Pretrained, layers: int, superwords: int, random: np.random.Generator) -> Parameters:
    """Take the parameters from the package; the last layer's are drawn."""

    def linear(name: str) -> Parameters:
        bias = from_.tensor(f"{name}.b")
        return {"weight": from_.tensor(f"{name}.w").reshape(len(bias), -1).T, "bias": bias}

    def norm(name: str) -> Parameters:
        return {"weight": from_.tensor(f"{name}.w"), "bias": from_.tensor(f"{name}.b")}

    def layer(number: int) -> Parameters:
        query, key, value = (linear(f"l{number}.{part}") for part in "qkv")
        return {
            "qkv": jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1), query, key, value),
            "attention": linear(f"l{number}.ao"),
            "attention_norm": norm(f"l{number}.aln"),
            "inner": linear(f"l{number}.fi"),
            "outer": linear(f"l{number}.fo"),
            "outer_norm": norm(f"l{number}.oln"),
        }

    positions = from_.tensor("emb.pos").reshape(-1, WIDTH)[:TOKENS_MAX] + from_.tensor("emb.type")[:WIDTH]
    return {
        "positions": positions,
        "superwords": np.zeros((superwords + 1, WIDTH), dtype=np.float32),
        "norm": norm("emb.ln"),
        "layers": jax.tree.map(lambda *parts: np.stack(parts), *map(layer, range(layers))),
        "head": {
            "weight": random.normal(0, HEAD_SPREAD, (WIDTH, len(CLASSES))).astype(np.float32),
            "bias": np.zeros(len(CLASSES), dtype=np.float32),
        },
    }


def filled(read: Sequence[Sequence[Run]], superwords: Superwords, texts: int) -> Batch:
    """Fill texts up to one length, and the batch to so many texts; what is too long is shortened."""
    read = [shortened(list(runs), TOKENS_MAX) for runs in read]
    longest = max(map(len, read))
    length = next(length for length in LENGTHS if length >= longest)
    words = np.zeros((texts, length, WIDTH), dtype=np.float32)
    numbers = np.zeros((texts, length), dtype=np.int32)
    there = np.zeros((texts, length), dtype=np.float32)
    there[:, 0] = 1  # also in rows without a text: a mean over nothing is no number
    for row, runs in enumerate(read):
        words[row, : len(runs)] = vectors(runs)
        numbers[row, : len(runs)] = superwords.numbers(runs)
        there[row, : len(runs)] = 1
    return Batch(words, numbers, there)


def _update(
    recipe: Recipe,
    parameters: Parameters,
    moments: Any,
    batch: Batch,
    wanted: Any,
    speed: float,
    number: int,
    key: jax.Array,
) -> tuple[Parameters, Any]:
    """Take one step of Adam with decoupled weight decay on the matrices."""
    gradient = jax.grad(_loss)(parameters, batch, wanted, recipe.dropout, key)
    norm = jnp.sqrt(sum(jnp.sum(part**2) for part in jax.tree.leaves(gradient)))
    gradient = jax.tree.map(lambda part: part * jnp.minimum(1.0, GRADIENT_NORM_MAX / norm), gradient)
    first = jax.tree.map(lambda m, g: FIRST_MOMENT * m + (1 - FIRST_MOMENT) * g, moments[0], gradient)
    second = jax.tree.map(lambda m, g: SECOND_MOMENT * m + (1 - SECOND_MOMENT) * g * g, moments[1], gradient)

    def moved(path: Any, at: jax.Array, mean: jax.Array, square: jax.Array) -> jax.Array:
        direction = mean / (1 - FIRST_MOMENT**number)
        direction /= jnp.sqrt(square / (1 - SECOND_MOMENT**number)) + MOMENT_EPSILON
        name = jax.tree_util.keystr(path)
        decay = recipe.decay if name.endswith("['weight']") and "norm" not in name else 0.0
        return at - speed * (HEAD_SPEED if "head" in name else 1.0) * (direction + decay * at)

    return jax.tree_util.tree_map_with_path(moved, parameters, first, second), (first, second)


def _loss(parameters: Parameters, batch: Batch, wanted: Any, dropout: float, key: jax.Array) -> jax.Array:
    found = jax.nn.log_softmax(forward(parameters, batch, dropout, key))
    return jnp.asarray(-(wanted * found).sum() / wanted.sum())

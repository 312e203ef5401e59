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
from typing import Any, Final, TypeAlias

os.environ["NPROC"] = "2"  # so many threads share each product: with another number, sums add up in another order

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from services.classification.model.batching import batches, speed
from services.classification.model.encoder import CLASSES, TOKENS_MAX, tokenizer
from services.classification.model.pretrained import HEADS, NORM_EPSILON, WIDTH, Pretrained, pretrained

Parameters: TypeAlias = dict[str, Any]
"""Arrays by name, those of the layers stacked along their first axis."""

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


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the encoder is trained."""

    epochs: int = 3
    layers: int = 6
    """The first ones of the twelve."""
    batch_texts: int = 64
    step: float = 1.5e-4
    warm_up: float = 0.1
    """Over this share of the steps their size rises to `step`; then it falls to nothing."""
    decay: float = 0.01
    dropout: float = 0.1
    seed: int = 0


def fine_tuned(texts: Sequence[str], odds: npt.NDArray[np.float32], recipe: Recipe) -> Parameters:
    """Train on texts in normal form and how likely each class of `CLASSES` is, (texts, 3); give the parameters."""
    ids = [np.array(tokenizer().encode(text), dtype=np.intp) for text in texts]
    random = np.random.default_rng(recipe.seed)
    parameters = jax.tree.map(jnp.asarray, _start(pretrained(), recipe.layers, random))
    moments = jax.tree.map(jnp.zeros_like, (parameters, parameters))
    update = jax.jit(partial(_update, recipe), donate_argnums=(0, 1))
    keys = jax.random.key(recipe.seed, impl="unsafe_rbg")
    steps = recipe.epochs * math.ceil(len(ids) / recipe.batch_texts)
    number = 0
    for epoch in range(recipe.epochs):
        for rows in batches(ids, recipe.batch_texts, random):
            number += 1
            batch = filled([ids[row] for row in rows], odds[rows], recipe.batch_texts)
            step = recipe.step * speed(number, steps, recipe.warm_up)
            parameters, moments = update(parameters, moments, batch, step, number, jax.random.fold_in(keys, number))
        sys.stderr.write(f"encoder: {len(ids)} texts read {epoch + 1} of {recipe.epochs} times\n")
    found: Parameters = jax.tree.map(np.asarray, parameters)
    return found


def _start(from_: Pretrained, layers: int, random: np.random.Generator) -> Parameters:
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
        "norm": norm("emb.ln"),
        "layers": jax.tree.map(lambda *parts: np.stack(parts), *map(layer, range(layers))),
        "head": {
            "weight": random.normal(0, HEAD_SPREAD, (WIDTH, len(CLASSES))).astype(np.float32),
            "bias": np.zeros(len(CLASSES), dtype=np.float32),
        },
    }


def filled(
    ids: Sequence[npt.NDArray[np.intp]], odds: npt.NDArray[np.float32], texts: int
) -> tuple[npt.NDArray[Any], ...]:
    """Give a batch: vectors (texts, length, WIDTH), which tokens are there, and odds, 0 where there is no text."""
    longest = max(map(len, ids))
    length = next(length for length in LENGTHS if length >= longest)
    words = np.zeros((texts, length, WIDTH), dtype=np.float32)
    there = np.zeros((texts, length), dtype=np.float32)
    there[:, 0] = 1  # also in rows without a text: a mean over nothing is no number
    for row, pieces in enumerate(ids):
        words[row, : len(pieces)] = pretrained().words(pieces.tolist())
        there[row, : len(pieces)] = 1
    wanted = np.zeros((texts, len(CLASSES)), dtype=np.float32)
    wanted[: len(odds)] = odds
    return words, there, wanted


def _update(
    recipe: Recipe, parameters: Parameters, moments: Any, batch: Any, speed: float, number: int, key: jax.Array
) -> tuple[Parameters, Any]:
    """Take one step of Adam with decoupled weight decay on the matrices."""
    gradient = jax.grad(_loss)(parameters, batch, recipe.dropout, key)
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


def _loss(parameters: Parameters, batch: Any, dropout: float, key: jax.Array) -> jax.Array:
    words, there, wanted = batch
    found = jax.nn.log_softmax(forward(parameters, words, there, dropout, key))
    return jnp.asarray(-(wanted * found).sum() / wanted.sum())


def forward(parameters: Parameters, words: Any, there: Any, dropout: float, key: jax.Array) -> jax.Array:
    """Give the scores, (texts, 3), of pieces' vectors, (texts, length, WIDTH), where `there` is 1."""
    texts, length, _ = words.shape
    kept = 1 - dropout
    ignored = jnp.where(there > 0, 0.0, -1e9)[:, None, None, :]

    def dropped(key: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, kept, x.shape), x / kept, 0) if dropout else x

    def layer(x: jax.Array, given: Any) -> tuple[jax.Array, None]:
        part, key = given
        ours, theirs = jax.random.split(key)
        parts = _linear(part["qkv"], x).reshape(texts, length, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        query, key_, value = parts
        weight = jax.nn.softmax(query @ key_.swapaxes(-1, -2) / math.sqrt(WIDTH // HEADS) + ignored)
        seen = (weight @ value).transpose(0, 2, 1, 3).reshape(texts, length, WIDTH)
        x = _norm(part["attention_norm"], x + dropped(ours, _linear(part["attention"], seen)))
        inner = jax.nn.gelu(_linear(part["inner"], x), approximate=False)
        return _norm(part["outer_norm"], x + dropped(theirs, _linear(part["outer"], inner))), None

    keys = jax.random.split(key, len(parameters["layers"]["qkv"]["bias"]) + 1)
    x = _norm(parameters["norm"], words + parameters["positions"][:length])
    x, _ = jax.lax.scan(layer, x, (parameters["layers"], keys[1:]))
    mean = (x * there[..., None]).sum(axis=1) / there.sum(axis=1, keepdims=True)
    return _linear(parameters["head"], dropped(keys[0], mean))


def _linear(part: Parameters, x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])  # one large product instead of one a text
    return jnp.asarray((rows @ part["weight"] + part["bias"]).reshape(*x.shape[:-1], -1))


def _norm(part: Parameters, x: jax.Array) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = (centred * centred).mean(axis=-1, keepdims=True)
    return jnp.asarray(centred * jax.lax.rsqrt(spread + NORM_EPSILON) * part["weight"] + part["bias"])

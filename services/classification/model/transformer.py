"""The encoder in jax, as it is trained: vectors of runs of pieces in, scores out."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from services.classification.model.pretrained import HEADS, NORM_EPSILON, WIDTH

Parameters: TypeAlias = dict[str, Any]
"""Arrays by name, those of the layers stacked along their first axis."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts filled up to one length."""

    words: Any
    """Vectors of runs of pieces, (texts, length, WIDTH)."""
    superwords: Any
    """Their numbers, (texts, length), 0 for what is none."""
    there: Any
    """1 where a text is, 0 where it is filled up, (texts, length)."""


jax.tree_util.register_dataclass(Batch, ["words", "superwords", "there"], [])


def forward(parameters: Parameters, batch: Batch, dropout: float, key: jax.Array) -> jax.Array:
    """Give the scores, (texts, 3)."""
    keys = jax.random.split(key)
    x, _ = states(parameters, batch, dropout, keys[0])
    mean = (x * batch.there[..., None]).sum(axis=1) / batch.there.sum(axis=1, keepdims=True)
    return _linear(parameters["head"], _dropped(keys[1], mean, dropout))


def states(parameters: Parameters, batch: Batch, dropout: float, key: jax.Array) -> tuple[jax.Array, Any]:
    """Give the last layer's vectors; and mean and variance of each layer's inner numbers, (layers, INNER_WIDTH)."""
    texts, length, _ = batch.words.shape
    ignored = jnp.where(batch.there > 0, 0.0, -1e9)[:, None, None, :]
    weight = (batch.there / batch.there.sum()).reshape(-1, 1)

    def layer(x: jax.Array, given: Any) -> tuple[jax.Array, Any]:
        part, key = given
        ours, theirs = jax.random.split(key)
        parts = _linear(part["qkv"], x).reshape(texts, length, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        query, key_, value = parts
        looked = jax.nn.softmax(query @ key_.swapaxes(-1, -2) / math.sqrt(WIDTH // HEADS) + ignored)
        seen = (looked @ value).transpose(0, 2, 1, 3).reshape(texts, length, WIDTH)
        x = _norm(part["attention_norm"], x + _dropped(ours, _linear(part["attention"], seen), dropout))
        inner = jax.nn.gelu(_linear(part["inner"], x), approximate=False)
        rows = inner.reshape(-1, inner.shape[-1])
        mean = (rows * weight).sum(axis=0)
        variance = ((rows - mean) ** 2 * weight).sum(axis=0)
        x = _norm(part["outer_norm"], x + _dropped(theirs, _linear(part["outer"], inner), dropout))
        return x, (mean, variance)

    learnt = jnp.where(batch.superwords[..., None] > 0, parameters["superwords"][batch.superwords], 0)
    x = _norm(parameters["norm"], batch.words + learnt + parameters["positions"][:length])
    keys = jax.random.split(key, len(parameters["layers"]["qkv"]["bias"]))
    return jax.lax.scan(layer, x, (parameters["layers"], keys))


def _dropped(key: jax.Array, x: jax.Array, dropout: float) -> jax.Array:
    kept = 1 - dropout
    return jnp.where(jax.random.bernoulli(key, kept, x.shape), x / kept, 0) if dropout else x


def _linear(part: Parameters, x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])  # one large product instead of one a text
    return jnp.asarray((rows @ part["weight"] + part["bias"]).reshape(*x.shape[:-1], -1))


def _norm(part: Parameters, x: jax.Array) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = (centred * centred).mean(axis=-1, keepdims=True)
    return jnp.asarray(centred * jax.lax.rsqrt(spread + NORM_EPSILON) * part["weight"] + part["bias"])

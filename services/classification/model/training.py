"""`python -m services.classification.model.training`: train the model and write its artefact.

Regressions on words (`regression.py`) and an encoder of their meaning (`finetuning.py`) learn from all training rows
but the judges', and from larger models' opinions on mixtures of rows (`mixtures.py`). On the judges' rows
is chosen what turns scores into answers (`limits.py`). Nothing is random but for one seed, so the same data give the
same weights on the same kind of processor. Only training rows are read.

The encoder's first training takes hours; where all that it is made of is as it was (`ancestry.py`), its network at
hand is taken. Later rows are learnt from there (`further.py`).
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from services.classification.model import corpus
from services.classification.model import mixtures as mixing
from services.classification.model.ancestry import ancestry, network_at_hand
from services.classification.model.classifier import (
    ARTEFACT,
    BASE_FILE,
    MANIFEST_FILE,
    NETWORK_FILE,
    SEEN_SLOTS,
    WEIGHTS_FILE,
    phrases_hashes,
    pretrained_version,
    weights_hash,
    word_slots,
)
from services.classification.model.corpus import JUDGES, Example
from services.classification.model.encoder import CLASSES, Encoder, tokenizer
from services.classification.model.features import FEATURES_VERSION, Bools, clean, extract
from services.classification.model.finetuning import Recipe, fine_tuned
from services.classification.model.further import further_recipe, taught_further
from services.classification.model.limits import LeftOut, choose_limits, summary
from services.classification.model.meaning import Scores, latin, meanings
from services.classification.model.mixtures import Mixture
from services.classification.model.network import network_of
from services.classification.model.regression import COLUMNS, PENALTY, Matrix, fit, matrix_of, rounded
from services.classification.model.signals import WAYS_TO_DECLINE, hold_a_notice
from services.classification.model.superwords import learnt

MIMICS: Final = ("r1", "r2")
"""Authors whose people sound like machines on purpose: limits are not chosen on these."""
ROW_COUNTS: Final = 3.0
"""To the regressions a row with its label counts for as much as so many mixtures with opinions."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples and their texts as the models see them."""

    examples: Sequence[Example]
    cleaned: Sequence[str]
    matrix: Matrix

    def only(self, wanted: npt.NDArray[np.bool_]) -> "Rows":
        """The rows that are wanted."""
        kept = np.flatnonzero(wanted).tolist()
        return Rows([self.examples[row] for row in kept], [self.cleaned[row] for row in kept], self.matrix.only(wanted))

    def are(self, label: str) -> npt.NDArray[np.bool_]:
        """Which rows have the label."""
        return np.array([example.label == label for example in self.examples], dtype=bool)

    def tagged(self, tag: str) -> npt.NDArray[np.bool_]:
        """Which rows have the tag."""
        return np.array([tag in example.tags for example in self.examples], dtype=bool)

    def by(self, authors: Container[str]) -> npt.NDArray[np.bool_]:
        """Which rows are by one of the authors."""
        return np.array([example.author in authors for example in self.examples], dtype=bool)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights of the words, (COLUMNS + 1,) for each name of `LEARNT`, and the network after both its trainings."""

    words: dict[str, Scores]
    base: bytes
    ancestry: str
    network: bytes


@dataclass(frozen=True, slots=True)
class Trained:
    """What the artefact holds."""

    arrays: dict[str, npt.NDArray[Any]]
    base: bytes
    network: bytes
    manifest: dict[str, Any]


def train(
    examples: Sequence[Example],
    mixtures: Sequence[Mixture] = (),
    *,
    later: Sequence[Example] = (),
    judges: Sequence[str] = JUDGES,
    recipe: Recipe | None = None,
    at_hand: Path | None = None,
) -> Trained:
    """Train on the examples and on what larger models think of the mixtures, then on `later` ones.

    `at_hand` is the folder of an artefact whose network is taken where the first training would give the same one.

    To the words an automated reply is an acceptance, for that is the side to take when nobody has declined; calibration
    and figures leave them out.

    Raises:
        ValueError: limits cannot be chosen, as there are no rows by `judges` or by others.

    """
    everyone = [*examples, *later]
    judged = np.array([example.author in judges for example in everyone], dtype=bool)
    if judged.all() or not judged.any():
        message = f"limits are chosen on rows by {', '.join(judges)} after training on others: add rows by both"
        raise ValueError(message)
    with threadpool_limits(1, user_api="blas"):  # sums in one order, whatever the number of cores
        return _train(everyone, len(later), mixtures, judged, recipe or Recipe(), at_hand)


def _train(
    examples: Sequence[Example],
    later: int,
    mixtures: Sequence[Mixture],
    judged: Bools,
    recipe: Recipe,
    at_hand: Path | None,
) -> Trained:
    cleaned = clean([example.text for example in examples])
    features = extract(cleaned)
    rows = Rows(examples, cleaned, matrix_of(features))
    first = int((~judged[: len(examples) - later]).sum())
    fitted = _fitted(rows.only(~judged), first, mixtures, recipe, at_hand)
    left = _left_out(fitted, rows.only(judged))
    limits = choose_limits(left)
    text, slot = word_slots(features)
    seen = np.zeros(SEEN_SLOTS, dtype=bool)
    seen[slot[~judged[text]]] = True
    arrays: dict[str, npt.NDArray[Any]] = {"seen": np.packbits(seen)}
    for name, weights in fitted.words.items():
        arrays |= rounded(weights).stored(name)
    hashes = {
        "features_version": FEATURES_VERSION,
        **phrases_hashes(),
        "pretrained": pretrained_version(),
        "network_sha256": hashlib.sha256(fitted.network).hexdigest(),
        "weights_sha256": weights_hash(arrays),
    }
    identity = hashlib.sha256(json.dumps([*hashes.values(), asdict(limits)], sort_keys=True).encode()).hexdigest()
    manifest = {
        "model_version": f"cascade-{FEATURES_VERSION}-{identity[:12]}",
        **hashes,
        "base_ancestry": fitted.ancestry,
        "base_sha256": hashlib.sha256(fitted.base).hexdigest(),
        "data_sha256": corpus.digest(examples),
        "mixtures_sha256": mixing.digest(mixtures),
        "rows": len(examples),
        "rows_later": later,
        "mixtures": len(mixtures),
        "penalty": PENALTY,
        "recipe": asdict(recipe),
        "recipe_further": asdict(further_recipe(recipe)),
        "limits": asdict(limits),
        "left_out": summary(left, limits),
    }
    return Trained(arrays, fitted.base, fitted.network, manifest)


def _fitted(rows: Rows, first: int, mixtures: Sequence[Mixture], recipe: Recipe, at_hand: Path | None) -> Fitted:
    """Train on rows, of which so many are the first training's and those after them the second's, and on mixtures."""
    labels = np.column_stack([rows.are(name) for name in CLASSES]).astype(np.float32)
    opinions = np.array([mixture.odds for mixture in mixtures], dtype=np.float32).reshape(-1, len(CLASSES))
    odds = np.concatenate((labels, opinions))
    cleaned = clean([mixture.text for mixture in mixtures])
    pieces, mixed = (tokenizer().encode([latin(text) for text in texts]) for texts in (rows.cleaned, cleaned))
    known = [*pieces[:first], *mixed], np.concatenate((labels[:first], opinions))
    made_of, base = _base(*known, first, recipe, at_hand)
    network = base
    if first < len(pieces):
        network = taught_further(base, (pieces[first:], labels[first:]), known, recipe)
    matrix = rows.matrix.above(matrix_of(extract(cleaned)))
    counts = np.repeat((ROW_COUNTS, 1.0), (len(labels), len(opinions)))
    words = {
        name: fit(matrix, odds[:, CLASSES.index(name)].astype(np.float64), counts) for name in ("decline", "auto_reply")
    }
    refusals = rows.only(rows.are("decline"))
    return Fitted(words | {way: _way(refusals, way) for way in WAYS_TO_DECLINE}, base, made_of, network)


def _base(
    pieces: Sequence[Sequence[int]],
    odds: npt.NDArray[np.float32],
    rows: int,
    recipe: Recipe,
    at_hand: Path | None,
) -> tuple[str, bytes]:
    """Give what the network of the first training is made of, and the network; the first `rows` are no mixtures."""
    superwords = learnt([ids[1:-1] for ids in pieces[:rows]])
    made_of = ancestry(pieces, odds, recipe, superwords)
    network = None if at_hand is None else network_at_hand(at_hand, made_of)
    return made_of, network or network_of(fine_tuned(pieces, odds, recipe, superwords), superwords)


def _way(refusals: Rows, tag: str) -> Scores:
    """Fit one way to decline; an author who gives its tag nowhere tells nothing by leaving it out."""
    authors = {example.author for example in refusals.examples if tag in example.tags}
    if not authors:
        return np.zeros(COLUMNS + 1)
    told = refusals.only(refusals.by(authors))
    return fit(told.matrix, told.tagged(tag).astype(np.float64), np.ones(len(told.examples)))


def _left_out(fitted: Fitted, rows: Rows) -> LeftOut:
    meant, auto_meant = meanings(Encoder(fitted.network), rows.cleaned)
    by_person, declined = ~rows.are("auto_reply"), rows.are("decline")
    refusals = rows.only(declined)
    return LeftOut(
        words=rows.matrix.times(fitted.words["decline"]),
        meant=meant,
        auto_words=rows.matrix.times(fitted.words["auto_reply"]),
        auto_meant=auto_meant,
        declined=declined.astype(np.float64),
        by_person=by_person,
        counts=by_person & ~rows.by(MIMICS),
        noticed=hold_a_notice(rows.cleaned),
        ways={way: (refusals.matrix.times(fitted.words[way]), refusals.tagged(way)) for way in WAYS_TO_DECLINE},
    )


def write(trained: Trained, folder: Path = ARTEFACT) -> None:
    """Store a trained model."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / WEIGHTS_FILE, allow_pickle=False, **trained.arrays)
    (folder / BASE_FILE).write_bytes(trained.base)
    (folder / NETWORK_FILE).write_bytes(trained.network)
    text = json.dumps(trained.manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def main() -> None:
    """Train on all training rows and mixtures, and on rows of further files, and store the model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--also", type=Path, action="append", default=[], help="JSON Lines as in data/replies")
    parser.add_argument("--out", type=Path, default=ARTEFACT, help="the folder to write to [default: the one at work]")
    parser.add_argument("--anew", action="store_true", help="train the encoder even if the one at work is the same")
    given = parser.parse_args()
    first, later = corpus.first_and_later(corpus.load("train"))
    later += [example for path in given.also for example in corpus.read(path)]
    trained = train(first, mixing.load(), later=later, at_hand=None if given.anew else ARTEFACT)
    write(trained, given.out)
    json.dump(trained.manifest, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

"""Training: the same data give the same model, and what stands in the artefact is what was learnt."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from services.classification.model import classifier as stored
from services.classification.model import corpus, finetuning, mixtures, narrowing, regression, training, transformer
from services.classification.model.classifier import ARTEFACT, BASE_FILE, Classifier
from services.classification.model.corpus import Example
from services.classification.model.encoder import Encoder, tokenizer
from services.classification.model.features import clean, extract
from services.classification.model.mixtures import Mixture
from services.classification.model.narrowing import narrowed
from services.classification.model.network import network_of, parameters_of
from services.classification.model.pretrained import pretrained
from services.classification.model.superwords import COUNT_MIN, Superwords, learnt

SMALL = finetuning.Recipe(epochs=2, layers=2, inner_width=512)


def examples(count: int = 40) -> list[Example]:
    says = {"accept": ("yes, count me in", "tell me more"), "decline": ("no thanks", "not interested")}
    return [
        *(
            Example(f"{says[label][i % 2]} {i}", label, "en", (), "xy"[i // 2 % 2], "train")
            for i in range(count)
            for label in ("accept", "decline")
        ),
        *(Example(f"out of office until {i} May", "auto_reply", "en", (), "xy"[i % 2], "train") for i in range(4)),
    ]


MIXTURES = (Mixture("yes, count me in, but out of office", (0.3, 0.1, 0.6)),)


@pytest.fixture(scope="module")
def small() -> training.Trained:
    return training.train(examples(), MIXTURES, judges=("y",), recipe=SMALL)


def test_training_twice_gives_the_same_model(small: training.Trained) -> None:
    again = training.train(examples(), MIXTURES, judges=("y",), recipe=SMALL)
    assert again.manifest["left_out"]["rows"] == 40
    assert small.manifest == again.manifest
    assert small.network == again.network
    assert all(small.arrays[name].tobytes() == again.arrays[name].tobytes() for name in small.arrays)


def test_a_network_of_the_same_ancestry_is_not_trained_again(
    small: training.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.write(small, tmp_path)
    monkeypatch.setattr(training, "fine_tuned", _no_training)
    again = training.train(examples(), MIXTURES, judges=("y",), recipe=SMALL, at_hand=tmp_path)
    assert again.manifest == small.manifest
    assert again.network == small.network
    assert all(small.arrays[name].tobytes() == again.arrays[name].tobytes() for name in small.arrays)


@pytest.mark.parametrize(
    "changed",
    [
        {"examples": examples(41)},
        {"mixtures": (Mixture(MIXTURES[0].text, (0.2, 0.2, 0.6)),)},
        {"recipe": replace(SMALL, seed=1)},
        {"code": b"other code"},
        {"network": b"other bytes"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_network_of_another_ancestry_is_trained_anew(
    changed: dict[str, Any], small: training.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.write(small, tmp_path)
    monkeypatch.setattr(training, "fine_tuned", _no_training)
    if "network" in changed:
        (tmp_path / BASE_FILE).write_bytes(changed["network"])
    if "code" in changed:
        (tmp_path / "other.py").write_bytes(changed["code"])
        monkeypatch.setattr(narrowing, "__file__", str(tmp_path / "other.py"))
    with pytest.raises(_TrainingError):
        training.train(
            changed.get("examples", examples()),
            changed.get("mixtures", MIXTURES),
            judges=("y",),
            recipe=changed.get("recipe", SMALL),
            at_hand=tmp_path,
        )


def test_later_rows_are_learnt_from_where_the_first_training_ended(
    small: training.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decline(network: bytes) -> float:
        accept, decline, _ = Encoder(network).scores(["the blue gate 7"])[0]
        return float(decline - accept)

    training.write(small, tmp_path)
    monkeypatch.setattr(training, "fine_tuned", _no_training)
    later = [Example(f"the blue gate {number}", "decline", "en", (), "z", "train") for number in range(200)]
    taught = training.train(examples(), MIXTURES, later=later, judges=("y",), recipe=SMALL, at_hand=tmp_path)
    assert taught.base == small.network == small.base
    assert decline(taught.network) > decline(taught.base)
    assert taught.manifest["rows_later"] == 200
    assert taught.manifest["data_sha256"] == corpus.digest([*examples(), *later])


def test_a_network_read_back_is_the_same(small: training.Trained) -> None:
    assert network_of(*parameters_of(small.network)) == small.network


class _TrainingError(Exception):
    """Raised where a network would be trained."""


def _no_training(*_: object) -> None:
    raise _TrainingError


def test_a_trained_model_can_be_stored_and_loaded(small: training.Trained, tmp_path: Path) -> None:
    training.write(small, tmp_path)
    loaded = Classifier.load(tmp_path)
    assert loaded.version == small.manifest["model_version"]
    assert [p.label for p in loaded.classify(["yes, count me in", "no thanks"])] == ["accept", "decline"]


@pytest.mark.parametrize("author", ["x", "y"])
def test_rows_of_one_side_only_are_refused(author: str) -> None:
    with pytest.raises(ValueError, match="add rows by both"):
        training.train([row for row in examples() if row.author == author], judges=("y",))


def test_the_stored_scores_are_those_of_training(small: training.Trained) -> None:
    rows = [row for row in examples() if row.author == "x"]
    limits, weights = stored.Limits(**small.manifest["limits"]), stored.weights_of(small.arrays)
    features = extract(clean([*(row.text for row in rows), *(mixture.text for mixture in MIXTURES)]))
    declined = np.array([*(float(row.label == "decline") for row in rows), *(mixture.odds[1] for mixture in MIXTURES)])
    counts = np.array([training.ROW_COUNTS] * len(rows) + [1.0] * len(MIXTURES))
    matrix = regression.matrix_of(features)
    exact = matrix.times(regression.fit(matrix, declined, counts))
    scores = stored.words_scores(features, weights, limits)["decline"]
    assert np.abs(scores - exact).max() < 0.02, "but for the rounding to 8 bits"


def test_the_stored_network_is_the_trained_one() -> None:
    """But for the rounding to 7 and 8 bits; what is filled up and the other texts of a batch do not count."""
    texts = clean(["yes, count me in", "no thanks, and please do not write again", "tell me more"])
    odds = np.eye(3, dtype=np.float32)[[0, 1, 0]]
    pieces = tokenizer().encode(texts)
    superwords = learnt([ids[1:-1] for ids in pieces] * COUNT_MIN)
    parameters = finetuning.fine_tuned(tokenizer().encode(texts), odds, SMALL, superwords)
    parameters["head"]["weight"] = parameters["head"]["weight"] * 50  # so little training leaves small scores
    parameters["superwords"] = parameters["superwords"] * 20
    batch = finetuning.filled([superwords.joined(ids) for ids in pieces], superwords, texts=5)
    exact = transformer.forward(parameters, batch, 0.0, jax.random.key(0))[:3]
    # A missing layer, bias or table of superwords is 0.2 and more of the scores' range.
    stored_scores = Encoder(network_of(parameters, superwords)).scores(texts)
    np.testing.assert_allclose(stored_scores, exact, atol=0.12 * np.ptp(exact))


def test_the_inner_numbers_that_tell_most_are_kept() -> None:
    """Leaving out those that hardly vary changes next to nothing, and their mean is not lost."""
    texts = clean([row.text for row in examples()])
    read = [[(piece,) for piece in pieces] for pieces in tokenizer().encode(texts)]
    batch = finetuning.filled(read, Superwords(), len(read))
    parameters = finetuning._start(pretrained(), 2, 0, np.random.default_rng(0))
    outer, inner = (parameters["layers"][name] for name in ("outer", "inner"))
    outer["weight"] = outer["weight"].copy()
    inner["weight"] = inner["weight"].copy()
    inner["weight"][:, :, 100:] = 0  # so that they are the same everywhere, but not nothing
    before, _ = transformer.states(parameters, batch, 0.0, jax.random.key(0))
    after, _ = transformer.states(narrowed(parameters, batch, 100), batch, 0.0, jax.random.key(0))
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_the_stored_model_is_made_from_the_rows_that_lie_here() -> None:
    manifest = json.loads((ARTEFACT / stored.MANIFEST_FILE).read_text(encoding="utf-8"))
    first, later = corpus.first_and_later(corpus.load("train"))
    assert manifest["data_sha256"] == corpus.digest([*first, *later]), "the rows changed: make train"
    assert manifest["mixtures_sha256"] == mixtures.digest(mixtures.load()), "the mixtures changed: make train"


def test_mixtures_teach_the_encoder_what_their_odds_say() -> None:
    def scores(*odds: float) -> list[float]:
        taught = [Mixture(f"the blue gate {number}", (odds[0], odds[1], odds[2])) for number in range(40)]
        network = training.train(examples(), taught, judges=("y",), recipe=SMALL).network
        return list(map(float, Encoder(network).scores(["the blue gate 7"])[0]))

    accept, decline, machine = scores(0.1, 0.8, 0.1)
    assert decline > max(accept, machine)
    accept, decline, machine = scores(0.1, 0.1, 0.8)
    assert machine > max(accept, decline)

"""The one interface of the model: texts in, predictions out. Another model may stand behind it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from services.classification.model import features as feature
from services.classification.model import words
from services.classification.model.courtesies import COURTESIES_PATH, say_nothing_else
from services.classification.model.encoder import Encoder
from services.classification.model.features import BUCKETS, FEATURES_VERSION, LEXICON_PATH, Bools, Features
from services.classification.model.hashing import Ints
from services.classification.model.meaning import Scores, meanings
from services.classification.model.pretrained import PACKAGE
from services.classification.model.signals import (
    ABSENCES_PATH,
    NOTICES_PATH,
    WAYS_TO_DECLINE,
    calls_itself_automatic,
    hold_a_notice,
    signals_of,
)
from services.classification.model.words import Regression

ARTEFACT: Final = Path(__file__).parent / "artefact"
WEIGHTS_FILE: Final = "model.npz"
NETWORK_FILE: Final = "network.onnx"
BASE_FILE: Final = "base.onnx"
"""The network after its first training, from which the second begins; not needed at work."""
MANIFEST_FILE: Final = "manifest.json"

LEARNT: Final = ("decline", "auto_reply", *WAYS_TO_DECLINE)
SLOTS_PER_BUCKET: Final = 16
SEEN_SLOTS: Final = BUCKETS * SLOTS_PER_BUCKET

BATCH_TEXTS_MAX: Final = 256
BATCH_CHARS_MAX: Final = 100_000
"""Texts are worked on in groups of this size: about 30 MB of arrays, whatever is asked for at once."""

Label = Literal["accept", "decline"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model makes of a text. `confidence` is the probability that the label is right, 0 to 1."""

    label: Label
    confidence: float
    needs_confirmation: bool
    signals: tuple[str, ...]
    model_version: str


@dataclass(frozen=True, slots=True)
class Weights:
    """What has been learnt of words: a regression for each name of `LEARNT`, whose positive score speaks for it.

    `seen` tells which slots of words the training data holds, (SEEN_SLOTS,).
    """

    regressions: Mapping[str, Regression]
    seen: Bools


@dataclass(frozen=True, slots=True)
class Limits:
    """How scores become answers; chosen on rows that the scores' weights were not fitted on."""

    group_factors: dict[str, float]
    dense_factor: float
    words_calibration: Sequence[float]
    """Slope and offset that turn the score of a text's words into a probability."""
    together: Sequence[float]
    """What the scores of words and meaning count for together, and an offset: the log odds of a refusal."""
    auto_together: Sequence[float]
    """The same for an automated reply."""
    words_confidence_min: float
    """From here upwards the words decide alone; below, the encoder is asked for the meaning."""
    decline_probability_min: float
    """Below it a text is not clearly a refusal, and what is unclear leans to accept."""
    sure_confidence_min: float
    auto_asked_min: float
    """From this score of its words upwards a text may be an automated reply, and the encoder is asked."""
    auto_score_min: float
    """From this score of words and meaning upwards it is suspected to be one."""
    way_score_min: dict[str, float]
    """From these scores of its words upwards a refusal is told to be "not now" or the like; without one it never is."""
    known_words_min: float
    """A text with a smaller share of known words is in a language, or about things, that the model has not met."""


class ArtefactError(RuntimeError):
    """The stored model does not fit this code; the message says what to do."""


class Classifier:
    """A loaded model. Thread-safe: it is never changed."""

    def __init__(self, weights: Weights, encoder: Encoder, limits: Limits, version: str) -> None:
        self._weights = weights
        self._encoder = encoder
        self.limits = limits
        self.version = version

    @classmethod
    def load(cls, folder: Path = ARTEFACT) -> "Classifier":
        """Load the stored model, once per process and folder.

        Raises:
            ArtefactError: there is none, or it was made for other features or another lexicon.

        """
        return _load(folder)

    def with_words_from(self, confidence_min: float) -> "Classifier":
        """Give the same model with another limit from which the words decide alone; with 0 they always do."""
        known_words_min = self.limits.known_words_min if confidence_min else 0.0
        limits = replace(
            self.limits,
            words_confidence_min=confidence_min,
            known_words_min=known_words_min,
            auto_asked_min=self.limits.auto_asked_min if confidence_min else float("inf"),
        )
        return Classifier(self._weights, self._encoder, limits, f"{self.version}, words from {confidence_min}")

    def asked_share(self, texts: Sequence[str]) -> float:
        """Give the share of texts for which the encoder is asked."""
        found = feature.extract(feature.clean(texts))
        asked = self._asked(found, words_scores(found, self._weights, self.limits))
        return float(asked.mean()) if texts else 0.0

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify texts of any length and language. Never raises; a text's answer depends on no other."""
        cleaned = chain.from_iterable(map(feature.clean, _in_groups(texts)))
        return list(chain.from_iterable(map(self._classify_some, _in_groups(cleaned))))

    def _classify_some(self, cleaned: Sequence[str]) -> list[Prediction]:
        limits = self.limits
        found = feature.extract(cleaned)
        spoken = (found.words > 0) & ~say_nothing_else(cleaned)
        scores = words_scores(found, self._weights, limits)
        decline, suspected = self._judge(cleaned, found, scores)
        suspected |= calls_itself_automatic(cleaned)
        decline[~spoken] = 0.5
        # R9, R7: what a machine may have written is a response, and leans to accept unless it is surely a refusal.
        clear = np.where(suspected, limits.sure_confidence_min, limits.decline_probability_min)
        declined = spoken & (decline >= clear)
        confidence = np.where(declined, decline, 1 - decline)
        unsure = (
            ~spoken
            | (confidence < limits.sure_confidence_min)
            | suspected
            | (known_share(found, self._weights) < limits.known_words_min)
        )
        ways = {name: scores[name] >= low for name, low in limits.way_score_min.items()}
        signals = signals_of(questions=found.questions, declined=declined, suspected=suspected, ways=ways)
        answers = zip(declined.tolist(), confidence.tolist(), unsure.tolist(), signals, strict=True)
        return [
            Prediction("decline" if is_declined else "accept", round(sure, 4), needs, said, self.version)
            for is_declined, sure, needs, said in answers
        ]

    def _asked(self, found: Features, scores: Mapping[str, Scores]) -> Bools:
        """Tell for which texts the encoder is to be asked: those whose words leave something open."""
        decline = probability(scores["decline"], self.limits.words_calibration)
        sure = np.maximum(decline, 1 - decline) >= self.limits.words_confidence_min
        known = known_share(found, self._weights) >= self.limits.known_words_min
        clear = sure & known & (scores["auto_reply"] < self.limits.auto_asked_min)
        return np.asarray((found.words > 0) & ~clear, dtype=bool)

    def _judge(self, cleaned: Sequence[str], found: Features, scores: Mapping[str, Scores]) -> tuple[Scores, Bools]:
        """Give the probability that each text declines, and whether a machine wrote it.

        By its words where they tell, else by its meaning as well. The words of a notice count in any case, as they did
        where limits were chosen (`limits.py`).
        """
        limits, automatic = self.limits, scores["auto_reply"]
        decline = probability(scores["decline"], limits.words_calibration)
        suspected = hold_a_notice(cleaned)
        asked = np.flatnonzero(self._asked(found, scores))
        if len(asked):
            texts = [cleaned[number] for number in asked.tolist()]
            meant, auto_meant = meanings(self._encoder, texts)
            decline[asked] = probability(weighed(scores["decline"][asked], meant, limits.together))
            machine = weighed(automatic[asked], auto_meant, limits.auto_together)
            scored = (machine >= limits.auto_score_min) & (automatic[asked] >= limits.auto_asked_min)
            suspected[asked] |= scored
        return decline, suspected


def _in_groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """Part texts into groups of bounded size: before they are cleaned and after, which may make them longer."""
    group: list[str] = []
    chars = 0
    for text in texts:
        if len(group) == BATCH_TEXTS_MAX or (group and chars + len(text) > BATCH_CHARS_MAX):
            yield group
            group, chars = [], 0
        group.append(text)
        chars += len(text)
    if group:
        yield group


def weighed(words: Scores, meant: Scores, together: Sequence[float]) -> Scores:
    """Add up the scores of words and meaning, each with its weight, and the offset."""
    by_words, by_meaning, offset = together
    return by_words * words + by_meaning * meant + offset


def words_scores(features: Features, weights: Weights, limits: Limits) -> dict[str, Scores]:
    """Score each text's words by every regression."""
    return words.scores(features, weights.regressions, limits.group_factors, limits.dense_factor)


def probability(scores: Scores, calibration: Sequence[float] = (1.0, 0.0)) -> Scores:
    """Turn scores into probabilities by a slope and an offset."""
    slope, offset = calibration
    exponent = np.clip(slope * scores + offset, -30, 30)
    return np.asarray(1 / (1 + np.exp(-exponent)), dtype=np.float64)


def known_share(features: Features, weights: Weights) -> Scores:
    """Give the share of each text's words that the training data holds."""
    text, slot = word_slots(features)
    known = np.bincount(text, weights=weights.seen[slot], minlength=len(features.words))
    return np.asarray(known / np.maximum(features.words, 1), dtype=np.float64)


def word_slots(features: Features) -> tuple[Ints, Ints]:
    """Give for each word the text it is in and its slot.

    By its bucket alone, a word that is new would be taken for known in one of five cases.
    """
    by_name = {group.name: group for group in features.groups}
    stem, again = by_name["stem"], by_name["stem_again"]
    return stem.text, stem.bucket * SLOTS_PER_BUCKET + again.bucket % SLOTS_PER_BUCKET


def weights_of(arrays: Mapping[str, npt.NDArray[Any]]) -> Weights:
    """Read weights as they are stored."""
    seen = np.unpackbits(arrays["seen"], count=SEEN_SLOTS).astype(bool)
    return Weights({name: Regression.read(arrays, name) for name in LEARNT}, seen)


def phrases_hashes() -> dict[str, str]:
    """Name the content of the lexicon, the notices, the absences and the courtesies."""
    paths = {
        "lexicon_sha256": LEXICON_PATH,
        "notices_sha256": NOTICES_PATH,
        "absences_sha256": ABSENCES_PATH,
        "courtesies_sha256": COURTESIES_PATH,
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def pretrained_version() -> str:
    """Name the package whose vocabulary and vectors the encoder uses; empty where it is missing."""
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return ""


def weights_hash(arrays: dict[str, npt.NDArray[Any]]) -> str:
    """Name the weights' content, whatever the file's compression makes of it."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        hashed.update(name.encode() + b"\0" + np.ascontiguousarray(arrays[name]).tobytes())
    return hashed.hexdigest()


@lru_cache(maxsize=4)
def _load(folder: Path) -> Classifier:
    cure = "train the model again: make train"
    try:
        manifest, arrays, network_hash = _read(folder)
    except (OSError, ValueError) as error:
        message = f"the model in {folder} cannot be read ({type(error).__name__}); {cure}"
        raise ArtefactError(message) from error
    expected = {
        "features_version": FEATURES_VERSION,
        **phrases_hashes(),
        "pretrained": pretrained_version(),
        "network_sha256": network_hash,
        "weights_sha256": weights_hash(arrays),
    }
    for name, value in expected.items():
        if manifest.get(name) != value:
            message = f"the model in {folder} has {name} {manifest.get(name)}, this code {value}; {cure}"
            raise ArtefactError(message)
    try:
        weights, limits = weights_of(arrays), Limits(**manifest["limits"])
    except (KeyError, TypeError) as error:
        message = f"the model in {folder} was stored by code that knew other parts ({error}); {cure}"
        raise ArtefactError(message) from error
    try:
        encoder = Encoder(folder / NETWORK_FILE)
    except (OSError, ValueError, RuntimeError) as error:
        message = f"the encoder cannot be loaded: {error}"
        raise ArtefactError(message) from error
    feature.extract(["warm up"])  # the tables of characters and phrases
    hold_a_notice(["warm up"])
    say_nothing_else(["warm up"])
    return Classifier(weights, encoder, limits, manifest["model_version"])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]], str]:
    """Give the manifest, the arrays, and what names the network's content."""
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    with (folder / NETWORK_FILE).open("rb") as network:
        network_hash = hashlib.file_digest(network, "sha256").hexdigest()
    with np.load(folder / WEIGHTS_FILE, allow_pickle=False) as stored:
        return manifest, {name: stored[name] for name in stored.files}, network_hash

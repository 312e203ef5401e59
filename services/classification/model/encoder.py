"""A network that has learnt from the replies what they mean: texts in, three scores out.

It began as a multilingual encoder (`pretrained.py`) and was trained further on the replies (`finetuning.py`); its
weights lie in the artefact, 7 bits each, and onnxruntime runs it. Its integer products are the same on every processor;
the rest is single precision. One text runs at a time: no text's scores depend on another's, and none is filled up to
another's length.
"""

import json
import math
import os
from collections import OrderedDict
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

import numpy as np

# Before it is imported, or it reports its use to its maker and leaves an identity of this machine in the user's cache.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from services.classification.model.pretrained import WIDTH, Vectors, pretrained
from services.classification.model.superwords import SUPERWORDS_MAX, Run, Superwords
from services.classification.model.vocabulary import BEGIN, END, UNKNOWN, Spot, Vocabulary

T = TypeVar("T")

CLASSES: Final = ("accept", "decline", "auto_reply")
"""What the three scores speak for."""
SUPERWORDS: Final = "superwords"
"""The name under which the network's file keeps their pieces."""
TOKENS_MAX: Final = 160
"""A longer text is read by its beginning and its end while the network learns. A superword counts as one token."""
TOKENS_READ_MAX: Final = 80
"""The same at work, where more tells no more and takes its time."""
WORDS_KEPT_MAX: Final = 20_000
WORD_KEPT_CHARS_MAX: Final = 24
"""A longer word, such as a sentence without blanks, hardly comes again: its pieces are not kept."""

_BLANK: Final = "\u2581"
_UNKNOWN_PENALTY: Final = 10.0


class Tokenizer:
    """Splits words into pieces so that the sum of the pieces' scores is highest, as SentencePiece's unigram model does.

    No piece spans two words, so words are split one by one. Letters that no piece holds count one by one. Thread-safe.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._kept: OrderedDict[str, Run] = OrderedDict()
        self._keeping = Lock()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the pieces' numbers, with those of the beginning and the end; texts are in normal form (NFKC)."""
        written = [text.split() for text in texts]
        pieces_of = self._pieces_of(set(chain.from_iterable(written)))
        return [[BEGIN, *chain.from_iterable(pieces_of[word] for word in words), END] for words in written]

    def _pieces_of(self, words: Collection[str]) -> dict[str, Run]:
        """Split words; those that are not at hand all at once."""
        with self._keeping:
            found = {word: self._kept[word] for word in words if word in self._kept}
            for word in found:
                self._kept.move_to_end(word)
        marked = {word: _BLANK + word for word in words if word not in found}
        for (word, written), spots in zip(marked.items(), self._vocabulary.spots(list(marked.values())), strict=True):
            found[word] = self._best(len(written), spots)
        with self._keeping:
            self._kept.update((word, found[word]) for word in marked if len(word) <= WORD_KEPT_CHARS_MAX)
            while len(self._kept) > WORDS_KEPT_MAX:
                self._kept.popitem(last=False)
        return found

    def _best(self, length: int, spots: Sequence[Spot]) -> Run:
        """Find the best pieces by Viterbi's algorithm; of equally good ways the one that begins earliest."""
        scores = self._vocabulary.scores
        unknown_score = self._vocabulary.unknown_score - _UNKNOWN_PENALTY
        best = [0.0] + [-math.inf] * length
        came = [(0, UNKNOWN)] * (length + 1)
        at = 0
        for start in range(length):
            while at < len(spots) and spots[at][0] == start:
                _, end, piece = spots[at]
                if best[start] + scores[piece] > best[end]:
                    best[end], came[end] = best[start] + scores[piece], (start, piece)
                at += 1
            if best[start] + unknown_score > best[start + 1]:
                best[start + 1], came[start + 1] = best[start] + unknown_score, (start, UNKNOWN)
        pieces: list[int] = []
        while length:
            length, piece = came[length]
            pieces.append(piece)
        return tuple(reversed(pieces))


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """Give the vocabulary's tokenizer, made once per process."""
    return Tokenizer(pretrained().vocabulary)


def shortened(tokens: list[T], tokens_max: int) -> list[T]:
    """Give a text's beginning and end where it is longer."""
    half = tokens_max // 2
    return tokens if len(tokens) <= tokens_max else tokens[:half] + tokens[-half:]


def vectors(runs: Sequence[Run]) -> Vectors:
    """Give a vector for each run of pieces, (runs, WIDTH): the sum of theirs, no longer than one's on average."""
    found = np.empty((len(runs), WIDTH), dtype=np.float32)
    alone = [number for number, run in enumerate(runs) if len(run) == 1]
    found[alone] = pretrained().words([runs[number][0] for number in alone])
    for number, run in enumerate(runs):
        if len(run) > 1:
            found[number] = _sum(run)
    return found


@lru_cache(maxsize=SUPERWORDS_MAX)
def _sum(run: Run) -> Vectors:
    return np.asarray(pretrained().words(run).sum(axis=0) / np.sqrt(len(run), dtype=np.float32))


class Encoder:
    """A trained network. Thread-safe: it is never changed but for the words that its tokenizer remembers."""

    def __init__(self, network: bytes | Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena keeps what the longest text ever took
        self._tokenizer = tokenizer()
        self._network = onnxruntime.InferenceSession(
            network if isinstance(network, bytes) else str(network), options, providers=["CPUExecutionProvider"]
        )
        known = self._network.get_modelmeta().custom_metadata_map.get(SUPERWORDS, "[]")
        self._superwords = Superwords(map(tuple, json.loads(known)))

    def scores(self, texts: Sequence[str]) -> Vectors:
        """Give the scores of texts in normal form, (texts, 3), in the order of `CLASSES`."""
        found = np.empty((len(texts), len(CLASSES)), dtype=np.float32)
        for number, pieces in enumerate(self._tokenizer.encode(texts)):
            runs = shortened(self._superwords.joined(pieces), TOKENS_READ_MAX)
            given = {"words": vectors(runs), "superwords": np.array(self._superwords.numbers(runs))}
            (found[number],) = self._network.run(None, given)
        return found

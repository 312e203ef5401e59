"""A network that has learnt from the replies what they mean: texts in, three scores out.

It began as a multilingual encoder (`pretrained.py`) and was trained further on the replies (`finetuning.py`); its
weights lie in the artefact, 7 bits each, and onnxruntime runs it. Its integer products are the same on every processor;
the rest is single precision. One text runs at a time: no text's scores depend on another's, and none is filled up to
another's length.
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import onnxruntime

from services.classification.model.pretrained import WIDTH, Vectors, pretrained
from services.classification.model.superwords import SUPERWORDS_MAX, Run, Superwords
from services.classification.model.vocabulary import BEGIN, END, UNKNOWN, Vocabulary

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

    No piece spans two words, so words are split one by one. Letters that no piece holds count one by one.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._pieces_of = lru_cache(maxsize=WORDS_KEPT_MAX)(self._split)

    def encode(self, text: str) -> list[int]:
        """Give the pieces' numbers, with those of the beginning and the end; `text` is in normal form (NFKC)."""
        ids = [BEGIN]
        for word in text.split():
            split = self._pieces_of if len(word) <= WORD_KEPT_CHARS_MAX else self._split
            ids += split(_BLANK + word)
        ids.append(END)
        return ids

    def _split(self, word: str) -> tuple[int, ...]:
        """Find the best pieces by Viterbi's algorithm; of equally good ways the one that begins earliest."""
        known, length = self._vocabulary, len(word)
        unknown_score = known.unknown_score - _UNKNOWN_PENALTY
        best = [0.0] + [-math.inf] * length
        came = [(0, UNKNOWN)] * (length + 1)
        for start in range(length):
            for end in range(start + 1, min(start + known.chars_max, length) + 1):
                piece = known.find(word[start:end])
                if piece is not None and best[start] + known.scores[piece] > best[end]:
                    best[end], came[end] = best[start] + known.scores[piece], (start, piece)
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
        for number, text in enumerate(texts):
            runs = shortened(self._superwords.joined(self._tokenizer.encode(text)), TOKENS_READ_MAX)
            given = {"words": vectors(runs), "superwords": np.array(self._superwords.numbers(runs))}
            (found[number],) = self._network.run(None, given)
        return found

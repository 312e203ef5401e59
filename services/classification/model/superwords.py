"""Superwords: frequent runs of pieces of words that the network reads as one, so that it has a fifth less to read.

Pieces never span two words; superwords do ("not interested"), as in SuperBPE (Liu et al., 2025), here on top of a
vocabulary that exists. A superword begins as the sum of its pieces; what it is more than that, the network learns.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final

Run = tuple[int, ...]
"""Numbers of pieces; of one, where it is no superword."""

RUN_PIECES_MAX: Final = 6
SUPERWORDS_MAX: Final = 4_000
COUNT_MIN: Final = 10
"""What comes less often is not learnt well."""


class Superwords:
    """Joins runs of pieces, the longest first, from the beginning of a text to its end. Never changed."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.runs = tuple(runs)
        self._numbers = {run: number for number, run in enumerate(self.runs, start=1)}
        self._longest: dict[int, int] = {}
        for run in self.runs:
            self._longest[run[0]] = max(self._longest.get(run[0], 1), len(run))

    def joined(self, pieces: Sequence[int], leave: Callable[[], bool] | None = None) -> list[Run]:
        """Give a text's pieces in runs; `leave` says of each superword met whether it is left in pieces."""
        found: list[Run] = []
        at = 0
        while at < len(pieces):
            run = tuple(pieces[at : at + self._longest.get(pieces[at], 1)])
            while len(run) > 1 and run not in self._numbers:
                run = run[:-1]
            if len(run) > 1 and leave is not None and leave():
                run = run[:1]
            found.append(run)
            at += len(run)
        return found

    def numbers(self, runs: Sequence[Run]) -> list[int]:
        """Number superwords from 1; what is none has 0."""
        return [self._numbers.get(run, 0) for run in runs]


def learnt(texts: Iterable[Sequence[int]], superwords_max: int = SUPERWORDS_MAX) -> Superwords:
    """Find superwords in texts' pieces: the most frequent pair is joined, again and again (byte-pair encoding)."""
    pairs = _Pairs([[(piece,) for piece in text] for text in texts])
    found: list[Run] = []
    while len(found) < superwords_max and (pair := pairs.most_frequent()) is not None:
        found.append(pairs.join(pair))
    return Superwords(found)


class _Pairs:
    """Texts in runs, and how often which run stands beside which."""

    def __init__(self, texts: list[list[Run]]) -> None:
        self._texts = texts
        self._counts = Counter[tuple[Run, Run]]()
        self._texts_with: defaultdict[tuple[Run, Run], set[int]] = defaultdict(set)
        for number, text in enumerate(texts):
            self._count(number, text, 1)
        self._queue = [(-count, *pair) for pair, count in self._counts.items()]
        heapq.heapify(self._queue)

    def most_frequent(self) -> tuple[Run, Run] | None:
        """Give the pair that comes most often, of equals the first in order; None where all are rare."""
        while self._queue:
            count, one, other = heapq.heappop(self._queue)
            now = self._counts[one, other]
            if now == -count:
                return (one, other) if now >= COUNT_MIN else None
            self._put((one, other))
        return None

    def join(self, pair: tuple[Run, Run]) -> Run:
        """Make one run of the pair wherever it stands; give the run."""
        run = pair[0] + pair[1]
        changed = set[tuple[Run, Run]]()
        for number in self._texts_with.pop(pair):
            before = self._texts[number]
            after: list[Run] = []
            for part in before:
                if after and after[-1] == pair[0] and part == pair[1]:
                    after[-1] = run
                else:
                    after.append(part)
            self._count(number, before, -1)
            self._count(number, after, 1)
            self._texts[number] = after
            changed |= {(one, other) for one, other in pairwise(after) if run in (one, other)}
        for new in changed:
            self._put(new)
        return run

    def _count(self, number: int, text: list[Run], times: int) -> None:
        for one, other in pairwise(text):
            if len(one) + len(other) <= RUN_PIECES_MAX:
                self._counts[one, other] += times
                self._texts_with[one, other].add(number)

    def _put(self, pair: tuple[Run, Run]) -> None:
        if self._counts[pair] >= COUNT_MIN:
            heapq.heappush(self._queue, (-self._counts[pair], *pair))

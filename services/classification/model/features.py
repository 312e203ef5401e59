"""From texts to numbers, for a whole batch at once with numpy: no Python runs per word or per letter.

Three kinds of features: hashed n-grams of letters and of words (what this text says), cues of a lexicon that means the
same in every language (what such words mean), and a few that need no language at all (a question mark, a telephone
number, length). What comes after the last "but", or in the last sentence, counts once more by itself: that is where
mixed signals are settled.
"""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from services.classification.model.cleaning import SEPARATOR, fold, own_words
from services.classification.model.hashing import MIX, Hashes, Ints, Table, code_points, powers

Floats: TypeAlias = npt.NDArray[np.float32]
Bools: TypeAlias = npt.NDArray[np.bool_]

FEATURES_VERSION: Final = "4"
"""Grows with every change that gives a text other numbers: an artefact fits one version only."""

BUCKET_BITS: Final = 17
BUCKETS: Final = 1 << BUCKET_BITS
CHAR_GRAM_MAX: Final = 5
STEM_CHARS: Final = 6
"""Phrases of several words match by the beginnings of their words, so that one phrase stands for its inflections."""
NEGATION_WORDS: Final = 3
GAP_WORDS_MAX: Final = 3
PHRASE_WORDS_MAX: Final = 4
HEAD_WORDS: Final = 4

LEXICON_PATH: Final = Path(__file__).parent / "lexicon.json"

_PLAIN, _WORD, _DIGIT, _END, _SYMBOL, _SEPARATOR, _DROPPED = range(7)
_TABLE_CHARS: Final = 0x20000
_HIRAGANA, _KATAKANA, _HAN = range(1, 4)
_SCRIPTS: Final = {
    0x3040: _HIRAGANA, 0x30A0: _KATAKANA, 0x3100: 0, 0x3400: _HAN, 0x4DC0: 0, 0x4E00: _HAN, 0xA000: 0,
    0xF900: _HAN, 0xFB00: 0, 0x20000: _HAN, 0x32000: 0,
}  # fmt: skip
"""Scripts that put no gaps between words, by the first character of each range; 0 for all others."""
_LETTERS_HASHED: Final = 32
_BASE: Final = 0x100000001B3
_SHIFT: Final = np.uint64(64 - BUCKET_BITS)
# Cyrillic and Greek letters that are drawn like Latin ones.
LOOKALIKES: Final = {
    0x430: "a", 0x432: "b", 0x435: "e", 0x43A: "k", 0x43C: "m", 0x43D: "h", 0x43E: "o", 0x440: "p", 0x441: "c",
    0x442: "t", 0x443: "y", 0x445: "x", 0x455: "s", 0x456: "i", 0x458: "j", 0x4BB: "h", 0x4CF: "l", 0x501: "d",
    0x3B1: "a", 0x3B9: "i", 0x3BA: "k", 0x3BD: "v", 0x3BF: "o", 0x3C1: "p", 0x3C4: "t", 0x3C5: "u", 0x3C7: "x",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """Hashed features of one kind, in the order of their texts: for each, the text it is in and its bucket."""

    name: str
    text: Ints
    bucket: Ints


@dataclass(frozen=True, slots=True)
class Features:
    """The features of a batch of texts.

    `dense` is (texts, len(dense_names())). `words` is the number of words of each text, `questions` whether it holds a
    question mark.
    """

    groups: tuple[Group, ...]
    dense: Floats
    words: Ints
    questions: Bools


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Phrases by class, as hashes in order, each with a bit set of its classes."""

    classes: tuple[str, ...]
    members: Table

    def bit(self, name: str) -> np.uint32:
        """The bit of one class."""
        return np.uint32(1 << self.classes.index(name))


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The words of a batch in order, and its letters with one blank for whatever stands between words."""

    count: int
    letters: Hashes
    letter_text: Ints
    full: Hashes
    stem: Hashes
    word_text: Ints
    sentence: Ints
    marks: dict[str, Ints]


def clean(texts: Sequence[str]) -> list[str]:
    """Give what the candidates wrote, in normal form."""
    return [own_words(text) for text in fold(texts)]


def extract(cleaned: Sequence[str]) -> Features:
    """Compute the features of cleaned texts. Texts do not influence each other."""
    tokens = _tokenise(cleaned)
    spots, spans, members = _hits(tokens, lexicon())
    tail = _in_tail(tokens, spots, spans, members)
    groups = _groups(tokens, tail)
    dense = _dense(tokens, spots, spans, members, tail)
    words = np.bincount(tokens.word_text, minlength=tokens.count)
    return Features(groups, dense, words, tokens.marks["?"] > 0)


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """Load the lexicon. Its phrases are read as texts are, so that they match."""
    entries: dict[str, dict[str, list[str]]] = json.loads(LEXICON_PATH.read_text(encoding="utf-8"))
    classes = tuple(entries)
    members: dict[int, int] = {}
    for number, languages in enumerate(entries.values()):
        phrases = sorted({phrase for phrases in languages.values() for phrase in phrases})
        for hashed in _phrase_hashes(phrases):
            members[hashed] = members.get(hashed, 0) | 1 << number
    hashes, bits = np.array([*members], dtype=np.uint64), np.array([*members.values()], dtype=np.uint32)
    return Lexicon(classes, Table.of(hashes, bits, bits=16))


@lru_cache(maxsize=1)
def dense_names() -> tuple[str, ...]:
    """Name the columns of `Features.dense`."""
    cues = [
        f"{name}{negated}{zone}" for zone in ("", "@tail", "@head") for negated in ("", "!") for name in _cue_classes()
    ]
    return (*cues, *_MARKS, *(f"words>={n}" for n in _WORD_STEPS), "contrast")


_MARKS: Final = ("?", "?end", "!", "phone", "digits", "@", "link", "symbol", "ellipsis")
_WORD_STEPS: Final = (1, 2, 4, 8, 16, 32, 64)


def _cue_classes() -> tuple[str, ...]:
    return tuple(name for name in lexicon().classes if name not in {"negator", "negator_after", "contrast"})


@lru_cache(maxsize=1)
def _cue_bits() -> npt.NDArray[np.uint32]:
    return np.array([lexicon().bit(name) for name in _cue_classes()])


# -- letters and words ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
    """Say of each character what stands for it and of what kind it is."""
    codes = np.arange(_TABLE_CHARS, dtype=np.uint32)
    # Beyond the ranges looked at one by one lie scripts in which nearly every character is a letter.
    kinds = np.full(_TABLE_CHARS, _WORD, dtype=np.uint8)
    for code in (*range(0x3100), *range(0xFE00, 0x10000), *range(0x1F000, _TABLE_CHARS)):
        character = chr(code)
        if character.isdigit():
            kinds[code] = _DIGIT
            codes[code] = ord("0")
        elif not character.isalpha():
            category = unicodedata.category(character)
            dropped = category in {"Mn", "Me", "Cf"}
            kinds[code] = _SYMBOL if category == "So" else _DROPPED if dropped else _PLAIN
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        if kinds[code] == _WORD:
            codes[code] = ord(unicodedata.normalize("NFD", chr(code))[0])
    codes[ord("ı")] = ord("i")  # noqa: RUF001  its capital is that of i
    for lookalike, letter in LOOKALIKES.items():
        codes[lookalike] = ord(letter)
    for character in ".!?\n;:¿¡…":
        kinds[ord(character)] = _END
    kinds[ord("'")] = _DROPPED
    kinds[0x1F3FB:0x1F400] = _DROPPED  # skin tones
    kinds[ord(SEPARATOR)] = _SEPARATOR
    codes[ord(SEPARATOR)] = ord(" ")
    return codes, kinds


def _tokenise(texts: Sequence[str]) -> _Tokens:
    # Each text begins with the separator and ends with a blank: its first and last words have edges like all others.
    joined = "".join(f"{SEPARATOR}{text} " for text in texts)
    raw = code_points(joined)
    table_codes, table_kinds = _tables()
    known = np.minimum(raw, _TABLE_CHARS - 1)
    codes = np.where(raw < _TABLE_CHARS, table_codes[known], raw)
    kinds = np.where(raw < _TABLE_CHARS, table_kinds[known], _WORD)
    kept = kinds != _DROPPED
    kept[1:-1] &= ~_stretched(codes, kinds)[1:-1]
    raw, codes, kinds = raw[kept], codes[kept], kinds[kept]
    text = np.cumsum(kinds == _SEPARATOR) - 1

    in_word = (kinds == _WORD) | (kinds == _DIGIT)
    begins = in_word & (~_shifted(in_word) | _without_gap(codes)) | (kinds == _SYMBOL)
    wordish = in_word | (kinds == _SYMBOL)
    letters_at = np.flatnonzero(wordish)
    starts = np.flatnonzero(begins[letters_at])
    place = np.arange(len(letters_at)) - np.repeat(starts, np.diff(np.append(starts, len(letters_at))))
    letter_powers = powers(_BASE, _LETTERS_HASHED)[np.minimum(place, _LETTERS_HASHED - 1)]
    spelled = (codes[letters_at].astype(np.uint64) + np.uint64(1)) * letter_powers
    full = np.add.reduceat(spelled, starts) if len(starts) else np.zeros(0, np.uint64)
    stem = np.add.reduceat(np.where(place < STEM_CHARS, spelled, 0), starts) if len(starts) else full
    first = letters_at[starts]
    sentence = np.cumsum((kinds == _END) | (kinds == _SEPARATOR))[first]

    # A gap is one blank: the first character after a word, or the separator.
    shown = wordish | (kinds == _SEPARATOR) | _shifted(wordish) & ~wordish
    letters = np.where(wordish, codes, ord(" "))[shown].astype(np.uint64)
    return _Tokens(
        len(texts),
        letters,
        text[shown],
        _mixed(full),
        _mixed(stem),
        text[first],
        sentence,
        _count_marks(raw, kinds, text, len(texts)),
    )


def _shifted(flags: Bools) -> Bools:
    """Whether the character before has the flag."""
    before = np.zeros_like(flags)
    before[1:] = flags[:-1]
    return before


def _without_gap(codes: npt.NDArray[np.uint32]) -> Bools:
    """Where words begin in scripts that have no gaps: at each Han character, and where kana begin or end.

    A whole clause would be one word otherwise, and next to none of them known.
    """
    if codes.max(initial=0) < min(_SCRIPTS):
        return np.zeros(len(codes), dtype=bool)
    ranges = np.searchsorted(list(_SCRIPTS), codes, side="right")
    script = np.array([0, *_SCRIPTS.values()], dtype=np.uint8)[ranges]
    begins: Bools = script == _HAN
    begins[1:] |= script[1:] != script[:-1]
    return begins


def _stretched(codes: npt.NDArray[np.uint32], kinds: npt.NDArray[np.uint8]) -> Bools:
    """The letters that only draw a word out, as in "yesss": all but the first of three or more equal ones.

    Three equal letters by themselves are a word of their own, such as "OOO" for out of office.
    """
    same = np.zeros(len(codes), dtype=bool)
    same[1:] = (codes[1:] == codes[:-1]) & (kinds[1:] == _WORD)
    more = np.zeros(len(codes), dtype=bool)
    more[1:] |= same[:-1]
    more[:-1] |= same[1:]
    starts = np.flatnonzero(~same)
    around = np.zeros(len(codes) + 2, dtype=bool)
    around[1:-1] = kinds == _WORD
    in_longer_word = around[starts] | around[np.append(starts[1:], len(codes)) + 1]
    stretched: Bools = same & more & in_longer_word[np.cumsum(~same) - 1]
    return stretched


def _mixed(hashes: Hashes) -> Hashes:
    mixed = hashes * MIX
    return (mixed ^ (mixed >> np.uint64(29))) * MIX


def _unmixed(first: Hashes, *others: Hashes, salt: int) -> Hashes:
    """Hash tuples, but for the last step (`_mixed`): one array a position. Neither the order nor the salt is lost."""
    hashed = first + np.uint64(salt)
    for other in others:
        hashed = _mixed(hashed) + other
    return hashed


def _count_marks(raw: npt.NDArray[np.uint32], kinds: npt.NDArray[np.uint8], text: Ints, count: int) -> dict[str, Ints]:
    def counted(flags: Bools) -> Ints:
        return np.bincount(text[flags], minlength=count)

    digit = kinds == _DIGIT
    said = (kinds == _WORD) | digit | (kinds == _SYMBOL) | (raw == ord("?")) | (raw == ord("!")) | (raw == ord("."))
    last = np.zeros(count, dtype=np.intp)
    at = np.flatnonzero(said)
    last[text[at]] = at  # of equal indices the last assignment stands
    return {
        "?": counted(raw == ord("?")),
        "?end": (raw[last] == ord("?")).astype(np.intp),
        "!": counted(raw == ord("!")),
        "phone": (counted(digit) >= 7).astype(np.intp),
        "digits": counted(digit),
        "@": counted(raw == ord("@")),
        "link": counted((raw == ord("/")) & np.roll(raw == ord("/"), 1)),
        "symbol": counted(kinds == _SYMBOL),
        "ellipsis": counted((raw == ord(".")) & np.roll(raw == ord("."), 1)),
    }


# -- the lexicon ------------------------------------------------------------------------------------------------------

_PAIR_SALT: Final = 77


def _phrase_hashes(phrases: Sequence[str]) -> list[int]:
    gapped = [phrase for phrase in phrases if " .. " in phrase]
    hashes: list[int] = []
    for some, is_gapped in ((gapped, True), ([p for p in phrases if p not in set(gapped)], False)):
        tokens = _tokenise([text.replace(" .. ", " ") for text in fold(some)])
        for number in range(len(some)):
            mine = np.flatnonzero(tokens.word_text == number)
            words = [tokens.full[mine]] if len(mine) == 1 else [tokens.stem[i : i + 1] for i in mine]
            salt = _PAIR_SALT if is_gapped else len(words)
            hashes.append(int(_mixed(_unmixed(*words, salt=salt))[0]))
    return hashes


def _hits(tokens: _Tokens, lexicon: Lexicon) -> tuple[Ints, Ints, npt.NDArray[np.uint32]]:
    """Find the phrases: index of the first word, number of words, classes as bits; in order of the first word."""
    everywhere = np.arange(len(tokens.full))
    looked = [(everywhere, 1, _unmixed(tokens.full, salt=1))]
    for words in range(2, PHRASE_WORDS_MAX + 1):
        at = _together(tokens.word_text, words)
        looked.append((at, words, _unmixed(*(tokens.stem[at + i] for i in range(words)), salt=words)))
    for gap in range(1, GAP_WORDS_MAX + 1):
        at = _together(tokens.sentence, gap + 1)
        looked.append((at, gap + 1, _unmixed(tokens.stem[at], tokens.stem[at + gap], salt=_PAIR_SALT)))
    hashes = _mixed(np.concatenate([unmixed for _, _, unmixed in looked]))
    hit, member = lexicon.members.find(hashes)
    spot = np.concatenate([at for at, _, _ in looked])[hit]
    span = np.repeat([words for _, words, _ in looked], [len(at) for at, _, _ in looked])[hit]
    gapped = hit >= sum(len(at) for at, _, _ in looked[:-GAP_WORDS_MAX])
    structure = lexicon.bit("negator") | lexicon.bit("negator_after") | lexicon.bit("contrast")
    member &= np.where(_inside_longer(spot, span, gapped, len(tokens.full)), structure, ~np.uint32(0))
    order = np.argsort(spot, kind="stable")
    return spot[order], span[order], member[order]


def _inside_longer(spot: Ints, span: Ints, gapped: Bools, words: int) -> Bools:
    """Which phrases lie inside longer ones: "mas adelante" (later) does not say "adelante" (go ahead)."""
    longest = np.zeros(words, dtype=np.intp)
    for size in range(2, PHRASE_WORDS_MAX + 1):
        at = spot[(span == size) & ~gapped]
        for i in range(size):
            longest[at + i] = size
    covered = longest[spot] > span
    for i in range(1, PHRASE_WORDS_MAX):
        longer = span > i
        covered[longer] &= longest[spot[longer] + i] > span[longer]
    return covered


def _together(unit: Ints, words: int) -> Ints:
    """Where `words` words in a row lie in one unit: a text or a sentence."""
    if len(unit) < words:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(unit[: len(unit) - words + 1] == unit[words - 1 :])


def _in_tail(tokens: _Tokens, spots: Ints, spans: Ints, members: npt.NDArray[np.uint32]) -> Bools:
    """Which words come after the last contrast of their text, or are in its last sentence where it has none."""
    words = len(tokens.full)
    start = np.zeros(tokens.count, dtype=np.intp)
    opens = np.ones(words, dtype=bool)
    opens[1:] = tokens.sentence[1:] != tokens.sentence[:-1]
    at = np.flatnonzero(opens)
    start[tokens.word_text[at]] = at
    contrast = (members & lexicon().bit("contrast")) != 0
    after = spots[contrast] + spans[contrast]
    text = tokens.word_text[spots[contrast]]
    followed = (after < words) & (tokens.word_text[np.minimum(after, words - 1)] == text) if words else contrast[:0]
    start[text[followed]] = after[followed]
    return np.arange(words) >= start[tokens.word_text]


def _dense(tokens: _Tokens, spots: Ints, spans: Ints, members: npt.NDArray[np.uint32], tail: Bools) -> Floats:
    text = tokens.word_text[spots]
    begin = np.searchsorted(tokens.word_text, np.arange(tokens.count))
    zones = (np.ones(len(spots), dtype=bool), tail[spots], spots - begin[text] < HEAD_WORDS)
    dense = np.zeros((tokens.count, len(dense_names())), dtype=np.float32)  # columns in the order of those names
    cues = len(_cue_bits())
    hit, cue = np.nonzero(members[:, None] & _cue_bits())
    column = cue + cues * _negated(tokens, spots, spans, members)[hit]
    for number, zone in enumerate(zones):
        there = zone[hit]
        dense[text[hit[there]], column[there] + 2 * number * cues] = 1
    words = np.bincount(tokens.word_text, minlength=tokens.count)
    marks = [tokens.marks[mark] > 0 for mark in _MARKS] + [words >= step for step in _WORD_STEPS]
    dense[:, -1 - len(marks) : -1] = np.stack(marks, axis=1)
    dense[text[(members & lexicon().bit("contrast")) != 0], -1] = 1
    return dense


def _negated(tokens: _Tokens, spots: Ints, spans: Ints, members: npt.NDArray[np.uint32]) -> Bools:
    """Which phrases have a negation shortly before them or, where the language puts it there, after them."""
    known = lexicon()
    words = len(tokens.full)
    negated = np.zeros(len(spots), dtype=bool)
    for name, direction in (("negator", -1), ("negator_after", 1)):
        flags = np.zeros(words, dtype=bool)
        flags[spots[((members & known.bit(name)) != 0) & (spans == 1)]] = True
        edge = spots if direction < 0 else spots + spans - 1
        near = edge[:, None] + direction * np.arange(1, NEGATION_WORDS + 1)
        there = (near >= 0) & (near < words)
        near[~there] = 0
        negated |= (there & flags[near] & (tokens.sentence[near] == tokens.sentence[edge, None])).any(axis=1)
    return negated


# -- n-grams ----------------------------------------------------------------------------------------------------------


def _groups(tokens: _Tokens, tail: Bools) -> tuple[Group, ...]:
    text, full, stem = tokens.word_text, tokens.full, tokens.stem
    pairs = _together(text, 2)
    skips = _together(tokens.sentence, 3)
    found = [
        ("word", text, _unmixed(full, salt=101)),
        ("word2", text[pairs], _unmixed(full[pairs], full[pairs + 1], salt=102)),
        ("stem", text, _unmixed(stem, salt=103)),
        ("stem_again", text, _unmixed(stem, salt=106)),
        ("skip2", text[skips], _unmixed(stem[skips], stem[skips + 2], salt=104)),
        ("tail", text[tail], _unmixed(stem[tail], salt=105)),
    ]
    hashes = tokens.letters
    for size in range(2, CHAR_GRAM_MAX + 1):
        hashes = hashes[: max(len(tokens.letters) - size + 1, 0)] * np.uint64(_BASE) + tokens.letters[size - 1 :]
        inside = tokens.letter_text[: len(hashes)] == tokens.letter_text[size - 1 :]
        found.append((f"char{size}", tokens.letter_text[: len(hashes)][inside], hashes[inside] + np.uint64(size)))
    buckets = (_mixed(np.concatenate([unmixed for _, _, unmixed in found])) >> _SHIFT).astype(np.intp)
    ends = np.cumsum([len(unmixed) for _, _, unmixed in found])
    parts = zip(found, ends, strict=True)
    return tuple(Group(name, where, buckets[end - len(where) : end]) for (name, where, _), end in parts)

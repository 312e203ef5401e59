"""How written words are compared, and when there are none (R3, R10).

Comparison only: what is shown, stored or classified is always the text as it was written.
"""

import re
import unicodedata
from typing import Final

# Characters that leave no mark on the screen: controls that are not white space, soft hyphen, joiners, direction
# marks, fillers, variation selectors, tags. Listed, not taken from the Unicode category Cf: that one also holds signs
# that are printed, such as the Arabic number sign, and leaves out the fillers and selectors.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)


def normalise(text: str) -> str:
    """Give the form in which two texts are compared: equal forms say the same; the empty one says nothing.

    Compatibility forms folded (NFKC), case folded, zero-width characters removed, white space collapsed, outer
    punctuation trimmed. Emoji and other symbols are words here: a thumb up is an answer. Applying it again changes
    nothing.
    """
    if text.isascii():
        # The other steps leave ASCII as it is, and most replies are ASCII.
        folded = _INVISIBLE.sub("", text).lower()
    else:
        # The invisible first, as they keep apart letters that NFKC composes; NFKC again, as folding undoes some.
        folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
        folded = unicodedata.normalize("NFKC", folded)
    return _trimmed(" ".join(folded.split()))


def known_name(name: str | None) -> str | None:
    """Give the name as it is addressed, or None for a missing one and one that shows nothing on the screen."""
    if name is None:
        return None
    stripped = name.strip()
    if stripped.isascii() and stripped.isprintable():
        return stripped or None
    return stripped if _INVISIBLE.sub("", stripped).strip() else None


def _trimmed(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _is_outer(text[start]):
        start += 1
    while end > start and _is_outer(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_outer(character: str) -> bool:
    return character == " " or unicodedata.category(character)[0] == "P"

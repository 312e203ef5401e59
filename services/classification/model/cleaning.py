"""From what a candidate's mail program sent to the words the candidate wrote, in one normal form.

Case, accents' composition, compatibility forms and characters without a mark are folded before anything else is
looked at, so no later step can depend on them.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import Final

TEXT_CHARS_MAX: Final = 20_000
"""A longer text is cut before it is folded, in the middle."""
CLEAN_CHARS_MAX: Final = 4_000
"""What the features see: a candidate's point is at the beginning or at the end."""

SEPARATOR: Final = "\x1e"
"""Stands between the texts of a batch; no text holds it."""

_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
# The acute accent alone is a compatibility form of space + mark, and many type it for an apostrophe.
_APOSTROPHES: Final = re.compile("[\u00b4\u2018\u2019\u02bc\u0060]")
_LINE_ENDS: Final = re.compile("\r\n?|[\u0085\u2028\u2029\x0b\x0c]")

_QUOTE_MARKS: Final = (">", "|")
_QUOTE_HEADER: Final = re.compile(
    r"^(?:"
    r"[-_]{2,}\s*(?:original message|forwarded message|mensaje original|mensaje reenviado|message d'origine"
    r"|message original|message transféré|ursprüngliche nachricht|weitergeleitete nachricht|mensagem original"
    r"|mensagem encaminhada)\b.*"
    r"|_{5,}"
    r"|(?:on|el|am|le|em|a)\b.{0,160}\b(?:wrote|escribió|escribio|a écrit|a ecrit|schrieb|escreveu)\b.{0,80}"
    r"|.{0,80}\b(?:wrote|escribió|a écrit|schrieb|escreveu)\s*:"
    r"|(?:from|von|enviado por|gesendet|sent)\s?:.*"
    r")$"
)
_DEVICE_LINE: Final = re.compile(
    r"^(?:sent from my|sent via|get outlook|enviado desde mi|enviado do meu|enviado a partir do"
    r"|envoyé de(?:puis)? mon|envoyé à partir|von meinem .{0,40} gesendet|gesendet von mein|diese nachricht wurde von)"
    r".{0,80}$"
)
_SIGNATURE_MARK: Final = re.compile(r"^(?:--|\u2014|\u2013{2})$")
_CLOSING: Final = re.compile(
    r"^(?:best|best wishes|all the best|(?:best|kind|kindest|warm|warmest) regards|regards|br|kr|cheers|thanks"
    r"|many thanks|thank you|sincerely|yours|yours (?:sincerely|faithfully|truly)|sincerely yours|respectfully"
    r"|saludos|un saludo|saludos cordiales|un cordial saludo|atentamente|atte|un abrazo|gracias"
    r"|cordialement|bien cordialement|bien à vous|bonne journée|salutations|sincères salutations|merci"
    r"|(?:mit )?(?:freundlichen|besten|herzlichen|vielen) grüßen?|(?:viele|beste|liebe|schöne|herzliche|freundliche)"
    r" grüße|mfg|lg|vg|bg|gruß|danke"
    r"|atenciosamente|att|abraços|abraço|um abraço|abs|cumprimentos|com os melhores cumprimentos|melhores cumprimentos"
    r"|obrigado|obrigada)\s*[,.!]?$".replace("ß", "ss")
)
_SIGNATURE_LINES_MAX: Final = 5
_SIGNATURE_LINE_CHARS_MAX: Final = 70
_CHORUS_WORDS_MAX: Final = 60
_CHORUS_CHARS: Final = 6
_DRAWN_OUT: Final = re.compile(r"([^\w\s\-=_*#~.])\1{7,}")
_POSTSCRIPT: Final = re.compile(r"^\s*(?:p\.?\s?s\b|p\.?\s?d\b)")


def fold(texts: Sequence[str]) -> list[str]:
    """Give the texts in normal form: NFKC, case folded, without invisible characters, one kind of apostrophe.

    Folding is done once over the whole batch, as each call costs more than a short text does.
    """
    joined = SEPARATOR.join(_bounded(_INVISIBLE.sub("", text), TEXT_CHARS_MAX) for text in texts)
    joined = _LINE_ENDS.sub("\n", joined)
    if joined.isascii():
        folded = joined.lower().replace("`", "'")
    else:
        folded = _APOSTROPHES.sub("'", joined)
        # Folding undoes some compositions and reveals letters that fold again, hence twice.
        for _ in range(2):
            folded = unicodedata.normalize("NFKC", folded).casefold()
        folded = unicodedata.normalize("NFKC", folded)
    return folded.split(SEPARATOR) if texts else []


def own_words(folded: str) -> str:
    """Give what the candidate wrote: without quoted messages, signature and device lines, and of bounded length.

    `folded` is a text in normal form. When nothing would be left, all of it is the answer.
    """
    kept = folded
    if "\n" in folded:
        kept = "\n".join(_without_signature(_without_quotes(folded.split("\n")))).strip() or folded
    return _said_once(_bounded(kept, CLEAN_CHARS_MAX))


def _without_quotes(lines: list[str]) -> list[str]:
    kept: list[str] = []
    said = False
    for number, line in enumerate(lines):
        shown = line.strip()  # the expressions would try every blank as a beginning
        if shown.startswith(_QUOTE_MARKS):
            continue
        if _QUOTE_HEADER.match(shown):
            following = next((later for later in lines[number + 1 :] if later.strip()), "")
            marked = following.lstrip().startswith(_QUOTE_MARKS)
            if not marked and following and said:
                break  # an unmarked quotation runs to the end
            if marked:
                continue
        if not _DEVICE_LINE.match(shown):
            kept.append(line)
            said = said or bool(shown)
    return kept


def _without_signature(lines: list[str]) -> list[str]:
    said = False
    for number, line in enumerate(lines):
        if not said:
            said = bool(line.strip())
            continue
        shown = line.strip()
        if _SIGNATURE_MARK.match(shown):
            return lines[:number]
        if _CLOSING.match(shown) and _is_signature(lines[number + 1 :]):
            return lines[: number + 1]
    return lines


def _is_signature(lines: list[str]) -> bool:
    # One line more than a signature may have tells as much as all of them, and is found at once.
    written = list(islice((line for line in lines if line.strip()), _SIGNATURE_LINES_MAX + 1))
    return len(written) <= _SIGNATURE_LINES_MAX and not any(
        len(line) > _SIGNATURE_LINE_CHARS_MAX or _POSTSCRIPT.match(line) or "?" in line for line in written
    )


def _said_once(text: str) -> str:
    """Give a text that says the same again and again as if it said it once, and others as they are.

    Scores are sums over words: in a chorus the small errors of single words would outweigh what is said.
    """
    if not text.isascii() and _DRAWN_OUT.search(text):
        text = _DRAWN_OUT.sub(r"\1\1\1", text)
    middle = len(text) // 2
    if text.count(text[middle : middle + _CHORUS_CHARS]) < 3:  # a tenth of what it takes to count the words
        return text
    words = text.split()
    if len(words) < 4 or 3 * len(set(words)) > len(words):
        return text
    kept: list[str] = []
    for word in words:
        kept.append(word)
        for count in range(1, min(len(kept) // 2, _CHORUS_WORDS_MAX) + 1):
            if kept[-1] == kept[-1 - count] and kept[-count:] == kept[-2 * count : -count]:
                del kept[-count:]
                break
    return " ".join(kept)


def _bounded(text: str, chars_max: int) -> str:
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return f"{text[:half]} {text[-half:]}"

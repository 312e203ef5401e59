"""What a reply says, and which InMail it answers. Pure."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from services.ingestion.state import SKEW_MAX, Inmail, Reply, Thread, Unmatched
from shared.events import Content, ReplySentV1, Template
from shared.templates import find
from shared.text import normalise

_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """How a reply was read (R3). `unmatched`: a name still to come may show it to be its template."""

    content: Content
    unmatched: Unmatched | None = None
    unknown_template: bool = False


def read(thread: Thread, reply: ReplySentV1, words: str) -> Reading:
    """Tell a smart reply sent as it was offered from one with own words; `words` is the normalised text.

    In doubt there are own words: a reply taken for its template may lock the thread, one with own words never does.
    """
    if reply.choice is None:
        return Reading("message")
    if reply.attachments or (words and reply.template is None):
        unknown = reply.template is not None and find(reply.template) is None
        return Reading("with_message", unknown_template=unknown)
    if not words or reply.template is None:
        return Reading("template_only")
    return _compare(thread, reply, reply.template, words)


def _compare(thread: Thread, reply: ReplySentV1, template: Template, words: str) -> Reading:
    wording = find(template)
    if wording is None:
        return Reading("with_message", unknown_template=True)
    if wording.choice != reply.choice:
        # The words of the other choice are no confirmation of this one.
        return Reading("with_message")
    if wording.says(words, thread.names_by(reply.sent_at)):
        return Reading("template_only")
    return Reading("with_message", unmatched=Unmatched(template, _digest(words)))


def says_template_now(thread: Thread, reply: Reply) -> bool:
    """Whether a name that came since shows an unmatched reply to be its template."""
    if reply.unmatched is None:
        return False
    wording = find(reply.unmatched.template)
    return wording is not None and any(
        _digest(normalise(wording.filled(name))) == reply.unmatched.digest for name in thread.names_by(reply.sent_at)
    )


def answered_inmail(thread: Thread, reply: ReplySentV1) -> Inmail | None:
    """Give the InMail that a reply answers, of those known now; None where there is none yet (R12).

    Withdrawn ones count: the candidate may have read them. Undelivered ones don't. A follow-up sent in spite of its
    cancellation is answered by later replies only (R16): by those after its sending, without R22's allowance.
    """
    limit = reply.sent_at + SKEW_MAX
    newest: Inmail | None = None
    newest_order = None
    for inmail in thread.inmails.values():
        if inmail.sent_at is None or inmail.sent_at > limit or inmail.undelivered_at is not None:
            continue
        if inmail.cancelled_at is not None and reply.sent_at <= inmail.sent_at:
            continue
        if inmail.inmail_id == reply.in_reply_to:
            return inmail
        order = (inmail.sent_at, inmail.inmail_id)
        if newest_order is None or order > newest_order:
            newest, newest_order = inmail, order
    return newest


def _digest(words: str) -> str:
    return blake2b(words.encode(), digest_size=_DIGEST_BYTES).hexdigest()

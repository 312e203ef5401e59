"""A batch of requests and commands, decided one after the other on the rows they concern. Pure, like the domain."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.classification import domain
from services.classification.domain import Reply, Thread, Verdict
from shared.events import (
    ClassificationRequestedV1,
    OutcomeCorrectionRejectedV1,
    OutcomeCorrectionRequestedV1,
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
)


@dataclass(slots=True)
class Desk:
    """The threads of a batch as they stand, changed in place, and what is to be written of them.

    `threads` and `names` hold the rows of the batch's threads; `answered` the ids among the batch's replies that were
    answered in an earlier batch; `histories` the answered replies of the threads `threads_with_late_replies` names.
    """

    threads: dict[str, Thread]
    names: dict[str, str]
    answered: set[str]
    histories: Mapping[str, Sequence[Reply]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Ids of the threads to write."""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    """The replies to write, by thread."""
    named: dict[str, str] = field(default_factory=dict)
    """The names to write, by thread."""
    texts: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Text and locale of the replies that the model judged, by reply."""
    corrections: list[OutcomeDecidedV1] = field(default_factory=list)
    """The versions that humans have set."""

    def answer(
        self, request: ClassificationRequestedV1, verdict: Verdict
    ) -> OutcomeDecidedV1 | OutcomeUnchangedV1 | None:
        """Answer a request; None for one that has its answer."""
        if request.reply_id in self.answered:
            return None
        self.answered.add(request.reply_id)
        thread_id, name = request.thread_id, request.candidate.name
        new = self.replies.setdefault(thread_id, [])
        history = (*self.histories.get(thread_id, ()), *new)
        given = domain.answer(self.threads.get(thread_id), request, verdict, name=name, history=history)
        new.append(Reply(request.reply_id, request.responded_at, verdict))
        self.threads[thread_id] = given.thread
        self.changed.add(thread_id)
        if request.text and not request.choice:
            self.texts[request.reply_id] = (request.text, request.candidate.locale)
        if name is not None and self.names.get(thread_id) != name:
            self.names[thread_id] = self.named[thread_id] = name
        return given.event

    def correct(self, command: OutcomeCorrectionRequestedV1) -> OutcomeDecidedV1 | OutcomeCorrectionRejectedV1:
        """Take or reject a correction."""
        thread_id = command.thread_id
        ruling = domain.correct(self.threads.get(thread_id), command, name=self.names.get(thread_id))
        if ruling.thread is not None and isinstance(ruling.event, OutcomeDecidedV1):
            self.threads[thread_id] = ruling.thread
            self.changed.add(thread_id)
            self.corrections.append(ruling.event)
        return ruling.event


def threads_with_late_replies(
    requests: Iterable[ClassificationRequestedV1], threads: Mapping[str, Thread], answered: Collection[str]
) -> set[str]:
    """Name the threads of the batch whose history decides: those in which a new reply comes before an answered one."""
    newest = {thread_id: thread.newest for thread_id, thread in threads.items()}
    late: set[str] = set()
    for request in requests:
        if request.reply_id in answered:
            continue
        place = domain.place_of(request)
        last = newest.setdefault(request.thread_id, place)
        if place < last:
            late.add(request.thread_id)
        newest[request.thread_id] = max(last, place)
    return late

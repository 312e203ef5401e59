"""A thread ends as if all had come in order of event time, and never shows how its records were batched."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingestion.service import Round
from services.ingestion.state import SKEW_MAX, Inmail, Thread
from shared.events import (
    Candidate,
    Choice,
    Event,
    InmailScheduledV1,
    InmailSentV1,
    ReplyDraftChangedV1,
    ReplyRecordedV1,
    ReplySentV1,
    ThreadAudienceChangedV1,
    ThreadLockedV1,
    ThreadUnlockedV1,
    encode,
)
from shared.stream.effects import Effects
from shared.stream.records import AnyIncoming, Incoming, Position
from shared.templates import find, render
from shared.testing.builders import (
    START,
    after,
    drafted,
    followed,
    reassigned,
    recruiter_message,
    reply,
    scheduled,
    sent,
    undelivered,
    unfollowed,
    withdrawn,
)
from shared.text import normalise
from shared.topics import CONVERSATION_EVENTS, MESSAGING_EVENTS

NAMES = (None, "Ada", "Augusta", " ")

# Few instants, so that many are equal; some are within the allowance for clocks.
instants = st.one_of(
    st.integers(0, 6).map(lambda hours: after(hours=hours)), st.integers(0, 12).map(lambda m: after(minutes=m))
)
choices: st.SearchStrategy[Choice | None] = st.sampled_from((None, "interested", "not_interested", "not_interested"))
seats = st.sampled_from(("seat-1", "seat-2", "seat-3"))
candidates = st.sampled_from(NAMES).map(lambda name: Candidate(id="candidate-1", name=name, locale="en"))


@st.composite
def inmails(draw: st.DrawFn, number: int) -> list[Event[Any]]:
    """The facts of one follow-up; one of `scheduled` and `sent` at least."""
    inmail_id, seat_id = f"inmail-{number}", draw(seats)
    is_scheduled, is_sent = draw(st.sampled_from(((True, False), (False, True), (True, True))))
    facts: list[Event[Any]] = []
    if is_scheduled:
        told, at = draw(candidates), draw(instants)
        facts.append(scheduled(inmail_id=inmail_id, kind="follow_up", seat_id=seat_id, candidate=told, at=at))
    if is_sent:
        told, at = draw(candidates), draw(instants)
        facts.append(sent(inmail_id=inmail_id, kind="follow_up", seat_id=seat_id, candidate=told, at=at))
    end = draw(st.sampled_from((None, None, undelivered, withdrawn)))
    if end is not None:
        facts.append(end(inmail_id=inmail_id, at=draw(instants)))
    return facts


@st.composite
def replies(draw: st.DrawFn, number: int) -> Event[Any]:
    choice = draw(choices)
    template, text = render(choice or "not_interested", "en", draw(st.sampled_from(NAMES)))
    return reply(
        reply_id=f"reply-{number}",
        choice=choice,
        template=draw(st.sampled_from((template, template, None))),
        text=draw(st.sampled_from((text, text, "", "own words"))),
        attachments=draw(st.sampled_from((0, 0, 0, 1))),
        automated=draw(st.sampled_from((False, False, False, True))),
        in_reply_to=draw(st.sampled_from((None, "inmail-0", "inmail-1", "unheard"))),
        at=draw(instants),
    )


others = st.one_of(
    st.builds(drafted, choice=choices, at=instants),
    st.builds(followed, seat_id=seats, at=instants),
    st.builds(unfollowed, seat_id=seats, at=instants),
    st.builds(reassigned, seat_id=seats, at=instants),
    st.builds(recruiter_message, message_id=st.sampled_from(("a", "b")), at=instants),
)


@st.composite
def threads(draw: st.DrawFn) -> list[Event[Any]]:
    """Everything that happens in a thread. Its first InMail is delivered, so that no reply waits for ever."""
    events: list[Event[Any]] = [sent(inmail_id="inmail-0", candidate=draw(candidates))]
    if draw(st.booleans()):
        events.append(scheduled(inmail_id="inmail-0", candidate=draw(candidates)))
    for number in range(1, draw(st.integers(1, 3))):
        events += draw(inmails(number))
    events += [draw(replies(number)) for number in range(draw(st.integers(0, 4)))]
    events += draw(st.lists(others, max_size=5))
    distinct = {event.id: event for event in events}
    return list(distinct.values())


class Run:
    """Feeds a thread through rounds of the given sizes, keeping what a database would keep between them."""

    def __init__(self, events: Sequence[Event[Any]], sizes: Sequence[int] = ()) -> None:
        self.thread = Thread("thread-1")
        self.parked: dict[Position, AnyIncoming] = {}
        self.emitted: list[tuple[str, Event[Any]]] = []
        records = [
            Incoming(
                position=Position(MESSAGING_EVENTS, 0, offset),
                timestamp=START,
                event=event,
                key=b"thread-1",
                value=b"",
                headers=(),
            )
            for offset, event in enumerate(events)
        ]
        for size in sizes:
            self._round(records[:size])
            records = records[size:]
        self._round(records)

    def _round(self, records: Sequence[AnyIncoming]) -> None:
        effects = Effects("ingestion")
        waiting = {"thread-1": sorted(self.parked.values(), key=lambda record: record.position.offset)}
        decided = Round({"thread-1": self.thread}, waiting, effects)
        for record in records:
            decided.take(record)
        for position in effects.released:
            del self.parked[position]
        self.parked |= {position: record for position, (record, _) in effects.parked.items()}
        self.emitted += [(topic, event) for topic, event, _ in effects.emitted]

    @property
    def conversation(self) -> list[Any]:
        return [event.data for topic, event in self.emitted if topic == CONVERSATION_EVENTS]


@given(st.text())
def test_normalising_again_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(threads(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_any_order_of_arrival_ends_alike(events: list[Event[Any]], random: Any) -> None:
    straight = Run(sorted(events, key=lambda event: event.time))
    shuffled = list(events)
    random.shuffle(shuffled)
    disordered = Run(shuffled)
    assert not straight.parked
    assert not disordered.parked
    assert outcome(disordered.thread) == outcome(straight.thread)


def outcome(thread: Thread) -> dict[str, Any]:
    """What the rules promise not to depend on the order of arrival."""
    return {
        "locked": thread.locked,
        "selected": thread.selected,
        "audience": thread.audience,
        "replies": {(known.reply_id, known.sent_at) for known in thread.replies},
        "inmails": {inmail.inmail_id: fate(inmail) for inmail in thread.inmails.values()},
    }


def fate(inmail: Inmail) -> tuple[Any, ...]:
    facts = (inmail.seat_id, inmail.scheduled_at, inmail.sent_at, inmail.undelivered_at, inmail.withdrawn_at)
    # Whether one that went out or was taken back had been cancelled too depends on what was known, and changes nothing.
    waits = inmail.sent_at is None and inmail.undelivered_at is None and inmail.withdrawn_at is None
    return (*facts, inmail.cancelled_at is not None if waits else None)


@given(threads(), st.lists(st.integers(1, 4), max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_batch_boundaries_leave_no_trace(events: list[Event[Any]], sizes: list[int], random: Any) -> None:
    random.shuffle(events)
    whole, cut = Run(events), Run(events, sizes)
    assert [(topic, encode(event)) for topic, event in cut.emitted] == [
        (topic, encode(event)) for topic, event in whole.emitted
    ]
    assert cut.parked == whole.parked


@given(threads(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_the_lock_is_the_fold_of_all_replies_in_order_of_event_time(events: list[Event[Any]], random: Any) -> None:
    random.shuffle(events)
    assert Run(events).thread.locked == folded_lock(events)


def folded_lock(events: Sequence[Event[Any]]) -> bool:
    """R4 and R6, one reply after the other."""
    locked = False
    heard = [event.data for event in events if isinstance(event.data, ReplySentV1) and not event.data.automated]
    for said in sorted(heard, key=lambda data: (data.sent_at, data.reply_id)):
        if said.choice is None and not said.attachments and not said.text:
            continue
        bare = not said.attachments and (not said.text or says_its_template(said, events))
        if said.choice == "not_interested" and bare:
            locked = True
        elif said.choice == "interested" or not bare:
            locked = False
    return locked


def says_its_template(said: ReplySentV1, events: Sequence[Event[Any]]) -> bool:
    if said.choice is None or said.template is None:
        return False
    wording = find(said.template)
    assert wording is not None
    names = {None} | {
        event.data.candidate.name
        for event in events
        if isinstance(event.data, InmailScheduledV1 | InmailSentV1) and event.time <= said.sent_at + SKEW_MAX
    }
    return any(normalise(said.text) == normalise(wording.filled(name)) for name in names)


@given(threads(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_a_reader_of_the_conversation_knows_the_thread(events: list[Event[Any]], random: Any) -> None:
    """Versions without gaps, ids without repeats, and the newest lock, draft and audience are the thread's own."""
    random.shuffle(events)
    run = Run(events)
    said = run.conversation
    assert [data.thread_version for data in said] == list(range(1, run.thread.version + 1))
    ids = [(topic, event.id) for topic, event in run.emitted]
    assert len(set(ids)) == len(ids)
    locks = [isinstance(data, ThreadLockedV1) for data in said if isinstance(data, ThreadLockedV1 | ThreadUnlockedV1)]
    assert locks == [n % 2 == 0 for n in range(len(locks))]
    assert run.thread.locked == (len(locks) % 2 == 1)
    drafts = [None, *(data.choice for data in said if isinstance(data, ReplyDraftChangedV1))]
    assert all(one != next_one for one, next_one in pairwise(drafts))
    assert drafts[-1] == run.thread.selected
    audiences = [data for data in said if isinstance(data, ThreadAudienceChangedV1)]
    assert run.thread.audience is not None
    assert audiences[-1].owner_seat_id == run.thread.audience.owner_seat_id
    assert audiences[-1].follower_seat_ids == run.thread.audience.follower_seat_ids
    firsts = [data.inmail_id for data in said if isinstance(data, ReplyRecordedV1) and data.first_response]
    answered = {data.inmail_id for data in said if isinstance(data, ReplyRecordedV1) and data.content != "automated"}
    assert sorted(firsts) == sorted(answered)

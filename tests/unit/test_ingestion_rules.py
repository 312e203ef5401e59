"""The rules of a conversation, each shown on the thread that it is about."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from services.ingestion.domain import Decision, decide
from services.ingestion.state import SKEW_MAX, Thread
from shared.events import (
    Candidate,
    Choice,
    ClassificationRequestedV1,
    Event,
    EventData,
    FollowUpCancelledV1,
    InmailStatusChangedV1,
    RecruiterMessageAcceptedV1,
    RecruiterMessageRejectedV1,
    ReplyDraftChangedV1,
    ReplyRecordedV1,
    Template,
    ThreadAudienceChangedV1,
    ThreadLockedV1,
    ThreadUnlockedV1,
)
from shared.templates import find, render
from shared.testing.builders import (
    ADA,
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

D = TypeVar("D", bound=EventData)
MILLISECOND = timedelta(milliseconds=1)


class Talk:
    """A thread, everything it published, and the last decision."""

    def __init__(self, *events: Event[Any]) -> None:
        self.thread = Thread("thread-1")
        self.published: list[EventData] = []
        self.decision = Decision("applied")
        for event in events:
            self.then(event)

    def then(self, event: Event[Any]) -> list[str]:
        """Decide an event; return the types it published."""
        self.decision = decide(self.thread, event)
        self.published += [outgoing.data for outgoing in self.decision.outgoing]
        return [outgoing.data.type.removesuffix(".v1") for outgoing in self.decision.outgoing]

    def all(self, kind: type[D]) -> list[D]:
        return [data for data in self.published if isinstance(data, kind)]

    def last(self, kind: type[D]) -> D:
        return self.all(kind)[-1]

    @property
    def statuses(self) -> list[tuple[str, str]]:
        return [(data.inmail_id, data.status) for data in self.all(InmailStatusChangedV1)]

    @property
    def content(self) -> str:
        return self.last(ReplyRecordedV1).content


def smart(choice: Choice, name: str | None = "Ada", **arguments: Any) -> Event[Any]:
    """A smart reply sent as it was offered."""
    template, text = render(choice, "en", name)
    return reply(choice=choice, template=template, text=text, **arguments)


def follow_up_scheduled(*, at: datetime, **arguments: Any) -> Event[Any]:
    return scheduled(inmail_id="inmail-2", kind="follow_up", at=at, **arguments)


def follow_up_sent(*, at: datetime, **arguments: Any) -> Event[Any]:
    return sent(inmail_id="inmail-2", kind="follow_up", at=at, **arguments)


# R1, R2


@pytest.mark.parametrize("choice", ["interested", "not_interested"])
def test_r01_the_choice_is_carried_whatever_the_text_says(choice: Choice) -> None:
    talk = Talk(sent(), reply(choice=choice, text="The opposite is true"))
    assert talk.last(ReplyRecordedV1).choice == choice
    request = talk.last(ClassificationRequestedV1)
    assert (request.choice, request.text) == (choice, None)


@pytest.mark.parametrize(("name", "told"), [(None, "Ada"), ("Grace", "Grace")])
def test_r26_a_name_that_the_answered_inmail_lacks_is_that_of_another_one(name: str | None, told: str) -> None:
    nameless = Candidate(id="candidate-1", name=name)
    talk = Talk(sent(), follow_up_sent(at=after(hours=1), candidate=nameless), reply(text="Hi", at=after(days=1)))
    assert talk.last(ReplyRecordedV1).inmail_id == "inmail-2"
    assert talk.last(ReplyRecordedV1).candidate.name == told
    assert talk.last(ClassificationRequestedV1).candidate.name == told


def test_r02_only_what_the_sent_reply_carries_counts() -> None:
    talk = Talk(sent(), drafted(choice="not_interested", at=after(hours=1)))
    talk.then(smart("interested", at=after(hours=2)))
    assert talk.last(ReplyRecordedV1).choice == "interested"
    assert not talk.all(ThreadLockedV1)


def test_r02_the_newest_draft_is_selected_and_published_when_it_changes() -> None:
    talk = Talk(sent())
    assert talk.then(drafted(choice="interested", at=after(hours=1))) == ["reply.draft_changed"]
    assert talk.then(drafted(choice="interested", at=after(hours=2))) == []
    assert talk.then(drafted(choice="not_interested", at=after(hours=1, minutes=30))) == []
    assert talk.then(drafted(choice=None, at=after(hours=3))) == ["reply.draft_changed"]
    assert [(data.choice, data.at) for data in talk.all(ReplyDraftChangedV1)] == [
        ("interested", after(hours=1)),
        (None, after(hours=3)),
    ]


def test_r02_nothing_is_selected_after_a_reply_until_the_next_draft() -> None:
    talk = Talk(sent(), drafted(choice="interested", at=after(hours=1)))
    assert talk.then(reply(text="Hello", at=after(hours=2)))[-1] == "reply.draft_changed"
    assert (talk.last(ReplyDraftChangedV1).choice, talk.last(ReplyDraftChangedV1).at) == (None, after(hours=2))
    assert talk.then(drafted(choice="interested", at=after(hours=2))) == []
    assert talk.then(drafted(choice="interested", at=after(hours=2) + MILLISECOND)) == ["reply.draft_changed"]


def test_r02_a_late_reply_leaves_a_newer_draft_selected() -> None:
    talk = Talk(sent(), drafted(choice="interested", at=after(hours=3)))
    assert "reply.draft_changed" not in talk.then(reply(text="Hello", at=after(hours=2)))
    assert talk.thread.selected == "interested"


@pytest.mark.parametrize("choices", [("interested", None), (None, "interested"), ("interested", "not_interested")])
def test_r02_drafts_of_one_instant_end_alike_in_any_order(choices: tuple[Choice | None, Choice | None]) -> None:
    drafts = [drafted(choice=choice, at=after(hours=1)) for choice in choices]
    assert Talk(*drafts).thread.selected == Talk(*reversed(drafts)).thread.selected


def test_r02_an_away_message_leaves_the_draft_selected() -> None:
    talk = Talk(sent(), drafted(choice="interested", at=after(hours=1)))
    assert talk.then(reply(text="I am away", automated=True, at=after(hours=2))) == ["reply.recorded"]
    assert talk.thread.selected == "interested"


# R3


def test_r03_the_text_of_the_template_is_template_only() -> None:
    assert Talk(sent(), smart("not_interested")).content == "template_only"


@pytest.mark.parametrize("name", [None, "", " \u200b"])
def test_r03_the_wording_without_a_name_matches_too(name: str | None) -> None:
    assert Talk(sent(), smart("not_interested", name)).content == "template_only"
    nameless = sent(candidate=Candidate(id="candidate-1", name=name))
    assert Talk(nameless, smart("not_interested", None)).content == "template_only"


@pytest.mark.parametrize("name", ["Ada", "Ada L.", "Augusta"])
def test_r03_any_name_that_an_inmail_of_the_thread_has_carried_matches(name: str) -> None:
    renamed = [
        scheduled(),
        sent(candidate=ADA.model_copy(update={"name": "Ada L."})),
        follow_up_scheduled(at=after(hours=1), candidate=ADA.model_copy(update={"name": "Augusta"})),
    ]
    assert Talk(*renamed, smart("not_interested", name)).content == "template_only"


def test_r03_another_name_is_an_own_word() -> None:
    assert Talk(sent(), smart("not_interested", "Grace")).content == "with_message"


@pytest.mark.parametrize("text", ["", " \n", "...", "\u200b!"])
@pytest.mark.parametrize("template", [None, Template(id="unheard", version=7, locale="xx")])
def test_r03_an_empty_text_is_template_only_whatever_the_template(text: str, template: Template | None) -> None:
    talk = Talk(sent(), reply(choice="not_interested", template=template, text=text))
    assert talk.content == "template_only"
    assert not talk.decision.unknown_template


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("locale", ["en", "es", "fr", "de", "pt"])
def test_r03_old_versions_are_recognised_in_every_locale(version: int, locale: str) -> None:
    template = Template(id="reply-not-interested", version=version, locale=locale)
    wording = find(template)
    assert wording is not None
    text = wording.filled("Ada").upper() + "\u200b !"
    assert Talk(sent(), reply(choice="not_interested", template=template, text=text)).content == "template_only"


@pytest.mark.parametrize("change", [{"id": "unheard"}, {"version": 99}, {"version": "2"}, {"locale": "xx"}], ids=str)
@pytest.mark.parametrize("attachments", [0, 1])
def test_r03_an_unknown_template_fails_open_and_is_counted(change: dict[str, object], attachments: int) -> None:
    template, text = render("not_interested", "en", "Ada")
    unknown = template.model_copy(update=change)
    talk = Talk(sent(), reply(choice="not_interested", template=unknown, text=text, attachments=attachments))
    assert talk.content == "with_message"
    assert talk.decision.unknown_template
    assert not talk.thread.locked


def test_r03_a_text_without_a_template_or_with_more_words_is_with_message() -> None:
    template, text = render("not_interested", "en", "Ada")
    assert Talk(sent(), reply(choice="not_interested", text=text)).content == "with_message"
    longer = reply(choice="not_interested", template=template, text=text + " Try me in May.")
    assert Talk(sent(), longer).content == "with_message"


def test_r03_an_attachment_is_a_message() -> None:
    assert Talk(sent(), reply(choice="not_interested", attachments=1)).content == "with_message"
    assert Talk(sent(), smart("not_interested", attachments=1)).content == "with_message"


def test_r03_the_wording_of_the_other_choice_is_an_own_word() -> None:
    template, text = render("interested", "en", "Ada")
    talk = Talk(sent(), reply(choice="not_interested", template=template, text=text))
    assert talk.content == "with_message"
    assert not talk.thread.locked


# R4, R5, R6


def test_r04_a_bare_refusal_locks_the_thread() -> None:
    talk = Talk(sent())
    assert talk.then(smart("not_interested")) == ["reply.recorded", "classification.requested", "thread.locked"]
    assert talk.last(ThreadLockedV1).reply_id == "reply-1"
    assert talk.then(recruiter_message()) == ["recruiter_message.rejected"]
    assert talk.last(RecruiterMessageRejectedV1).reason == "THREAD_LOCKED"


def test_r04_a_second_bare_refusal_publishes_no_second_lock() -> None:
    talk = Talk(sent(), smart("not_interested"))
    again = talk.then(smart("not_interested", reply_id="reply-2", at=after(days=2)))
    assert again == ["reply.recorded", "classification.requested"]


def test_r05_a_refusal_with_own_words_does_not_lock() -> None:
    talk = Talk(sent(), reply(choice="not_interested", text="Not now, ask me in May"))
    assert not talk.thread.locked
    assert talk.then(recruiter_message()) == ["recruiter_message.accepted"]


@pytest.mark.parametrize(
    "later",
    [
        reply(reply_id="reply-2", text="Wait, tell me more", at=after(days=2)),
        reply(reply_id="reply-2", attachments=1, at=after(days=2)),
        reply(reply_id="reply-2", choice="interested", at=after(days=2)),
        reply(reply_id="reply-2", choice="not_interested", text="Ask me in May", at=after(days=2)),
    ],
)
def test_r06_own_words_an_attachment_or_interest_unlock(later: Event[Any]) -> None:
    talk = Talk(sent(), smart("not_interested"))
    assert "thread.unlocked" in talk.then(later)
    assert talk.last(ThreadUnlockedV1).reply_id == "reply-2"
    assert talk.then(recruiter_message(at=after(days=3))) == ["recruiter_message.accepted"]


def test_r06_an_away_message_does_not_unlock_and_a_bare_refusal_locks_again() -> None:
    talk = Talk(sent(), smart("not_interested"))
    talk.then(reply(reply_id="away", text="I am away", automated=True, at=after(days=2)))
    assert not talk.all(ThreadUnlockedV1)
    assert "thread.unlocked" in talk.then(reply(reply_id="reply-2", text="Or maybe", at=after(days=3)))
    assert "thread.locked" in talk.then(smart("not_interested", reply_id="reply-3", at=after(days=4)))


# R7, R8


def test_r07_a_message_without_a_choice_is_classified_by_its_text_and_never_locks() -> None:
    talk = Talk(sent(), reply(text=" No, thanks. "))
    request = talk.last(ClassificationRequestedV1)
    assert (request.content, request.text, request.choice) == ("message", " No, thanks. ", None)
    assert not talk.thread.locked


def test_r07_the_words_of_a_template_without_its_choice_are_a_message() -> None:
    template, text = render("not_interested", "en", "Ada")
    talk = Talk(sent(), reply(template=template, text=text))
    assert talk.content == "message"
    assert not talk.thread.locked


def test_r07_only_a_message_with_words_takes_its_text_along() -> None:
    assert Talk(sent(), reply(attachments=2, text=" \u200b")).last(ClassificationRequestedV1).text is None
    assert Talk(sent(), reply(choice="interested", text="Yes!")).last(ClassificationRequestedV1).text is None


def test_r08_the_lock_is_folded_by_sending_time_not_by_arrival() -> None:
    talk = Talk(sent(), reply(reply_id="reply-2", text="Tell me more", at=after(days=2)))
    late = talk.then(smart("not_interested", reply_id="reply-1", at=after(days=1)))
    assert late == ["reply.recorded", "classification.requested"]
    assert not talk.thread.locked


def test_r08_of_two_replies_of_one_instant_the_greater_id_is_later() -> None:
    refusal, words = smart("not_interested", reply_id="b"), reply(reply_id="a", text="Hello")
    for order in ((refusal, words), (words, refusal)):
        assert Talk(sent(), *order).thread.locked


def test_r08_a_late_name_shows_a_refusal_to_be_its_template() -> None:
    """As if all had come in order of event time: with the name known, the thread would have locked."""
    renamed = ADA.model_copy(update={"name": "Augusta"})
    talk = Talk(sent(), smart("not_interested", "Augusta", at=after(days=2)))
    assert (talk.content, talk.thread.locked) == ("with_message", False)
    assert "thread.locked" in talk.then(follow_up_sent(at=after(days=1), candidate=renamed))
    assert talk.last(ThreadLockedV1).reply_id == "reply-1"


def test_r08_a_name_that_came_up_after_the_reply_changes_nothing() -> None:
    renamed = ADA.model_copy(update={"name": "Augusta"})
    later = follow_up_sent(at=after(days=3), candidate=renamed)
    refusal = smart("not_interested", "Augusta", at=after(days=2))
    for order in ((refusal, later), (later, refusal)):
        assert not Talk(sent(), *order).thread.locked


# R9, R10


@pytest.mark.parametrize("away", [{"text": "I am away"}, {"text": ""}, {"choice": "not_interested"}])
def test_r09_an_away_message_is_recorded_and_does_nothing_else(away: dict[str, Any]) -> None:
    talk = Talk(sent(), follow_up_scheduled(at=after(hours=1)))
    assert talk.then(reply(automated=True, **away)) == ["reply.recorded"]
    recorded = talk.last(ReplyRecordedV1)
    assert (recorded.content, recorded.first_response) == ("automated", False)
    talk.then(recruiter_message())
    assert talk.last(RecruiterMessageRejectedV1).reason == "AWAITING_REPLY"
    talk.then(reply(reply_id="reply-2", text="Back again", at=after(days=3)))
    assert talk.last(ReplyRecordedV1).first_response


@pytest.mark.parametrize("text", ["", " \t", "\u200b", "...", "?!"])
@pytest.mark.parametrize("events", [[], [sent()]])
def test_r10_a_reply_that_says_nothing_is_a_dead_letter(text: str, events: Sequence[Event[Any]]) -> None:
    talk = Talk(*events)
    before = talk.thread.version
    assert talk.then(reply(text=text)) == []
    assert (talk.decision.verdict, talk.decision.reason) == ("dead", "EMPTY_RESPONSE")
    assert talk.thread.version == before


def test_r10_a_choice_an_attachment_or_an_emoji_says_something() -> None:
    for says in (reply(choice="interested"), reply(attachments=1), reply(text="\U0001f44d")):
        assert Talk(sent(), says).decision.verdict == "applied"


# R12, R15, R22


def answered(*events: Event[Any]) -> str:
    return Talk(*events).last(ReplyRecordedV1).inmail_id


def test_r12_the_inmail_named_is_answered_else_the_newest_sent_by_then() -> None:
    first, second = sent(), follow_up_sent(at=after(days=28))
    assert answered(first, second, reply(text="Hi", in_reply_to="inmail-1", at=after(days=30))) == "inmail-1"
    assert answered(first, second, reply(text="Hi", at=after(days=30))) == "inmail-2"
    assert answered(first, second, reply(text="Hi", at=after(days=20))) == "inmail-1"
    assert answered(first, second, reply(text="Hi", in_reply_to="inmail-2", at=after(days=20))) == "inmail-1"
    assert answered(first, second, reply(text="Hi", in_reply_to="unknown", at=after(days=30))) == "inmail-2"


def test_r12_withdrawn_ones_can_be_answered_undelivered_and_scheduled_ones_cannot() -> None:
    first, second, answer = sent(), follow_up_sent(at=after(days=1)), reply(text="Hi", at=after(days=3))
    assert answered(first, second, withdrawn(inmail_id="inmail-2", at=after(days=2)), answer) == "inmail-2"
    assert answered(first, second, undelivered(inmail_id="inmail-2", at=after(days=2)), answer) == "inmail-1"
    assert answered(first, follow_up_scheduled(at=after(days=1)), answer) == "inmail-1"


def test_r12_the_match_is_decided_on_arrival_and_stands() -> None:
    talk = Talk(sent(), reply(text="Hi", at=after(days=30)))
    assert talk.then(follow_up_sent(at=after(days=28))) == ["inmail.status_changed"]
    assert [data.inmail_id for data in talk.all(ReplyRecordedV1)] == ["inmail-1"]


def test_r12_a_reply_carries_the_seat_contract_and_candidate_of_the_inmail_it_answers() -> None:
    talk = Talk(sent(seat_id="seat-7", contract_id="contract-7"), reassigned(seat_id="seat-8"))
    talk.then(reply(text="Hi"))
    recorded, request = talk.last(ReplyRecordedV1), talk.last(ClassificationRequestedV1)
    assert (recorded.seat_id, recorded.contract_id, recorded.inmail_sent_at) == ("seat-7", "contract-7", after())
    assert recorded.candidate == Candidate(id="candidate-1", name="Ada")
    assert request.candidate == Candidate(id="candidate-1", name="Ada", locale="en")
    assert request.thread_version == recorded.thread_version
    assert request.responded_at == recorded.sent_at == after(days=1)


@pytest.mark.parametrize("sent_first", [False, True])
def test_r21_where_a_candidate_is_does_not_depend_on_the_order_of_arrival(sent_first: bool) -> None:
    announced = scheduled(candidate=Candidate(id="candidate-1", name="Ana", locale="es", time_zone="Europe/Madrid"))
    silent = sent(candidate=Candidate(id="candidate-1"), at=after(days=1))
    talk = Talk(*((silent, announced) if sent_first else (announced, silent)), reply(text="Sí", at=after(days=2)))
    candidate = talk.last(ClassificationRequestedV1).candidate
    assert (candidate.name, candidate.locale) == ("Ana", "es")
    assert talk.last(InmailStatusChangedV1).candidate.time_zone == "Europe/Madrid"


def test_r12_the_first_response_is_the_first_that_came_to_its_inmail() -> None:
    talk = Talk(sent(), follow_up_sent(at=after(days=1)))
    for reply_id, to in (("a", "inmail-1"), ("b", "inmail-1"), ("c", "inmail-2")):
        talk.then(reply(reply_id=reply_id, text="Hi", in_reply_to=to, at=after(days=2)))
    talk.then(reply(reply_id="late", text="Hi", in_reply_to="inmail-1", at=after(days=1, hours=1)))
    assert [data.first_response for data in talk.all(ReplyRecordedV1)] == [True, False, True, False]


def test_r15_a_reply_on_day_100_that_names_none_answers_the_follow_up_of_day_28() -> None:
    assert answered(sent(), follow_up_sent(at=after(days=28)), reply(text="Hi", at=after(days=100))) == "inmail-2"


def test_r22_a_reply_up_to_five_minutes_before_its_inmail_is_simultaneous() -> None:
    at = after(days=1)
    assert answered(sent(at=at), reply(text="Hi", at=at - SKEW_MAX)) == "inmail-1"
    talk = Talk(sent(at=at))
    assert talk.then(reply(text="Hi", at=at - SKEW_MAX - MILLISECOND)) == []
    assert talk.decision.verdict == "parked"


# R16


def test_r16_a_reply_cancels_what_is_only_scheduled() -> None:
    talk = Talk(sent(), follow_up_scheduled(at=after(hours=1)))
    assert talk.then(reply(text="Hi")) == [
        "reply.recorded",
        "classification.requested",
        "follow_up.cancelled",
        "inmail.status_changed",
    ]
    cancelled = talk.last(FollowUpCancelledV1)
    assert (cancelled.inmail_id, cancelled.reply_id, cancelled.at) == ("inmail-2", "reply-1", after(days=1))
    assert talk.statuses[-1] == ("inmail-2", "cancelled")
    assert talk.last(InmailStatusChangedV1).at == after(days=1)


def test_r16_several_follow_ups_are_cancelled_in_order_and_told_apart_by_index() -> None:
    talk = Talk(sent())
    talk.then(scheduled(inmail_id="z", kind="follow_up", at=after(hours=1)))
    talk.then(scheduled(inmail_id="a", kind="follow_up", at=after(hours=2)))
    talk.then(reply(text="Hi"))
    assert [data.inmail_id for data in talk.all(FollowUpCancelledV1)] == ["z", "a"]
    indexes = [(outgoing.data.type, outgoing.index) for outgoing in talk.decision.outgoing]
    assert len(set(indexes)) == len(indexes)


def test_r16_what_was_sent_undelivered_or_withdrawn_or_is_no_follow_up_is_not_cancelled() -> None:
    waiting = follow_up_scheduled(at=after(hours=1))
    for fate in (
        follow_up_sent(at=after(hours=2)),
        undelivered(inmail_id="inmail-2", at=after(hours=2)),
        withdrawn(inmail_id="inmail-2", at=after(hours=2)),
    ):
        assert "follow_up.cancelled" not in Talk(sent(), waiting, fate).then(reply(text="Hi"))
    initial = scheduled(inmail_id="inmail-2", at=after(hours=1))
    assert "follow_up.cancelled" not in Talk(sent(), initial).then(reply(text="Hi"))


def test_r16_a_follow_up_scheduled_before_a_known_reply_is_cancelled_on_arrival_by_the_first_such_reply() -> None:
    talk = Talk(sent())
    for day in (1, 2, 3):
        talk.then(reply(reply_id=f"reply-{day}", text="Hi", at=after(days=day)))
    assert talk.then(follow_up_scheduled(at=after(days=1, hours=1))) == [
        "inmail.status_changed",
        "follow_up.cancelled",
        "inmail.status_changed",
    ]
    assert talk.statuses[-2:] == [("inmail-2", "scheduled"), ("inmail-2", "cancelled")]
    cancelled = talk.last(FollowUpCancelledV1)
    assert (cancelled.reply_id, cancelled.at) == ("reply-2", after(days=2))


def test_r16_a_follow_up_scheduled_after_a_reply_stands_until_the_next_one() -> None:
    talk = Talk(sent(), reply(text="Hi"))
    assert talk.then(follow_up_scheduled(at=after(days=2))) == ["inmail.status_changed"]
    late = talk.then(reply(reply_id="late", text="Hi", at=after(days=1, hours=1)))
    assert "follow_up.cancelled" not in late
    assert "follow_up.cancelled" in talk.then(reply(reply_id="next", text="Hi", at=after(days=3)))


def test_r16_scheduled_and_replied_at_one_instant_is_cancelled_in_either_order() -> None:
    waiting, answer = follow_up_scheduled(at=after(days=1)), reply(text="Hi", at=after(days=1))
    for order in ((waiting, answer), (answer, waiting)):
        assert Talk(sent(), *order).all(FollowUpCancelledV1)


def test_r16_sent_after_its_cancellation_is_told_and_answered_by_later_replies_only() -> None:
    talk = Talk(sent(), follow_up_scheduled(at=after(hours=1)), reply(text="Hi"))
    assert talk.then(follow_up_sent(at=after(hours=23))) == ["inmail.status_changed"]
    assert talk.statuses[-1] == ("inmail-2", "sent")
    assert talk.thread.inmails["inmail-2"].cancelled_at == after(days=1)
    assert [data.inmail_id for data in talk.all(ReplyRecordedV1)] == ["inmail-1"]
    talk.then(reply(reply_id="reply-2", text="Hi", at=after(days=2)))
    assert talk.last(ReplyRecordedV1).inmail_id == "inmail-2"


@pytest.mark.parametrize("named", [None, "inmail-2"])
def test_r16_what_was_cancelled_and_sent_is_not_answered_by_a_reply_from_before(named: str | None) -> None:
    talk = Talk(sent(), follow_up_scheduled(at=after(hours=1)), reply(text="Hi"))
    talk.then(follow_up_sent(at=after(days=1, minutes=3)))
    talk.then(reply(reply_id="late", text="Hi", in_reply_to=named, at=after(days=1) - timedelta(minutes=1)))
    assert talk.last(ReplyRecordedV1).inmail_id == "inmail-1"


@pytest.mark.parametrize("named", [None, "inmail-2"])
def test_r16_what_was_cancelled_and_sent_is_answered_by_what_was_written_after_it(named: str | None) -> None:
    """Also by a reply from before the one that cancelled it, which came first: it could be read by then."""
    talk = Talk(sent(), follow_up_scheduled(at=after(hours=1)), reply(text="Hi"), follow_up_sent(at=after(hours=3)))
    talk.then(reply(reply_id="earlier", text="Hi", in_reply_to=named, at=after(hours=5)))
    assert talk.last(ReplyRecordedV1).inmail_id == "inmail-2"


# R17, R18, R21: facts


def test_r17_r18_every_fact_is_told_as_it_comes_with_the_sending_time_once_known() -> None:
    talk = Talk(scheduled(), withdrawn(at=after(hours=3)), sent(at=after(hours=1)), undelivered(at=after(hours=2)))
    told = [(data.status, data.at, data.sent_at) for data in talk.all(InmailStatusChangedV1)]
    assert told == [
        ("scheduled", after(), None),
        ("withdrawn", after(hours=3), None),
        ("sent", after(hours=1), after(hours=1)),
        ("undelivered", after(hours=2), after(hours=1)),
    ]


def test_r19_a_free_inmail_is_told_as_free() -> None:
    assert Talk(sent(credit_cost=0)).last(InmailStatusChangedV1).credit_cost == 0


def test_r21_what_sent_says_of_an_inmail_stands_whichever_comes_first() -> None:
    planned, gone = scheduled(seat_id="seat-9"), sent(at=after(hours=1))
    for order in ((planned, gone), (gone, planned)):
        inmail = Talk(*order).thread.inmails["inmail-1"]
        assert (inmail.seat_id, inmail.scheduled_at, inmail.sent_at) == ("seat-1", after(), after(hours=1))


@pytest.mark.parametrize("event", [undelivered(), withdrawn(), reply(text="Hi"), reply(automated=True)])
def test_r21_replies_undelivered_and_withdrawn_wait_for_their_inmail(event: Event[Any]) -> None:
    talk = Talk(event)
    assert (talk.decision.verdict, talk.published, talk.thread) == ("parked", [], Thread("thread-1"))


def test_r21_only_scheduled_and_sent_end_a_wait() -> None:
    for event, ends in ((scheduled(), True), (sent(), True), (followed(), False), (drafted(), False)):
        assert Talk(event).decision.brings_inmail is ends


# R20


def test_r20_a_recruiter_may_write_on_once_there_is_a_response() -> None:
    talk = Talk()
    reasons = []
    for step in (None, scheduled(), sent(), reply(automated=True), reply(reply_id="reply-2", text="Hi")):
        if step is not None:
            talk.then(step)
        talk.then(recruiter_message())
        last = talk.published[-1]
        reasons.append(last.reason if isinstance(last, RecruiterMessageRejectedV1) else None)
    assert reasons == ["UNKNOWN_THREAD", "AWAITING_REPLY", "AWAITING_REPLY", "AWAITING_REPLY", None]
    accepted = talk.last(RecruiterMessageAcceptedV1)
    assert (accepted.message_id, accepted.seat_id, accepted.at) == ("message-1", "seat-1", after(days=2))


def test_r20_the_rejection_in_an_unknown_thread_is_its_version_1() -> None:
    talk = Talk(recruiter_message())
    assert talk.last(RecruiterMessageRejectedV1).thread_version == 1
    talk.then(sent())
    assert talk.last(InmailStatusChangedV1).thread_version == 2


# The audience (R21)


def test_r21_the_audience_is_told_with_the_first_inmail_and_on_every_change() -> None:
    talk = Talk()
    assert talk.then(followed(seat_id="seat-3", at=after(hours=1))) == []
    assert talk.then(followed(seat_id="seat-2", at=after(hours=1))) == []
    assert talk.then(sent()) == ["inmail.status_changed", "thread.audience_changed"]
    first = talk.last(ThreadAudienceChangedV1)
    assert (first.owner_seat_id, first.follower_seat_ids, first.at) == ("seat-1", ("seat-2", "seat-3"), after())
    assert talk.then(followed(seat_id="seat-2", at=after(hours=2))) == []
    assert talk.then(unfollowed(seat_id="seat-2", at=after(hours=3))) == ["thread.audience_changed"]
    assert talk.then(followed(seat_id="seat-2", at=after(hours=2))) == []
    assert talk.last(ThreadAudienceChangedV1).follower_seat_ids == ("seat-3",)
    assert talk.then(follow_up_sent(at=after(days=1))) == ["inmail.status_changed"]


def test_r21_the_newest_reassignment_owns_and_an_owner_is_no_follower() -> None:
    talk = Talk(reassigned(seat_id="seat-2", at=after(hours=2)), sent(), followed(seat_id="seat-2"))
    assert talk.last(ThreadAudienceChangedV1).owner_seat_id == "seat-2"
    assert talk.last(ThreadAudienceChangedV1).follower_seat_ids == ()
    assert talk.then(reassigned(seat_id="seat-3", at=after(hours=1))) == []
    assert talk.then(reassigned(seat_id="seat-4", at=after(hours=3))) == ["thread.audience_changed"]
    assert talk.last(ThreadAudienceChangedV1).follower_seat_ids == ("seat-2",)


def test_r21_without_a_reassignment_the_seat_of_the_first_inmail_owns_however_late_it_comes() -> None:
    talk = Talk(follow_up_sent(at=after(days=2), seat_id="seat-9"))
    assert talk.last(ThreadAudienceChangedV1).owner_seat_id == "seat-9"
    assert talk.then(sent(inmail_id="inmail-9", at=after(days=1))) == [
        "inmail.status_changed",
        "thread.audience_changed",
    ]
    assert talk.last(ThreadAudienceChangedV1).owner_seat_id == "seat-1"


@pytest.mark.parametrize("words", [(followed, unfollowed), (unfollowed, followed)])
def test_r21_words_of_one_instant_end_alike_in_any_order(words: tuple[Any, Any]) -> None:
    talk = Talk(sent(), *(word(at=after(hours=1)) for word in words))
    assert talk.thread.audience is not None
    assert talk.thread.audience.follower_seat_ids == ("seat-2",)


@pytest.mark.parametrize("owners", [("seat-2", "seat-3"), ("seat-3", "seat-2")])
def test_r21_reassignments_of_one_instant_end_alike_in_any_order(owners: tuple[str, str]) -> None:
    talk = Talk(sent(), *(reassigned(seat_id=owner, at=after(hours=1)) for owner in owners))
    assert talk.last(ThreadAudienceChangedV1).owner_seat_id == "seat-3"


# Numbers


def test_every_conversation_event_has_the_next_version_and_its_own_identity() -> None:
    talk = Talk(
        scheduled(), sent(), follow_up_scheduled(at=after(hours=1)), drafted(choice="interested", at=after(hours=2))
    )
    talk.then(smart("not_interested"))
    talk.then(recruiter_message())
    versions = [
        data.model_dump()["thread_version"]
        for data in talk.published
        if not isinstance(data, ClassificationRequestedV1)
    ]
    assert versions == list(range(1, len(versions) + 1))

"""The rules of outcomes, each shown on the replies that it is about."""

from dataclasses import dataclass, field
from datetime import datetime

import pytest

from services.classification.desk import Desk, threads_with_late_replies
from services.classification.domain import Reply, Thread, Verdict, chosen, fold
from shared.events import (
    Candidate,
    Choice,
    ClassificationRequestedV1,
    Outcome,
    OutcomeCorrectionRejectedV1,
    OutcomeCorrectionRequestedV1,
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
)
from shared.testing.builders import after

Answered = OutcomeDecidedV1 | OutcomeUnchangedV1


def label(outcome: Outcome, *, sure: bool = True, signals: tuple[str, ...] = ()) -> Verdict:
    return Verdict(
        outcome=outcome,
        source="classifier",
        confidence=0.9 if sure else 0.55,
        needs_confirmation=not sure,
        signals=signals,
        model_version="model-1",
    )


def request(at_days: float, choice: Choice | None = None, *, reply_id: str = "") -> ClassificationRequestedV1:
    return ClassificationRequestedV1(
        reply_id=reply_id or f"r{at_days}",
        thread_id="t",
        inmail_id=f"i{at_days}",
        contract_id="c",
        seat_id="s",
        candidate=Candidate(id="p", name="Ada", locale="en"),
        choice=choice,
        content="message" if choice is None else "template_only",
        text="words" if choice is None else None,
        thread_version=int(at_days * 10) + 2,
        responded_at=after(days=at_days),
    )


@dataclass
class Conversation:
    """One thread whose rows live on from batch to batch, as in the database."""

    threads: dict[str, Thread] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    kept: list[Reply] = field(default_factory=list)

    def say(
        self, at_days: float, choice: Choice | None = None, said: Outcome = "accepted", *, reply_id: str = ""
    ) -> Answered:
        given = self.try_to_say(request(at_days, choice, reply_id=reply_id), chosen(choice) if choice else label(said))
        assert given is not None
        return given

    def try_to_say(self, wanted: ClassificationRequestedV1, verdict: Verdict) -> Answered | None:
        answered = {reply.reply_id for reply in self.kept} & {wanted.reply_id}
        late = threads_with_late_replies([wanted], self.threads, answered)
        desk = Desk(dict(self.threads), dict(self.names), answered, {"t": list(self.kept)} if late else {})
        given = desk.answer(wanted, verdict)
        self._keep(desk)
        return given

    def correct(
        self, outcome: Outcome, version: int, *, at: datetime | None = None
    ) -> OutcomeDecidedV1 | OutcomeCorrectionRejectedV1:
        command = OutcomeCorrectionRequestedV1(
            thread_id="t", outcome=outcome, corrected_by="boss", version=version, requested_at=at or after(days=99)
        )
        desk = Desk(dict(self.threads), dict(self.names), set())
        ruling = desk.correct(command)
        self._keep(desk)
        return ruling

    def reject(self, outcome: Outcome, version: int) -> str:
        ruling = self.correct(outcome, version)
        assert isinstance(ruling, OutcomeCorrectionRejectedV1)
        return ruling.reason

    def _keep(self, desk: Desk) -> None:
        self.threads.update({key: desk.threads[key] for key in desk.changed})
        self.names.update(desk.named)
        self.kept += desk.replies.get("t", [])


@pytest.fixture
def thread() -> Conversation:
    return Conversation()


def brief(given: OutcomeDecidedV1 | OutcomeUnchangedV1 | OutcomeCorrectionRejectedV1) -> tuple[object, ...]:
    if isinstance(given, OutcomeDecidedV1):
        return ("decided", given.version, given.outcome, given.previous, given.source)
    if isinstance(given, OutcomeUnchangedV1):
        return ("unchanged", given.version, given.outcome, given.source)
    return ("rejected", given.reason)


@pytest.mark.parametrize(("choice", "outcome"), [("interested", "accepted"), ("not_interested", "declined")])
def test_r01_the_outcome_of_a_smart_reply_is_its_choice(thread: Conversation, choice: Choice, outcome: Outcome) -> None:
    given = thread.say(1, choice)
    assert brief(given) == ("decided", 1, outcome, None, "choice")
    assert (given.confidence, given.needs_confirmation, given.signals, given.model_version) == (1, False, (), None)


def test_r07_a_message_gets_the_outcome_of_its_label(thread: Conversation) -> None:
    given = thread.try_to_say(request(1), label("declined", sure=False, signals=("not_now",)))
    assert given is not None
    assert brief(given) == ("decided", 1, "declined", None, "classifier")
    assert (given.confidence, given.needs_confirmation, given.signals) == (0.55, True, ("not_now",))
    assert given.model_version == "model-1"


def test_r07_an_outcome_carries_what_its_request_does(thread: Conversation) -> None:
    given = thread.say(1)
    assert (given.reply_id, given.inmail_id, given.contract_id, given.seat_id) == ("r1", "i1", "c", "s")
    assert given.candidate == Candidate(id="p", name="Ada")
    assert given.thread_version == 12
    assert given.decided_at == given.responded_at == after(days=1)


def test_r08_a_message_in_an_accepted_thread_sets_no_outcome(thread: Conversation) -> None:
    first = thread.say(1)
    given = thread.say(2, said="declined")
    assert brief(given) == ("unchanged", 1, "accepted", "classifier")
    assert given.outcome_id == first.outcome_id
    assert (given.reply_id, given.inmail_id, given.thread_version) == ("r2", "i2", 22)
    assert given.responded_at == given.decided_at == after(days=2)


def test_r08_a_later_choice_always_sets_an_outcome(thread: Conversation) -> None:
    thread.say(1, "interested")
    assert brief(thread.say(2, "interested")) == ("decided", 2, "accepted", "accepted", "choice")
    assert brief(thread.say(3, "not_interested")) == ("decided", 3, "declined", "accepted", "choice")
    assert brief(thread.say(4, "not_interested")) == ("decided", 4, "declined", "declined", "choice")


def test_r08_in_a_declined_thread_only_acceptance_flips(thread: Conversation) -> None:
    thread.say(1, "not_interested")
    assert brief(thread.say(2, said="declined")) == ("unchanged", 1, "declined", "choice")
    assert brief(thread.say(3, said="accepted")) == ("decided", 2, "accepted", "declined", "classifier")


def test_r08_later_is_by_the_time_of_sending(thread: Conversation) -> None:
    thread.say(3, "not_interested")
    assert brief(thread.say(1, "interested")) == ("unchanged", 1, "declined", "choice")


def test_r08_replies_of_one_instant_are_ordered_by_id(thread: Conversation) -> None:
    thread.say(1, "not_interested", reply_id="b")
    assert brief(thread.say(1, "interested", reply_id="a")) == ("unchanged", 1, "declined", "choice")
    assert brief(thread.say(1, "interested", reply_id="c")) == ("decided", 2, "accepted", "declined", "choice")


def test_r08_a_late_message_that_comes_first_changes_what_follows(thread: Conversation) -> None:
    thread.say(2, said="declined")
    given = thread.say(1, said="accepted")
    assert brief(given) == ("decided", 2, "accepted", "declined", "classifier")
    assert (given.reply_id, given.decided_at) == ("r1", after(days=1))


def test_r08_a_late_choice_counts_unless_it_was_overtaken(thread: Conversation) -> None:
    thread.say(1, said="accepted")
    thread.say(3, said="declined")
    assert brief(thread.say(2, "not_interested")) == ("decided", 2, "declined", "accepted", "choice")
    assert brief(thread.say(1.5, "interested")) == ("unchanged", 2, "declined", "choice")


def test_r08_a_late_choice_that_changes_only_the_source_changes_nothing(thread: Conversation) -> None:
    thread.say(1, said="accepted")
    thread.say(3, said="accepted")
    assert brief(thread.say(2, "interested")) == ("unchanged", 1, "accepted", "classifier")


def test_r08_a_late_refusal_before_a_message_that_flips_it_back_changes_nothing(thread: Conversation) -> None:
    thread.say(1, "interested")
    thread.say(3, said="accepted")
    assert brief(thread.say(2, "not_interested")) == ("unchanged", 1, "accepted", "choice")


def test_r08_a_late_reply_does_not_make_the_next_one_newest(thread: Conversation) -> None:
    thread.say(1, "interested")
    thread.say(4, said="declined")
    thread.say(2, said="declined")
    assert brief(thread.say(3, "interested")) == ("unchanged", 1, "accepted", "choice")


def test_r08_a_repeated_request_gets_no_second_answer(thread: Conversation) -> None:
    thread.say(1, said="declined")
    assert thread.try_to_say(request(1), label("accepted")) is None
    assert thread.threads["t"].standing.version == 1
    assert thread.threads["t"].standing.verdict.outcome == "declined"


def test_r29_a_correction_is_the_next_version(thread: Conversation) -> None:
    first = thread.say(1, said="declined")
    given = thread.correct("accepted", 1, at=after(days=5))
    assert isinstance(given, OutcomeDecidedV1)
    assert brief(given) == ("decided", 2, "accepted", "declined", "human")
    assert given.outcome_id != first.outcome_id
    assert (given.confidence, given.needs_confirmation, given.signals, given.model_version) == (1, False, (), None)
    assert (given.reply_id, given.inmail_id, given.thread_version, given.responded_at) == (
        "r1",
        "i1",
        12,
        after(days=1),
    )
    assert given.decided_at == after(days=5)
    assert given.candidate == Candidate(id="p", name="Ada")


def test_r29_a_thread_without_an_outcome_has_nothing_to_correct(thread: Conversation) -> None:
    given = thread.correct("accepted", 1)
    assert isinstance(given, OutcomeCorrectionRejectedV1)
    assert (given.reason, given.thread_version, given.at) == ("NOT_CLASSIFIED", 0, after(days=99))


def test_r29_only_the_newest_version_is_corrected(thread: Conversation) -> None:
    thread.say(1, said="declined")
    thread.say(2, said="accepted")
    assert thread.reject("accepted", 1) == "STALE_VERSION"
    assert thread.reject("declined", 3) == "STALE_VERSION"


def test_r29_a_choice_and_a_correction_are_not_corrected(thread: Conversation) -> None:
    thread.say(1, "interested")
    assert thread.reject("declined", 1) == "NOT_CLASSIFIED"
    assert thread.reject("accepted", 1) == "SAME_VALUE", "as the request was refused, when it looked at the same state"
    other = Conversation()
    other.say(1)
    other.correct("declined", 1)
    assert other.reject("accepted", 2) == "NOT_CLASSIFIED"


def test_r29_the_value_it_has_is_no_correction(thread: Conversation) -> None:
    thread.say(1, said="declined")
    assert thread.reject("declined", 1) == "SAME_VALUE"
    assert thread.threads["t"].standing.version == 1


def test_r29_a_corrected_outcome_is_changed_by_a_choice_alone(thread: Conversation) -> None:
    thread.say(1, said="accepted")
    thread.correct("declined", 1)
    assert brief(thread.say(2, said="accepted")) == ("unchanged", 2, "declined", "human")
    assert brief(thread.say(3, "interested")) == ("decided", 3, "accepted", "declined", "choice")


def test_r29_a_late_reply_stands_before_the_correction(thread: Conversation) -> None:
    thread.say(2, said="accepted")
    thread.correct("declined", 1)
    assert brief(thread.say(1, "interested")) == ("unchanged", 2, "declined", "human")


def test_r29_a_correction_stands_after_unchanging_replies_too(thread: Conversation) -> None:
    thread.say(1, said="accepted")
    thread.say(3, said="accepted")
    thread.correct("declined", 1)
    assert brief(thread.say(2, "interested")) == ("unchanged", 2, "declined", "human")
    assert brief(thread.say(4, "interested")) == ("decided", 3, "accepted", "declined", "choice")


def test_r29_after_a_choice_messages_count_again_and_may_be_corrected(thread: Conversation) -> None:
    thread.say(1, said="accepted")
    thread.correct("declined", 1)
    thread.say(2, "not_interested")
    assert brief(thread.say(3, said="accepted")) == ("decided", 4, "accepted", "declined", "classifier")
    assert brief(thread.correct("declined", 4)) == ("decided", 5, "declined", "accepted", "human")


def test_r29_a_late_choice_wakes_the_messages_that_the_correction_had_silenced(thread: Conversation) -> None:
    thread.say(1, said="accepted")
    thread.correct("declined", 1)
    thread.say(3, said="accepted")
    given = thread.say(2, "not_interested")
    assert brief(given) == ("decided", 3, "accepted", "declined", "classifier")
    assert (given.reply_id, given.thread_version) == ("r2", 22), "it answers the reply that was asked about"


def test_r29_a_late_choice_that_agrees_with_a_correction_ends_it(thread: Conversation) -> None:
    thread.say(1, said="accepted")
    thread.correct("declined", 1)
    thread.say(3, said="declined")
    assert brief(thread.say(2, "not_interested")) == ("unchanged", 2, "declined", "human")
    assert brief(thread.say(4, said="accepted")) == ("decided", 3, "accepted", "declined", "classifier")


def test_a_name_that_is_missing_later_is_not_forgotten(thread: Conversation) -> None:
    thread.say(1, said="declined")
    nameless = request(2).model_copy(update={"candidate": Candidate(id="p")})
    answered = thread.try_to_say(nameless, label("declined"))
    assert answered is not None
    assert answered.candidate.name is None
    given = thread.correct("accepted", 1)
    assert isinstance(given, OutcomeDecidedV1)
    assert given.candidate.name == "Ada"


def test_the_history_is_asked_for_only_where_it_decides(thread: Conversation) -> None:
    thread.say(2)
    assert threads_with_late_replies([request(3), request(4)], thread.threads, set()) == set()
    assert threads_with_late_replies([request(1)], thread.threads, set()) == {"t"}
    assert threads_with_late_replies([request(4), request(3)], thread.threads, set()) == {"t"}, "late within a batch"
    assert threads_with_late_replies([request(1)], thread.threads, {"r1"}) == set(), "a repeat is not late"


def test_a_thread_without_replies_has_no_outcome() -> None:
    assert fold([]) is None

"""What holds of outcomes however replies and corrections arrive, and of the model whatever it is given."""

from dataclasses import dataclass, field
from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

from services.classification.desk import Desk, threads_with_late_replies
from services.classification.domain import Reply, Thread, Verdict, chosen
from services.classification.model.classifier import Classifier
from shared.events import (
    Candidate,
    Choice,
    ClassificationRequestedV1,
    EventData,
    Outcome,
    OutcomeCorrectionRequestedV1,
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
)
from shared.testing.builders import after

Said = Choice | Outcome
CHOICES: dict[str, Choice] = {"interested": "interested", "not_interested": "not_interested"}
OUTCOMES: dict[str, Outcome] = {
    "interested": "accepted",
    "not_interested": "declined",
    "accepted": "accepted",
    "declined": "declined",
}


@dataclass(frozen=True)
class Correct:
    """Correct whatever version is the newest, to the other value."""

    thread: str


@dataclass(frozen=True)
class Say:
    thread: str
    minute: int
    number: int
    said: Said

    def request(self) -> ClassificationRequestedV1:
        choice = CHOICES.get(self.said)
        return ClassificationRequestedV1(
            reply_id=f"r{self.number}",
            thread_id=self.thread,
            inmail_id="i",
            contract_id="c",
            seat_id="s",
            candidate=Candidate(id="p"),
            choice=choice,
            content="message" if choice is None else "with_message",
            thread_version=self.number + 1,
            responded_at=after(minutes=self.minute),
        )

    def verdict(self) -> Verdict:
        choice = CHOICES.get(self.said)
        return chosen(choice) if choice else Verdict(OUTCOMES[self.said], "classifier", 0.9, model_version="m")


@dataclass
class Tables:
    """The rows, as a database holds them between batches."""

    threads: dict[str, Thread] = field(default_factory=dict)
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    answers: list[EventData | None] = field(default_factory=list)

    def work(self, batch: list[Say | Correct]) -> None:
        requests = [each.request() for each in batch if isinstance(each, Say)]
        known = {reply.reply_id for replies in self.replies.values() for reply in replies}
        answered = known & {request.reply_id for request in requests}
        threads = {each.thread: self.threads[each.thread] for each in batch if each.thread in self.threads}
        late = threads_with_late_replies(requests, threads, answered)
        histories = {thread_id: list(self.replies.get(thread_id, ())) for thread_id in late}
        desk = Desk(threads, {}, answered, histories)
        for each in batch:
            if isinstance(each, Say):
                self.answers.append(desk.answer(each.request(), each.verdict()))
            else:
                self.answers.append(desk.correct(self._command(each, desk)))
        self.threads.update({thread_id: desk.threads[thread_id] for thread_id in desk.changed})
        for thread_id, replies in desk.replies.items():
            self.replies.setdefault(thread_id, []).extend(replies)

    @staticmethod
    def _command(wanted: Correct, desk: Desk) -> OutcomeCorrectionRequestedV1:
        thread = desk.threads.get(wanted.thread)
        version = 1 if thread is None else thread.standing.version
        other: Outcome = (
            "declined" if thread is not None and thread.standing.verdict.outcome == "accepted" else "accepted"
        )
        return OutcomeCorrectionRequestedV1(
            thread_id=wanted.thread, outcome=other, corrected_by="h", version=version, requested_at=after(days=9)
        )


THREADS = st.sampled_from(["t", "u"])
SAID: st.SearchStrategy[Said] = st.sampled_from(("interested", "not_interested", "accepted", "declined"))


@st.composite
def conversations(draw: st.DrawFn, *, corrected: bool = True) -> list[Say | Correct]:
    """Replies and corrections in order of arrival; some replies arrive twice."""
    count = draw(st.integers(1, 12))
    says = [Say(draw(THREADS), draw(st.integers(0, 6)), number, draw(SAID)) for number in range(count)]
    repeats = draw(st.lists(st.sampled_from(says), max_size=3))
    corrections = draw(st.lists(THREADS.map(Correct), max_size=3 if corrected else 0))
    return draw(st.permutations([*says, *repeats, *corrections]))


def cut(arrivals: list[Say | Correct], sizes: list[int]) -> list[list[Say | Correct]]:
    batches, start = [], 0
    for size in sizes:
        batches.append(arrivals[start : start + size])
        start += size
    return [*batches, arrivals[start:]]


def reference(says: set[Say]) -> Outcome:
    """R8 without corrections, word for word."""
    outcome: Outcome | None = None
    for each in sorted(says, key=lambda say: (say.minute, f"r{say.number}")):
        if each.said in CHOICES or outcome is None or (outcome == "declined" and each.said == "accepted"):
            outcome = OUTCOMES[each.said]
    assert outcome is not None
    return outcome


@settings(deadline=None)
@given(conversations(corrected=False), st.lists(st.integers(0, 4), max_size=6))
def test_the_outcome_is_that_of_the_order_of_sending(arrivals: list[Say | Correct], sizes: list[int]) -> None:
    tables = Tables()
    for batch in cut(arrivals, sizes):
        tables.work(batch)
    for thread_id, thread in tables.threads.items():
        says = {each for each in arrivals if isinstance(each, Say) and each.thread == thread_id}
        assert thread.standing.verdict.outcome == reference(says)


@settings(deadline=None)
@given(conversations(), st.lists(st.integers(0, 4), max_size=6))
def test_batches_do_not_matter(arrivals: list[Say | Correct], sizes: list[int]) -> None:
    whole, parts = Tables(), Tables()
    whole.work(arrivals)
    for batch in cut(arrivals, sizes):
        parts.work(batch)
    assert parts == whole


@settings(deadline=None)
@given(conversations())
def test_every_request_has_one_answer_and_versions_have_no_gaps(arrivals: list[Say | Correct]) -> None:
    tables = Tables()
    tables.work(arrivals)
    given_to: dict[str, int] = {}
    newest: dict[str, OutcomeDecidedV1] = {}
    for cause, answer in zip(arrivals, tables.answers, strict=True):
        if isinstance(answer, OutcomeDecidedV1):
            before = newest.get(answer.thread_id)
            assert answer.version == (1 if before is None else before.version + 1)
            assert answer.previous == (None if before is None else before.outcome)
            newest[answer.thread_id] = answer
        if isinstance(answer, OutcomeUnchangedV1):
            standing = newest[answer.thread_id]
            assert (answer.outcome_id, answer.version) == (standing.outcome_id, standing.version)
            assert (answer.outcome, answer.source) == (standing.outcome, standing.source)
        if isinstance(cause, Say) and isinstance(answer, OutcomeDecidedV1 | OutcomeUnchangedV1):
            assert answer.reply_id == f"r{cause.number}"
            given_to[answer.reply_id] = given_to.get(answer.reply_id, 0) + 1
    assert given_to == {f"r{each.number}": 1 for each in arrivals if isinstance(each, Say)}


@settings(deadline=None)
@given(conversations())
def test_a_human_word_is_changed_by_a_choice_alone(arrivals: list[Say | Correct]) -> None:
    tables = Tables()
    by_human: set[str] = set()
    for arrival in arrivals:
        tables.work([arrival])
        answer = tables.answers[-1]
        if isinstance(answer, OutcomeDecidedV1) and answer.source == "human":
            by_human.add(arrival.thread)
        elif isinstance(arrival, Say) and arrival.said in CHOICES:
            by_human.discard(arrival.thread)
        elif arrival.thread in by_human:
            assert not isinstance(answer, OutcomeDecidedV1)


@lru_cache(maxsize=1)
def model() -> Classifier:
    return Classifier.load()


ANY_TEXT = st.text(st.characters(), max_size=300)
LATIN = st.text(st.characters(max_codepoint=0x17F, exclude_categories=["Cc"]), max_size=120).filter(
    # One letter that is written as two when it is large has no small form to come back to.
    lambda text: text.upper().lower() == text.lower()
)
INVISIBLE = st.sampled_from(["\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad"])


@settings(deadline=None)
@given(st.lists(ANY_TEXT, max_size=8))
def test_the_model_takes_any_text(texts: list[str]) -> None:
    predictions = model().classify(texts)
    assert len(predictions) == len(texts)
    assert all(0 <= prediction.confidence <= 1 for prediction in predictions)


@settings(deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=8))
def test_texts_do_not_influence_each_other(texts: list[str]) -> None:
    assert model().classify(texts) == [model().classify([text])[0] for text in texts]


@settings(deadline=None)
@given(LATIN)
def test_case_does_not_matter(text: str) -> None:
    assert len({tuple(model().classify([form])) for form in (text, text.upper(), text.lower())}) == 1


@settings(deadline=None)
@given(ANY_TEXT, st.data())
def test_characters_that_leave_no_mark_do_not_matter(text: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)), reverse=True)
    marked = text
    for place in places:
        marked = marked[:place] + data.draw(INVISIBLE) + marked[place:]
    assert model().classify([marked]) == model().classify([text])

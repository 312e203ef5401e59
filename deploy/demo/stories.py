"""Conversations told as stories: what was written, and what each of it brought about."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from deploy.demo.play import Played
from deploy.traffic.records import Fact
from deploy.traffic.stories import Story
from deploy.verifier.observation import Derived, Observed
from shared.topics import (
    CONVERSATION_EVENTS,
    CREDIT_EVENTS,
    NOTIFICATION_REQUESTS,
    OUTCOME_EVENTS,
)

Who = Literal["recruiter", "candidate", "system"]

_TOLD_TOPICS: Final = (CONVERSATION_EVENTS, OUTCOME_EVENTS, NOTIFICATION_REQUESTS, CREDIT_EVENTS)
_REASONS: Final = {
    "THREAD_LOCKED": "the candidate has declined and said no more",
    "AWAITING_REPLY": "nobody has answered yet",
    "UNKNOWN_THREAD": "there is no such conversation",
}
_LEDGER: Final = {
    "held": "held for it",
    "captured": "taken",
    "charged": "taken",
    "released": "released",
    "refunded": "refunded",
    "returned": "returned to the contract",
}


@dataclass(frozen=True, slots=True)
class Sentence:
    """One step of a story. `when` is its day and time; what the system does has none of its own."""

    when: str
    who: Who
    name: str
    what: str


@dataclass(frozen=True, slots=True)
class Told:
    """A story as it happened."""

    title: str
    thread_id: str
    sentences: tuple[Sentence, ...]


def told(played: Played) -> list[Told]:
    """Tell every story of a scenario from what was seen of it."""
    effects = _effects(played.observed)
    return [_tell(story, played, effects) for story in played.scenario.stories]


def _tell(story: Story, played: Played, effects: Mapping[str, list[Derived]]) -> Told:
    thread_id = story.talk.thread_id
    facts = [
        record.fact
        for record in played.scenario.records
        if record.fact is not None and record.says_something and record.fact.key == thread_id
    ]
    began = min(fact.time for fact in facts)
    sentences: list[Sentence] = []
    for fact in facts:
        when = f"day {(fact.time.date() - began.date()).days}, {fact.time:%H:%M}"
        who, what = _said(fact)
        name = (story.talk.person.name or "A candidate").split()[0] if who == "candidate" else "Recruiter"
        sentences.append(Sentence(when, who, name, what))
        sentences += [Sentence("", "system", "", line) for line in _brought(effects.get(fact.id, []))]
    return Told(story.title, thread_id, tuple(sentences))


def _effects(observed: Observed) -> dict[str, list[Derived]]:
    """Events by the upstream event that they go back to, in the order of the flow."""
    found: defaultdict[str, list[Derived]] = defaultdict(list)
    for topic in _TOLD_TOPICS:
        for event in observed.derived.get(topic, []):
            found[event.root_id].append(event)
    return found


# What people do


def _said(fact: Fact) -> tuple[Who, str]:  # noqa: PLR0911  one sentence a type
    data = fact.data
    match fact.type:
        case "inmail.scheduled.v1":
            what = "an automated follow-up" if data["automated"] else "an InMail"
            return "recruiter", f"schedules {what} for {data['deliver_at']:%d %b, %H:%M}"
        case "inmail.sent.v1":
            return "recruiter", "sends an InMail" if data["kind"] == "initial" else "sends a follow-up"
        case "recruiter_message.sent.v1":
            return "recruiter", f"writes “{data['text']}”"
        case "thread.followed.v1":
            return "recruiter", f"lets a colleague follow ({data['seat_id']})"
        case "reply.drafted.v1":
            return "candidate", f"picks “{_choice(data)}” and does not send it yet"
        case "reply.sent.v1":
            return "candidate", _replied(data, fact.content)
        case other:
            return "recruiter", other


def _replied(data: Mapping[str, Any], content: str | None) -> str:
    if data.get("choice") is None:
        return f"writes “{data['text']}”"
    how = "as it was offered" if content == "template_only" else "with own words"
    return f"sends “{_choice(data)}” {how}: “{data['text']}”"


def _choice(data: Mapping[str, Any]) -> str:
    return {"interested": "interested", "not_interested": "not interested"}.get(data.get("choice", ""), "nothing")


# What the system makes of it


def _brought(events: list[Derived]) -> Iterator[str]:
    told_to: dict[str, list[str]] = {}
    for event in events:
        if event.type == "notification.requested.v1":
            told_to.setdefault(event.data["text"], []).append(_address(event.data))
            continue
        line = _line(event)
        if line is not None:
            yield line
    for text, addresses in told_to.items():
        yield f"told to {', '.join(addresses)}: “{text}”"


def _address(data: Mapping[str, Any]) -> str:
    seat = data["recipient"]["seat_id"].partition("/")[2]
    later = f" from {data['deliver_after'][11:16]} UTC" if "deliver_after" in data else ""
    return f"{seat} {data['channel'].replace('_', ' ')}{later}"


def _line(event: Derived) -> str | None:  # noqa: PLR0911  one sentence a type
    data = event.data
    match event.type:
        case "outcome.decided.v1":
            return _decided(data)
        case "outcome.unchanged.v1":
            return f"outcome stays {data['outcome']}"
        case "thread.locked.v1":
            return "the thread is locked"
        case "thread.unlocked.v1":
            return "the thread is open again"
        case "follow_up.cancelled.v1":
            return "the waiting follow-up is cancelled"
        case "recruiter_message.rejected.v1":
            return f"rejected {data['reason']}: {_REASONS[data['reason']]}"
        case "recruiter_message.accepted.v1":
            return "delivered"
        case "credit.posted.v1" if data["kind"] in _LEDGER:
            available = data["balance_after"]["available"]
            return f"ledger line {data['entry_number']:,}: 1 credit {_LEDGER[data['kind']]}, {available:,} available"
        case _:
            return None


def _decided(data: Mapping[str, Any]) -> str:
    before = f"{data['previous']} → " if "previous" in data else ""
    by = "by choice" if data["source"] == "choice" else f"read in the text, {data['confidence']:.0%} sure"
    doubt = ", to be confirmed" if data["needs_confirmation"] else ""
    return f"outcome {before}{data['outcome']} ({by}{doubt}), version {data['version']}"

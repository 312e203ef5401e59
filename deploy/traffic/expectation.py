"""What must come of a scenario, by a model so small that it can be read against the rules.

It reads the facts of each conversation one by one in order of publication, which is their order on the topic, and
knows nothing of batches, partitions or services. It shares no code with them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self

from deploy.traffic.records import Fact, Leaning, Record
from deploy.traffic.scenario import Scenario

CREDIT_WINDOW: Final = timedelta(hours=90 * 24)
REPORT_WINDOW: Final = timedelta(days=30)
SKEW: Final = timedelta(minutes=5)
NOWHERE: Final = datetime.min.replace(tzinfo=UTC)

InmailClass = Literal["answered", "awaiting", "overtaken", "undelivered", "withdrawn"]
Step = Literal["scheduled", "sent", "undelivered", "stopped", "answered"]


@dataclass(slots=True)
class Inmail:
    """An InMail and what happened to it. `steps` are the facts that concern its credit, in order of arrival."""

    id: str
    thread_id: str
    contract_id: str
    seat_id: str
    name: str | None
    kind: str
    cost: int
    scheduled_at: datetime | None = None
    sent_at: datetime | None = None
    undelivered: bool = False
    withdrawn: bool = False
    cancelled: bool = False
    answers: list[datetime] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def first_at(self) -> datetime:
        """When it came into being."""
        return min(at for at in (self.scheduled_at, self.sent_at) if at is not None)

    @property
    def counts(self) -> bool:
        """Whether it counts as sent (R17, R18)."""
        return self.sent_at is not None and not self.undelivered

    @property
    def waits(self) -> bool:
        """Whether the candidate has it and may answer."""
        return self.counts and not self.withdrawn

    @property
    def answered_in_time(self) -> bool:
        """Whether an answer brings its credit back (R13)."""
        return self.sent_at is not None and any(at - self.sent_at <= CREDIT_WINDOW for at in self.answers)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, the InMail it answers, and who is told of it."""

    id: str
    sent_at: datetime
    inmail_id: str
    choice: str | None
    content: str
    leaning: Leaning | None
    audience: frozenset[str]

    @property
    def place(self) -> tuple[datetime, str]:
        """Where it stands in its thread (R8)."""
        return self.sent_at, self.id


@dataclass(slots=True)
class Thread:
    """A conversation. `replies` are the human ones in order of arrival; `messages` what became of the recruiter's."""

    id: str
    inmails: dict[str, Inmail] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    automated: dict[str, str] = field(default_factory=dict)
    parked: list[Fact] = field(default_factory=list)
    messages: dict[str, str | None] = field(default_factory=dict)
    following: dict[str, tuple[datetime, bool]] = field(default_factory=dict)
    reassigned: tuple[datetime, str] | None = None
    drafted: tuple[datetime, str | None] = (NOWHERE, None)

    @property
    def newest_reply(self) -> Reply | None:
        """The last human reply by its own time."""
        return max(self.replies, key=lambda reply: reply.place, default=None)

    @property
    def locked(self) -> bool:
        """Whether the last reply is a bare refusal (R4 to R6)."""
        newest = self.newest_reply
        return newest is not None and newest.choice == "not_interested" and newest.content == "template_only"

    @property
    def owner(self) -> str:
        """Whose thread it is: the last to whom it was given, else who wrote first."""
        if self.reassigned is not None:
            return self.reassigned[1]
        return min(self.inmails.values(), key=lambda inmail: (inmail.first_at, inmail.id)).seat_id

    @property
    def audience(self) -> frozenset[str]:
        """Who is told: the owner and whoever follows."""
        return frozenset({self.owner, *(seat for seat, (_, follows) in self.following.items() if follows)})

    @property
    def selected(self) -> str | None:
        """The draft that stands, if no reply is newer (R2)."""
        newest, (at, choice) = self.newest_reply, self.drafted
        return None if newest is not None and newest.sent_at >= at else choice

    @property
    def unanswered_status(self) -> str:
        """The status of a thread without an outcome."""
        if any(inmail.waits for inmail in self.inmails.values()):
            return "awaiting_reply"
        waiting = any(
            inmail.sent_at is None and not (inmail.undelivered or inmail.withdrawn or inmail.cancelled)
            for inmail in self.inmails.values()
        )
        return "scheduled" if waiting else "closed"

    def class_of(self, inmail: Inmail) -> InmailClass:
        """Put a sent InMail into one of the classes that together are all of them."""
        if inmail.undelivered:
            return "undelivered"
        if inmail.answers:
            return "answered"
        if inmail.withdrawn:
            return "withdrawn"
        return "overtaken" if self.replies else "awaiting"


@dataclass(slots=True)
class Contract:
    """A contract's terms as they are in the end. `granted` counts its months."""

    id: str
    allotment: int = 0
    cap: int = 0
    periods: set[str] = field(default_factory=set)
    ended_at: datetime | None = None

    @property
    def granted(self) -> int:
        """All credits that were ever granted (R23)."""
        return self.allotment * len(self.periods)


@dataclass(slots=True)
class Seat:
    """A seat and the channels it wants beside the thread. `quiet` are wall clock times in its time zone."""

    id: str
    contract_id: str
    time_zone: str
    channels: frozenset[str] = frozenset()
    quiet: tuple[str, str] | None = None


@dataclass(slots=True)
class Expectation:
    """What must come of a scenario. `parked` are the facts that wait for ever."""

    until: datetime
    records: tuple[Record, ...] = ()
    threads: dict[str, Thread] = field(default_factory=dict)
    contracts: dict[str, Contract] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """Think a scenario through."""
        expected = cls(scenario.until, tuple(scenario.records))
        for record in expected.records:
            if record.fact is not None and record.says_something:
                expected.take(record.fact)
        return expected

    def take(self, fact: Fact) -> None:
        """Add the next fact."""
        data = fact.data
        if fact.type in _CONTRACT_RULES:
            _CONTRACT_RULES[fact.type](self, data)
        else:
            thread = self.threads.setdefault(data["thread_id"], Thread(data["thread_id"]))
            _tell(thread, fact)

    @property
    def inmails(self) -> Iterator[Inmail]:
        """All InMails."""
        for thread in self.threads.values():
            yield from thread.inmails.values()

    @property
    def parked(self) -> list[Fact]:
        """The facts that still wait for their InMail."""
        return [fact for thread in self.threads.values() for fact in thread.parked]

    @property
    def poison(self) -> list[Record]:
        """The records that must become dead letters."""
        return [record for record in self.records if record.poison is not None]

    def channels_of(self, seat_id: str) -> frozenset[str]:
        """Where a seat is told (R26)."""
        seat = self.seats.get(seat_id)
        return frozenset({"in_thread"}) | (seat.channels if seat is not None else frozenset())


# Contracts


def _started(expected: Expectation, data: Mapping[str, Any]) -> None:
    contract = expected.contracts.setdefault(data["contract_id"], Contract(data["contract_id"]))
    contract.allotment = data["monthly_allotment"]
    contract.cap = contract.allotment * data["cap_multiple"]
    contract.periods.add(f"{data['started_at']:%Y-%m}")


def _refreshed(expected: Expectation, data: Mapping[str, Any]) -> None:
    expected.contracts[data["contract_id"]].periods.add(data["period"])


def _ended(expected: Expectation, data: Mapping[str, Any]) -> None:
    expected.contracts[data["contract_id"]].ended_at = data["ended_at"]


def _assigned(expected: Expectation, data: Mapping[str, Any]) -> None:
    expected.seats[data["seat_id"]] = Seat(data["seat_id"], data["contract_id"], data["time_zone"])


def _preferred(expected: Expectation, data: Mapping[str, Any]) -> None:
    seat, hours = expected.seats[data["seat_id"]], data.get("quiet_hours")
    seat.channels = frozenset(data["channels"])
    seat.quiet = None if hours is None else (hours["start"], hours["end"])


_CONTRACT_RULES: Final = {
    "contract.started.v1": _started,
    "credits.refreshed.v1": _refreshed,
    "contract.ended.v1": _ended,
    "seat.assigned.v1": _assigned,
    "seat.preferences_set.v1": _preferred,
}

# Conversations


def _tell(thread: Thread, fact: Fact) -> None:
    if not _RULES[fact.type](thread, fact):
        thread.parked.append(fact)
    elif fact.type in ("inmail.scheduled.v1", "inmail.sent.v1"):
        waiting, thread.parked = thread.parked, []
        thread.parked = [parked for parked in waiting if not _RULES[parked.type](thread, parked)]


def _inmail(thread: Thread, data: Mapping[str, Any]) -> Inmail:
    known = thread.inmails.get(data["inmail_id"])
    if known is None:
        name = data["candidate"].get("name")
        known = Inmail(
            data["inmail_id"],
            thread.id,
            data["contract_id"],
            data["seat_id"],
            name,
            data["kind"],
            data["credit_cost"],
        )
        thread.inmails[known.id] = known
    return known


def _scheduled(thread: Thread, fact: Fact) -> bool:
    inmail = _inmail(thread, fact.data)
    inmail.scheduled_at = fact.time
    inmail.steps.append("scheduled")
    if any(reply.sent_at >= fact.time for reply in thread.replies):
        _cancel_if_waiting([inmail], max(reply.sent_at for reply in thread.replies))
    return True


def _sent(thread: Thread, fact: Fact) -> bool:
    inmail = _inmail(thread, fact.data)
    inmail.sent_at = fact.time
    inmail.steps.append("sent")
    return True


def _undelivered(thread: Thread, fact: Fact) -> bool:
    inmail = thread.inmails.get(fact.data["inmail_id"])
    if inmail is None:
        return False
    inmail.undelivered = True
    inmail.steps.append("undelivered")
    return True


def _withdrawn(thread: Thread, fact: Fact) -> bool:
    inmail = thread.inmails.get(fact.data["inmail_id"])
    if inmail is None:
        return False
    inmail.withdrawn = True
    inmail.steps.append("stopped")
    return True


def _replied(thread: Thread, fact: Fact) -> bool:
    data = fact.data
    candidates = {
        inmail.id: inmail
        for inmail in thread.inmails.values()
        if inmail.sent_at is not None and inmail.sent_at <= fact.time + SKEW and not inmail.undelivered
    }
    if not candidates:
        return False
    newest = max(candidates.values(), key=lambda inmail: (inmail.sent_at, inmail.id))
    inmail = candidates.get(data.get("in_reply_to") or "", newest)
    content = fact.content or "unknown"
    if data["automated"]:
        thread.automated[data["reply_id"]] = inmail.id
        return True
    inmail.answers.append(fact.time)
    if inmail.sent_at is not None and fact.time - inmail.sent_at <= CREDIT_WINDOW:
        inmail.steps.append("answered")
    reply = Reply(
        data["reply_id"], fact.time, inmail.id, data.get("choice"), content, fact.leaning, audience=thread.audience
    )
    thread.replies.append(reply)
    _cancel_if_waiting(thread.inmails.values(), fact.time)
    return True


def _cancel_if_waiting(inmails: Iterable[Inmail], replied_at: datetime) -> None:
    """R16: a follow-up that was waiting when the candidate wrote is not sent."""
    for inmail in inmails:
        stopped = inmail.undelivered or inmail.withdrawn or inmail.cancelled or inmail.sent_at is not None
        if stopped or inmail.kind != "follow_up" or inmail.scheduled_at is None:
            continue
        if inmail.scheduled_at <= replied_at:
            inmail.cancelled = True
            inmail.steps.append("stopped")


def _recruiter_wrote(thread: Thread, fact: Fact) -> bool:
    reason = None
    if not thread.inmails:
        reason = "UNKNOWN_THREAD"
    elif thread.locked:
        reason = "THREAD_LOCKED"
    elif not thread.replies:
        reason = "AWAITING_REPLY"
    thread.messages[fact.data["message_id"]] = reason
    return True


def _followed(thread: Thread, fact: Fact) -> bool:
    seat_id, word = fact.data["seat_id"], (fact.time, fact.type == "thread.followed.v1")
    thread.following[seat_id] = max(word, thread.following.get(seat_id, word))
    return True


def _reassigned(thread: Thread, fact: Fact) -> bool:
    word = (fact.time, fact.data["seat_id"])
    thread.reassigned = max(word, thread.reassigned or word)
    return True


def _drafted(thread: Thread, fact: Fact) -> bool:
    if thread.drafted[0] is NOWHERE or fact.time > thread.drafted[0]:
        thread.drafted = (fact.time, fact.data.get("choice"))
    return True


_RULES: Final = {
    "inmail.scheduled.v1": _scheduled,
    "inmail.sent.v1": _sent,
    "inmail.undelivered.v1": _undelivered,
    "inmail.withdrawn.v1": _withdrawn,
    "reply.sent.v1": _replied,
    "reply.drafted.v1": _drafted,
    "recruiter_message.sent.v1": _recruiter_wrote,
    "thread.followed.v1": _followed,
    "thread.unfollowed.v1": _followed,
    "thread.reassigned.v1": _reassigned,
}


def by_contract(inmails: Iterable[Inmail]) -> dict[str, list[Inmail]]:
    """Group InMails by the contract that pays."""
    grouped = defaultdict(list)
    for inmail in inmails:
        grouped[inmail.contract_id].append(inmail)
    return dict(grouped)

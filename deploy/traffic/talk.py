"""A conversation being written: each method is something that a recruiter, a colleague or a candidate does.

A conversation begins at `ZERO` and is moved to its place in time when it is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Literal

from deploy.traffic.people import Person
from deploy.traffic.records import Fact, Leaning
from shared.events import Choice, Template
from shared.templates import find, render

ZERO: Final = datetime(2000, 1, 1, tzinfo=UTC)
OLD_VERSION: Final = 1
UNKNOWN_VERSION: Final = 9

Offered = Literal["as is", "empty", "retyped", "old", "unnamed"]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a conversation is led from: the seat that writes, its contract, and the colleagues beside it."""

    contract_id: str
    seat_id: str
    colleagues: tuple[str, ...] = ()


@dataclass(slots=True)
class Talk:
    """One thread. `arrival`, where given, is the order in which its facts are published."""

    thread_id: str
    desk: Desk
    person: Person
    rng: Random
    at: datetime = ZERO
    facts: list[Fact] = field(default_factory=list)
    arrival: Sequence[int] | None = None
    _inmails: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def inmails(self) -> int:
        """How many InMails it has."""
        return len(self._inmails)

    def chance(self, share: float) -> bool:
        """Whether something happens that happens in this share of cases."""
        return self.rng.random() < share

    def wait(self, *, days: float = 0, hours: float = 0, minutes: float = 0, milliseconds: int = 0) -> None:
        """Let time pass, to the millisecond."""
        delta = timedelta(days=days, hours=hours, minutes=minutes, milliseconds=milliseconds)
        self.at += timedelta(milliseconds=delta // timedelta(milliseconds=1))

    def wait_some(self, days_max: float) -> None:
        """Let some time pass, but at least a minute."""
        self.wait(minutes=1 + self.rng.random() * days_max * 24 * 60)

    # The recruiter

    def schedule(
        self, *, kind: str = "initial", automated: bool = False, credit_cost: int = 1, deliver_in_days: float = 0.05
    ) -> str:
        """Schedule an InMail and return its id."""
        inmail_id = self._new_inmail(kind=kind, automated=automated, credit_cost=credit_cost)
        deliver_at = self.at + timedelta(minutes=int(deliver_in_days * 24 * 60))
        self._add("inmail.scheduled.v1", {**self._inmails[inmail_id], "deliver_at": deliver_at})
        return inmail_id

    def send(
        self, inmail_id: str | None = None, *, kind: str = "initial", automated: bool = False, credit_cost: int = 1
    ) -> str:
        """Send an InMail, a new one unless one is named, and return its id."""
        if inmail_id is None:
            inmail_id = self._new_inmail(kind=kind, automated=automated, credit_cost=credit_cost)
        self._add("inmail.sent.v1", {**self._inmails[inmail_id], "sent_at": self.at})
        return inmail_id

    def bounce(self, inmail_id: str) -> None:
        """Report that an InMail could not be delivered."""
        data = {"inmail_id": inmail_id, "thread_id": self.thread_id, "reason": "mailbox_closed", "failed_at": self.at}
        self._add("inmail.undelivered.v1", data)

    def withdraw(self, inmail_id: str) -> None:
        """Take an InMail back."""
        self._add("inmail.withdrawn.v1", {"inmail_id": inmail_id, "thread_id": self.thread_id, "withdrawn_at": self.at})

    def recruiter_writes(self, text: str = "Shall we find a time this week?") -> None:
        """Write on in the thread."""
        message_id = f"{self.thread_id}/message-{len(self.facts)}"
        data = {"message_id": message_id, "thread_id": self.thread_id, "seat_id": self.desk.seat_id, "text": text}
        self._add("recruiter_message.sent.v1", {**data, "sent_at": self.at})

    def follow(self, seat_id: str) -> None:
        """Let a colleague follow."""
        self._add("thread.followed.v1", {"thread_id": self.thread_id, "seat_id": seat_id, "at": self.at})

    def unfollow(self, seat_id: str) -> None:
        """Let a colleague stop following."""
        self._add("thread.unfollowed.v1", {"thread_id": self.thread_id, "seat_id": seat_id, "at": self.at})

    def reassign(self, seat_id: str) -> None:
        """Give the thread to a colleague."""
        self._add("thread.reassigned.v1", {"thread_id": self.thread_id, "seat_id": seat_id, "at": self.at})

    # The candidate

    def draft(self, choice: Choice | None) -> None:
        """Pick a smart reply while composing, or drop it."""
        data = {"thread_id": self.thread_id, "candidate_id": self.person.id, "choice": choice, "drafted_at": self.at}
        self._add("reply.drafted.v1", {name: value for name, value in data.items() if value is not None})

    def offered(self, choice: Choice) -> tuple[Template, str]:
        """Give the smart reply as the compose view offers it."""
        return render(choice, self.person.language, self.person.name)

    def reply_as_offered(self, choice: Choice, how: Offered) -> None:
        """Send a smart reply that R3 must recognise as its template."""
        template, text = self.offered(choice)
        if how == "empty":
            text = ""
        elif how == "retyped":
            text = f"  {text.upper()}\u200b !\n"
        elif how in ("old", "unnamed"):
            version = OLD_VERSION if how == "old" else template.version
            wording = find(Template(id=template.id, version=version, locale=template.locale))
            assert wording is not None  # noqa: S101  versions are never taken back
            template, text = wording.template, wording.filled(self.person.name if how == "old" else None)
        self._reply(choice=choice, template=template, text=text, content="template_only")

    def reply_edited(self, choice: Choice, how: Literal["added", "replaced", "attached", "unknown"]) -> None:
        """Send a smart reply with something of one's own."""
        template, text = self.offered(choice)
        added = self.person.words(self.rng, "add_yes" if choice == "interested" else "add_no")
        attachments = 0
        if how == "added":
            text = f"{text} {added}"
        elif how == "replaced":
            text = added
        elif how == "attached":
            attachments = 1
        else:
            template = Template(id=template.id, version=UNKNOWN_VERSION, locale=template.locale)
        self._reply(choice=choice, template=template, text=text, attachments=attachments, content="with_message")

    def reply_in_words(self, leaning: Leaning, *, text: str | None = None, in_reply_to: str | None = None) -> None:
        """Send own words."""
        words = text or self.person.words(self.rng, leaning)
        self._reply(text=words, in_reply_to=in_reply_to, content="message", leaning=leaning)

    def reply_automatically(self) -> None:
        """Let the platform send its away message."""
        self._reply(text=self.person.words(self.rng, "away"), automated=True, content="automated")

    def reply_like_a_machine(self) -> None:
        """Send an away message of one's own, which nobody has marked as one."""
        self._reply(text=self.person.words(self.rng, "automatic"), content="message", leaning="unclear")

    # The record of it

    def moved(self, begin: datetime) -> list[Fact]:
        """Give the facts in order of publication, with the conversation beginning at `begin`."""
        facts = [fact.later(begin - ZERO) for fact in self.facts]
        return facts if self.arrival is None else [facts[place] for place in self.arrival]

    def _new_inmail(self, *, kind: str, automated: bool, credit_cost: int) -> str:
        inmail_id = f"{self.thread_id}/inmail-{len(self._inmails) + 1}"
        person = self.person
        candidate = {"id": person.id, "name": person.name, "locale": person.locale, "time_zone": person.time_zone}
        self._inmails[inmail_id] = {
            "inmail_id": inmail_id,
            "thread_id": self.thread_id,
            "contract_id": self.desk.contract_id,
            "seat_id": self.desk.seat_id,
            "candidate": {name: value for name, value in candidate.items() if value is not None},
            "kind": kind,
            "automated": automated,
            "credit_cost": credit_cost,
        }
        return inmail_id

    def _reply(
        self,
        *,
        text: str,
        content: str,
        choice: Choice | None = None,
        template: Template | None = None,
        in_reply_to: str | None = None,
        attachments: int = 0,
        automated: bool = False,
        leaning: Leaning | None = None,
    ) -> None:
        data = {
            "reply_id": f"{self.thread_id}/reply-{len(self.facts)}",
            "thread_id": self.thread_id,
            "candidate_id": self.person.id,
            "in_reply_to": in_reply_to,
            "choice": choice,
            "template": None if template is None else template.model_dump(mode="json"),
            "text": text,
            "attachments": attachments,
            "automated": automated,
            "sent_at": self.at,
        }
        known = {name: value for name, value in data.items() if value is not None}
        self._add("reply.sent.v1", known, content=content, leaning=leaning)

    def _add(
        self, type_name: str, data: dict[str, Any], *, content: str | None = None, leaning: Leaning | None = None
    ) -> None:
        fact_id = f"{self.thread_id}#{len(self.facts) + 1}"
        self.facts.append(Fact(type_name, fact_id, self.at, data, content, leaning))

"""Scenarios: everything that upstream publishes, in waves, from a seed."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count, cycle
from random import Random
from typing import Final, Self

from deploy.traffic import places, poison
from deploy.traffic.people import Person
from deploy.traffic.places import LARGE, SMALL, Calendar
from deploy.traffic.plots import PLOTS, RARE, Plot
from deploy.traffic.records import Fact, Mode, Record
from deploy.traffic.stories import Story, stories
from deploy.traffic.talk import ZERO, Talk

AGE_MAX: Final = timedelta(days=118)
# The newest conversation ends so long before the scenario does: nothing lies in the future.
AGE_MIN: Final = timedelta(minutes=10)
SHUFFLED_SHARE: Final = 0.12
REPEATED_SHARE: Final = 0.03
# Of the repeats, those under another event id: only what has a number of its own can be recognised then (R11).
RENAMED_SHARE: Final = 0.3
BINARY_SHARE: Final = 0.3
TRACED_SHARE: Final = 0.2
INMAILS_PER_POISON: Final = 1_500
# Of the conversations, those of contracts that are small, over, or told of late.
SMALL_EVERY: Final = 25

_NUMBERED: Final = frozenset(
    {
        "inmail.scheduled.v1",
        "inmail.sent.v1",
        "inmail.undelivered.v1",
        "inmail.withdrawn.v1",
        "reply.sent.v1",
        "recruiter_message.sent.v1",
    }
)
_OFFSETS_MINUTES: Final = (0, 0, 0, 60, 120, 330, -180)


@dataclass(frozen=True, slots=True)
class Wave:
    """Records published one after the other; the next wave begins when all that they cause has happened."""

    name: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that upstream publishes up to `until`, the same for the same arguments."""

    seed: int
    until: datetime
    waves: tuple[Wave, ...]
    stories: tuple[Story, ...]

    @classmethod
    def make(cls, *, seed: int, inmails: int, until: datetime) -> Self:
        """Write a scenario of about so many InMails; some conversations have two, and the last is written to its end.

        `until` is the end of all event times.
        """
        chance = Random(seed)  # noqa: S311  repeatable traffic, no secret
        writer = _Writer(chance, until)
        told = tuple(stories())
        talks = list(writer.conversations(inmails - sum(story.talk.inmails for story in told)))
        calendar, everywhere = Calendar(until), (*LARGE, *SMALL)
        allotment = max(places.ALLOTMENT_MIN, math.ceil(inmails * places.RESERVE / len(LARGE) / places.CAP_MULTIPLE))
        contracts = [writer.dressed(fact) for fact in places.before(everywhere, calendar, allotment=allotment)]
        contracts += poison.of_contracts(LARGE[0], calendar.started_at)
        late = places.afterwards(everywhere, calendar, allotment=allotment)
        waves = (
            Wave("contracts", tuple(contracts)),
            Wave("conversations", tuple(writer.interleaved(talks, told))),
            Wave("afterwards", tuple(writer.dressed(fact) for fact in late)),
        )
        return cls(seed, until, waves, told)

    @property
    def records(self) -> Iterator[Record]:
        """All records in order of publication."""
        for wave in self.waves:
            yield from wave.records


@dataclass(slots=True)
class _Writer:
    """Draws everything from one source of chance, in one order."""

    rng: Random
    until: datetime

    def conversations(self, inmails: int) -> Iterator[Talk]:
        """Write conversations until there are so many InMails: each plot once, then as often as it happens."""
        numbers, written = count(1), 0
        for plot in self._plots():
            if written >= inmails:
                return
            talk = self._talk(next(numbers))
            plot(talk)
            written += talk.inmails
            yield talk

    def dressed(self, fact: Fact) -> Record:
        """Choose how a fact is written: the mode, the offset of its times, with or without a trace."""
        mode: Mode = "binary" if self.rng.random() < BINARY_SHARE else "structured"
        trace = f"00-{self.rng.getrandbits(128):032x}-{self.rng.getrandbits(64):016x}-01"
        traceparent = trace if self.rng.random() < TRACED_SHARE else None
        return Record(fact, mode, self.rng.choice(_OFFSETS_MINUTES), traceparent)

    def interleaved(self, talks: Iterable[Talk], told: Iterable[Story]) -> Iterator[Record]:
        """Merge all conversations by time; some arrive shuffled, some records twice, and poison among them."""
        timed: list[tuple[datetime, int, Record]] = []
        order = count()
        for story in told:
            facts = story.talk.moved(self.until - timedelta(days=story.days_ago))
            timed += self._timed(facts, order)
        for talk in talks:
            facts = talk.moved(self._begin(talk))
            if self.rng.random() < SHUFFLED_SHARE:
                self.rng.shuffle(facts)
            timed += self._timed(facts, order)
        timed += self._repeats(timed, order)
        timed += self._poison(order, copies=1 + len(timed) // (2 * INMAILS_PER_POISON))
        timed.sort(key=lambda entry: entry[:2])
        return (record for _, _, record in timed)

    def _plots(self) -> Iterator[Plot]:
        yield from PLOTS
        yield from RARE
        names, weights = zip(*PLOTS.items(), strict=True)
        while True:
            yield from self.rng.choices(names, weights, k=100)

    def _talk(self, number: int) -> Talk:
        small = number % SMALL_EVERY == 0
        place = self.rng.choice(SMALL if small else LARGE)
        thread_id = f"thread-{number:05d}"
        person = Person.drawn(self.rng, f"{thread_id}/candidate")
        return Talk(thread_id, place.desk(self.rng.randrange(place.seats)), person, self.rng)

    def _begin(self, talk: Talk) -> datetime:
        """Draw when a conversation begins, so that all of it is over in time."""
        lasts = max(fact.time for fact in talk.facts) - ZERO
        room = AGE_MAX - AGE_MIN - lasts
        return self.until - AGE_MAX + timedelta(milliseconds=self.rng.randrange(room // timedelta(milliseconds=1)))

    def _timed(self, facts: Iterable[Fact], order: Iterator[int]) -> list[tuple[datetime, int, Record]]:
        """Give a conversation's facts their turns: its own instants, in the order in which it arrives."""
        facts = list(facts)
        turns = sorted(fact.time for fact in facts)
        return [(turn, next(order), self.dressed(fact)) for turn, fact in zip(turns, facts, strict=True)]

    def _repeats(
        self, timed: Iterable[tuple[datetime, int, Record]], order: Iterator[int]
    ) -> list[tuple[datetime, int, Record]]:
        """Publish some records again, a little later: in some mode, some as another event about the same."""
        found = []
        for at, _, record in timed:
            if record.fact is None or self.rng.random() >= REPEATED_SHARE:
                continue
            renamed = record.fact.type in _NUMBERED and self.rng.random() < RENAMED_SHARE
            fact = replace(record.fact, id=f"{record.fact.id}/again") if renamed else record.fact
            again = replace(self.dressed(fact), repeat=True)
            found.append((at + timedelta(hours=self.rng.random()), next(order), again))
        return found

    def _poison(self, order: Iterator[int], *, copies: int) -> Iterator[tuple[datetime, int, Record]]:
        desks = cycle(LARGE)
        for number in range(1, copies + 1):
            talk = Talk(
                f"victim-{number}", next(desks).desk(number), Person.drawn(self.rng, f"victim-{number}"), self.rng
            )
            poison.victim(talk)
            begin = self.until - timedelta(days=poison.VICTIM_DAYS_AGO)
            yield from self._timed(talk.moved(begin), order)
            for place, record in enumerate(poison.of_one(talk, self.until)):
                yield begin + timedelta(days=1, hours=place), next(order), record

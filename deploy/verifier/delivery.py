"""Lines about records: nothing lost, nothing twice, nothing left."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from deploy.traffic.expectation import Expectation
from deploy.traffic.records import MESSAGING, Record
from deploy.verifier.line import Line, none, same
from deploy.verifier.observation import Observed
from shared.topics import CONVERSATION_EVENTS

# Whether these change what a service publishes depends on what it knew before; other lines look at what they do.
_MAY_CHANGE_NOTHING = frozenset(
    {"reply.drafted.v1", "thread.followed.v1", "thread.unfollowed.v1", "thread.reassigned.v1"}
)


def published(expected: Expectation, observed: Observed) -> Line:
    """What was published is on the broker, byte for byte, each key in its order."""
    sent: defaultdict[tuple[str, bytes | None], list[str]] = defaultdict(list)
    for record in expected.records:
        wire = record.wire
        sent[wire.topic, wire.key].append(_digest(wire.value, wire.headers))
    found: defaultdict[tuple[str, bytes | None], list[str]] = defaultdict(list)
    for seen in observed.upstream:
        found[seen.topic, seen.key].append(_digest(seen.value, seen.headers))
    return same(
        "every record published is on its topic, unchanged and in order",
        _numbered(sent.items()),
        _numbered(found.items()),
        "records",
    )


def dead_letters(expected: Expectation, observed: Observed) -> Line:
    """Exactly the poison is dead-lettered, each with its reason, key and original bytes, pointing at its record."""
    wanted = [
        (r.poison.service, r.poison.reason, _name(r.wire.key), _digest(r.wire.value))
        for r in expected.poison
        if r.poison is not None
    ]
    places = {(s.topic, s.partition, s.offset): (s.key, s.value) for s in observed.upstream}
    found = [
        (d.service, d.reason, _name(d.key), _digest(d.value))
        if places.get(d.origin) == (d.key, d.value)
        else (d.service, d.reason, "points at another record", str(d.origin))
        for d in observed.dead
    ]
    return same("dead letters are the poison, with its reasons and bytes", wanted, found, "dead letters")


def accounted(expected: Expectation, observed: Observed) -> Line:
    """Every record had its effect, or is known to have none: a repeat, poison, or one that waits for its InMail."""
    effects = {event.cause for event in observed.derived.get(CONVERSATION_EVENTS, [])}
    waiting = {fact.id for fact in expected.parked}
    told = {r.fact.id for r in expected.records if r.fact is not None and r.says_something}
    return none(
        "every record had its effect, or is a known repeat, poison, or waiting",
        _unaccounted(expected.records, effects=effects, waiting=waiting, told=told),
        "record unaccounted for",
    )


def causes(expected: Expectation, observed: Observed) -> Line:
    """Every event published by a service goes back to a record of this scenario, through causes that exist."""
    roots = {r.fact.id for r in expected.records if r.fact is not None and r.says_something}
    traces = {r.fact.id: r.fact for r in expected.records if r.fact is not None and r.says_something}
    events = [event for of_topic in observed.derived.values() for event in of_topic]
    known = {(e.source, e.id) for e in events} | {(fact.source, fact.id) for fact in traces.values()}
    strays = [f"{e.topic} {e.id}" for e in events if e.root_id not in roots or e.cause not in known]
    return none("every event has its cause, back to a record that was published", strays, "event without a cause")


def repeats(expected: Expectation, observed: Observed) -> Line:
    """What is on the wire again has the same bytes, and everything is a structured event."""
    del expected
    faults = [*observed.unequal, *(f"{place}: no event" for place in observed.malformed)]
    line = none("repeats on the wire have equal bytes", faults, "difference")
    return Line(line.name, line.holds, line.expected, f"{line.actual}; {observed.repeats:,} repeats")


def rest(expected: Expectation, observed: Observed) -> Line:
    """Nothing is unread, unpublished or parked, but what must wait."""
    standing = observed.standing
    left = [f"{service} {topic} {lag} unread" for (service, topic), lag in standing.lag.items() if lag]
    left += [f"{service} {rows} unpublished" for service, rows in standing.outbox.items() if rows]
    waiting = {fact.id for fact in expected.parked}
    wires = {r.wire.value for r in expected.records if r.fact is not None and r.says_something and r.fact.id in waiting}
    parked = [(service, value) for service, values in observed.parked.items() for value in values]
    left += [f"{service} holds a record that waits for nothing" for service, value in parked if value not in wires]
    left += ["a record that must wait is not parked"] * (len(wires) - sum(value in wires for _, value in parked))
    line = none("no lag, empty outboxes, nothing parked that need not wait", left, "remainder")
    return Line(line.name, line.holds, line.expected, f"{line.actual}; {len(parked):,} wait as they must")


def _unaccounted(
    records: Iterable[Record], *, effects: set[tuple[str, str]], waiting: set[str], told: set[str]
) -> Iterator[str]:
    for record in records:
        fact = record.fact
        if fact is None or fact.topic != MESSAGING:
            continue
        had_effect = (fact.source, fact.id) in effects
        if record.says_something and fact.id not in waiting:
            if not had_effect and fact.type not in _MAY_CHANGE_NOTHING:
                yield f"{fact.id} had no effect"
        elif had_effect and (fact.id in waiting or fact.id not in told):
            yield f"{fact.id} had an effect"


def _numbered(by_key: Iterable[tuple[tuple[str, bytes | None], list[str]]]) -> Iterator[tuple[str, str, int, str]]:
    for (topic, key), digests in by_key:
        for place, digest in enumerate(digests):
            yield topic, _name(key), place, digest


def _name(key: bytes | None) -> str:
    return "no key" if key is None else key.decode()


def _digest(value: bytes | None, headers: Iterable[tuple[str, bytes]] = ()) -> str:
    parts = b"null" if value is None else b"value" + value
    parts += b"".join(name.encode() + b"\0" + content for name, content in sorted(headers))
    return blake2b(parts, digest_size=8).hexdigest()

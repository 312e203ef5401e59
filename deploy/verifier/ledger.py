"""Lines about credits: where each one went, and that the books agree with each other."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

from deploy.traffic.expectation import CREDIT_WINDOW, Expectation, Inmail, Step, by_contract
from deploy.verifier.line import Line, none, same
from deploy.verifier.observation import Derived, Observed
from shared.topics import CREDIT_EVENTS

Position = Literal["none", "held", "taken", "free"]

KINDS: Final[dict[tuple[Position, Position], str]] = {
    ("none", "held"): "held",
    ("held", "taken"): "captured",
    ("held", "free"): "released",
    ("none", "taken"): "charged",
    ("free", "taken"): "charged",
    ("taken", "free"): "returned",
}
# What one credit of a kind does to available and held.
EFFECTS: Final = {
    "granted": (1, 0),
    "expired": (-1, 0),
    "held": (-1, 1),
    "captured": (0, -1),
    "released": (1, -1),
    "charged": (-1, 0),
    "refunded": (1, 0),
    "returned": (1, 0),
}


def returned(expected: Expectation, observed: Observed) -> Line:
    """The credits that came back are those of the InMails answered in time (R13 to R15)."""
    wanted = [i.id for i in expected.inmails if i.cost and i.answered_in_time]
    found = [e.data["inmail_id"] for e in _entries(observed) if e.data["kind"] == "returned"]
    return same("returned are the credits of the InMails answered in time", wanted, found, "credits")


def postings(expected: Expectation, observed: Observed) -> Line:
    """Each InMail has the postings that its facts call for, each once; what was denied holds nothing."""
    denied = {event.data["inmail_id"] for event in _denials(observed)}
    wanted = [(i.id, kind) for i in expected.inmails for kind in kinds(i, denied=i.id in denied)]
    found = [(e.data["inmail_id"], e.data["kind"]) for e in _entries(observed) if "inmail_id" in e.data]
    return same("every InMail has the postings that its facts call for", wanted, found, "postings")


def kinds(inmail: Inmail, *, denied: bool) -> list[str]:
    """Move an InMail's credit, fact by fact."""
    if not inmail.cost:
        return []
    known: set[Step] = set()
    found, here = [], _position(known, denied=denied)
    for step in inmail.steps:
        known.add(step)
        there = _position(known, denied=denied)
        kind = KINDS.get((here, there))
        if kind is not None:
            found.append("refunded" if kind == "returned" and "undelivered" in known else kind)
        here = there
    return found


def _position(known: set[Step], *, denied: bool) -> Position:
    if "undelivered" in known:
        return "free"
    if "sent" in known:
        return "free" if "answered" in known else "taken"
    if "stopped" in known:
        return "free"
    return "held" if "scheduled" in known and not denied else "none"


def denied(expected: Expectation, observed: Observed) -> Line:
    """A hold needs a credit, and is denied only where there is none or the contract has ended (R23, R24)."""
    faults = [fault for events in _by_contract(observed).values() for fault in _misjudged(expected, events)]
    line = none("holds are denied exactly where no credit was left", faults, "wrong judgement")
    return Line(line.name, line.holds, line.expected, f"{line.actual}; {len(_denials(observed)):,} denied")


def _misjudged(expected: Expectation, events: Iterable[Derived]) -> Iterator[str]:
    available = 0
    for event in events:
        data = event.data
        if event.type == "credit.posted.v1":
            if data["kind"] == "held" and available < data["amount"]:
                yield f"{data['inmail_id']} held with {available} available"
            available = data["balance_after"]["available"]
        elif data["reason"] == "CONTRACT_ENDED":
            if expected.contracts[data["contract_id"]].ended_at is None:
                yield f"{data['inmail_id']} denied, but the contract has not ended"
        elif available > 0:
            yield f"{data['inmail_id']} denied with {available} available"


def in_sequence(expected: Expectation, observed: Observed) -> Line:
    """Entries are numbered without gaps, each balance follows from the one before, and what exceeds the cap expires."""
    faults = [
        fault
        for contract_id, events in _by_contract(observed).items()
        for fault in _out_of_sequence(expected, contract_id, [e for e in events if e.type == "credit.posted.v1"])
    ]
    line = none("the ledger's lines follow from each other, without gaps", faults, "gap or jump")
    return Line(line.name, line.holds, line.expected, f"{line.actual}; {len(_entries(observed)):,} lines")


def _out_of_sequence(expected: Expectation, contract_id: str, entries: list[Derived]) -> Iterator[str]:
    contract = expected.contracts[contract_id]
    available = held = due = 0
    for number, data in enumerate((entry.data for entry in entries), start=1):
        kind, amount = data["kind"], data["amount"]
        ends = contract.ended_at is not None and kind == "expired" and amount == available
        if due and (kind != "expired" or amount != due):
            yield f"{contract_id} line {number}: {due} above the cap did not expire"
        elif kind == "expired" and not due and not ends:
            yield f"{contract_id} line {number}: {amount} expired below the cap"
        change_available, change_held = EFFECTS[kind]
        available, held = available + change_available * amount, held + change_held * amount
        if (data["entry_number"], data["balance_after"]) != (number, {"available": available, "held": held}):
            yield f"{contract_id} line {number}"
        due = max(0, available - contract.cap) if kind == "granted" else 0


def balanced(expected: Expectation, observed: Observed) -> Line:
    """Double entry sums to zero; balances are the sums of postings, of the topic's lines, and what HTTP answers."""
    del expected
    books, answers = observed.books, observed.answers.credits
    total = sum(amount for accounts in books.postings.values() for amount in accounts.values())
    newest = {e.subject: e.data["balance_after"] for e in _entries(observed)}
    wanted: list[tuple[Any, ...]] = []
    found: list[tuple[Any, ...]] = []
    for contract_id, accounts in books.postings.items():
        balances, answer = books.balances.get(contract_id, {}), answers.get(contract_id, {})
        sums = {name: accounts.get(name, 0) for name in ("available", "held", "taken", "expired")}
        sums["granted"] = -accounts.get("granted", 0)
        wanted += [(contract_id, "balance", name, amount) for name, amount in sorted(sums.items())]
        found += [(contract_id, "balance", name, amount) for name, amount in sorted(balances.items())]
        for name in ("available", "held"):
            wanted += [(contract_id, where, name, sums[name]) for where in ("topic", "HTTP")]
            found.append((contract_id, "topic", name, newest.get(contract_id, {}).get(name)))
            found.append((contract_id, "HTTP", name, answer.get(name)))
    line = same("the ledger sums to 0; balances = postings = topic = HTTP", wanted, found, "figures agree")
    return Line(line.name, line.holds and total == 0, f"sum 0, {line.expected}", f"sum {total}, {line.actual}")


def granted(expected: Expectation, observed: Observed) -> Line:
    """What was granted is available, held, open, lapsed or expired, at the scenario's end, contract by contract."""
    denied_ids = {event.data["inmail_id"] for event in _denials(observed)}
    spent = by_contract(expected.inmails)
    wanted, found = [], []
    for contract_id, contract in expected.contracts.items():
        places = _places(expected, spent.get(contract_id, ()), denied_ids)
        expired = sum(
            e.data["amount"] for e in _entries(observed) if e.subject == contract_id and e.data["kind"] == "expired"
        )
        available = contract.granted - expired - sum(places.values())
        all_places = {"granted": contract.granted, "available": available, "expired": expired, **places}
        wanted += [(contract_id, name, amount) for name, amount in sorted(all_places.items())]
        answer = observed.answers.credits.get(contract_id, {})
        found += [(contract_id, name, answer.get(name)) for name in sorted(all_places)]
    line = same("granted = available + held + open + lapsed + expired", wanted, found, "figures")
    return Line(line.name, line.holds, line.expected, _summary(observed) if line.holds else line.actual)


def _places(expected: Expectation, inmails: Iterable[Inmail], denied_ids: set[str]) -> dict[str, int]:
    places = {"held": 0, "open": 0, "lapsed": 0}
    for inmail in inmails:
        position = _position(set(inmail.steps), denied=inmail.id in denied_ids) if inmail.cost else "none"
        if position == "held":
            places["held"] += 1
        elif position == "taken" and inmail.sent_at is not None:
            is_open = expected.until - inmail.sent_at <= CREDIT_WINDOW and not inmail.answers
            places["open" if is_open else "lapsed"] += 1
    return places


def _summary(observed: Observed) -> str:
    sums = {
        name: sum(answer[name] for answer in observed.answers.credits.values())
        for name in ("granted", "available", "held", "open", "lapsed", "expired")
    }
    parts = " + ".join(f"{sums[name]:,} {name}" for name in ("available", "held", "open", "lapsed", "expired"))
    return f"{sums['granted']:,} granted = {parts}"


def _entries(observed: Observed) -> list[Derived]:
    return observed.of_type(CREDIT_EVENTS, "credit.posted.v1")


def _denials(observed: Observed) -> list[Derived]:
    return observed.of_type(CREDIT_EVENTS, "credit.denied.v1")


def _by_contract(observed: Observed) -> dict[str, list[Derived]]:
    found: dict[str, list[Derived]] = {}
    for event in observed.of_type(CREDIT_EVENTS, "credit.posted.v1", "credit.denied.v1"):
        found.setdefault(event.subject, []).append(event)
    return found

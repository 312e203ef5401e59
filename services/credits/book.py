"""The order in which a batch is decided, and what waits for a contract or a seat that is not known yet (R21).

A batch decided at once ends like its records decided one by one in the order of their arrival. An InMail whose contract
or seat is not known waits with all its facts, under one key, so none overtakes another; when the missing one comes,
those that waited for it are decided in their order of arrival before the next record.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from services.credits.domain import (
    Contract,
    Decision,
    Denial,
    Entry,
    Fact,
    InMail,
    decide_end,
    decide_fact,
    decide_refresh,
    decide_start,
    month,
)
from shared.events import (
    ContractEndedV1,
    ContractStartedV1,
    CreditsRefreshedV1,
    Event,
    InmailStatusChangedV1,
    ReplyRecordedV1,
    SeatAssignedV1,
    SeatPreferencesSetV1,
)


class Record(Protocol):
    """Holds a validated event."""

    @property
    def event(self) -> Event[Any]: ...  # noqa: D102


R = TypeVar("R", bound=Record)


class Seat(NamedTuple):
    """A recruiter's seat in a contract. `monthly_limit` is None where there is no limit."""

    contract_id: str
    seat_id: str
    monthly_limit: int | None
    assigned_at: datetime


def contract_key(contract_id: str) -> str:
    """Name what records wait under until their contract has started."""
    return f"contract:{contract_id}"


def seat_key(contract_id: str, seat_id: str) -> str:
    """Name what records wait under until their seat is assigned; ids may hold any character, hence the length."""
    return f"seat:{len(contract_id)}:{contract_id}:{seat_id}"


class Book(Generic[R]):
    """What credits knows of the contracts of a batch, and what deciding the batch adds to it.

    Holds the rows given, changed in place: `contracts` (started ones), `seats`, `inmails`, `granted` (contract_id,
    period) and `waiting` (records by wait key, in order of arrival). `effects` lists what to publish, in order;
    `misfits` are facts whose InMail belongs to another contract; `repeats` told nothing new.
    """

    def __init__(
        self,
        *,
        contracts: Iterable[Contract] = (),
        seats: Iterable[Seat] = (),
        inmails: Iterable[InMail] = (),
        granted: Iterable[tuple[str, str]] = (),
        waiting: dict[str, list[R]] | None = None,
    ) -> None:
        self.contracts = {contract.contract_id: contract for contract in contracts}
        self.seats = {(seat.contract_id, seat.seat_id): seat for seat in seats}
        self.inmails = {inmail.inmail_id: inmail for inmail in inmails}
        self.granted = set(granted)
        self.waiting: dict[str, list[R]] = waiting or {}
        self.effects: list[tuple[R, Entry | Denial]] = []
        self.misfits: list[R] = []
        self.repeats: list[R] = []
        self.changed_contracts: set[str] = set()
        self.changed_seats: set[tuple[str, str]] = set()
        self.changed_inmails: set[str] = set()
        self.changed_periods: set[tuple[str, str]] = set()

    def take(self, records: Sequence[R]) -> None:
        """Decide records one after the other."""
        for record in records:
            data = record.event.data
            self._RULES[type(data)](self, record, data)

    @property
    def entries(self) -> list[Entry]:
        """The lines posted, in order."""
        return [effect for _, effect in self.effects if isinstance(effect, Entry)]

    def _take_fact(self, record: R, fact: Fact) -> None:
        contract = self.contracts.get(fact.contract_id)
        if contract is None:
            self._wait(contract_key(fact.contract_id), record)
            return
        if (fact.contract_id, fact.seat_id) not in self.seats:
            self._wait(seat_key(fact.contract_id, fact.seat_id), record)
            return
        inmail = self.inmails.get(fact.inmail_id)
        if inmail is not None and inmail.contract_id != fact.contract_id:
            self.misfits.append(record)
            return
        decision = decide_fact(contract, inmail, fact)
        if decision.inmail is inmail:
            self.repeats.append(record)
            return
        self._keep(record, decision)

    def _take_start(self, record: R, start: ContractStartedV1) -> None:
        contract = self.contracts.get(start.contract_id)
        granted = (start.contract_id, month(start.started_at)) in self.granted
        self._keep(record, decide_start(contract, start, granted=granted))
        self._reconsider(contract_key(start.contract_id))

    def _take_refresh(self, record: R, refresh: CreditsRefreshedV1) -> None:
        contract = self.contracts.get(refresh.contract_id)
        if contract is None:
            self._wait(contract_key(refresh.contract_id), record)
            return
        granted = (refresh.contract_id, refresh.period) in self.granted
        self._keep(record, decide_refresh(contract, refresh, granted=granted))

    def _take_end(self, record: R, end: ContractEndedV1) -> None:
        contract = self.contracts.get(end.contract_id)
        if contract is None:
            self._wait(contract_key(end.contract_id), record)
            return
        self._keep(record, decide_end(contract, end))

    def _take_seat(self, _: R, assigned: SeatAssignedV1) -> None:
        slot = (assigned.contract_id, assigned.seat_id)
        seat = self.seats.get(slot)
        if seat is None or assigned.assigned_at >= seat.assigned_at:
            self.seats[slot] = Seat(*slot, assigned.monthly_limit, assigned.assigned_at)
            self.changed_seats.add(slot)
        self._reconsider(seat_key(*slot))

    def _ignore(self, record: R, data: object) -> None:
        """Preferences are not the ledger's business."""

    def _keep(self, record: R, decision: Decision) -> None:
        contract = decision.contract
        contract_id = contract.contract_id
        if contract is not self.contracts.get(contract_id):
            self.contracts[contract_id] = contract
            self.changed_contracts.add(contract_id)
        inmail = decision.inmail
        if inmail is not None:
            self.inmails[inmail.inmail_id] = inmail
            self.changed_inmails.add(inmail.inmail_id)
        if decision.period is not None:
            # Also where the allotment is nothing: a repeat must not let anything expire again.
            self.granted.add((contract_id, decision.period))
            self.changed_periods.add((contract_id, decision.period))
        self.effects += [(record, entry) for entry in decision.entries]
        if decision.denial is not None:
            self.effects.append((record, decision.denial))

    def _wait(self, key: str, record: R) -> None:
        self.waiting.setdefault(key, []).append(record)

    def _reconsider(self, key: str) -> None:
        self.take(self.waiting.pop(key, ()))

    # Functions, not methods bound to a book: those would be a cycle, and keep the records of whole batches until the
    # garbage is collected.
    _RULES: ClassVar[dict[type, Callable[["Book[Any]", Any, Any], None]]] = {
        InmailStatusChangedV1: _take_fact,
        ReplyRecordedV1: _take_fact,
        ContractStartedV1: _take_start,
        CreditsRefreshedV1: _take_refresh,
        ContractEndedV1: _take_end,
        SeatAssignedV1: _take_seat,
        SeatPreferencesSetV1: _ignore,
    }

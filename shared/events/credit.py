"""The ledger's postings and denials."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.events.base import INT64_MAX, Credits, EventData, Id, Number, Part
from shared.events.times import Instant

LedgerKind = Literal["granted", "expired", "held", "released", "captured", "charged", "refunded", "returned"]
DenialReason = Literal["INSUFFICIENT_CREDITS", "SEAT_LIMIT", "CONTRACT_ENDED"]
Amount = Annotated[int, Field(ge=1, le=INT64_MAX)]


class Balance(Part):
    """A contract's credits, in whole credits; `available` may be below zero (R24)."""

    available: Credits
    held: Credits


class CreditPostedV1(EventData):
    """One line of a contract's ledger. `cause_id` is the envelope's `causeid`, `effective_at` its event time."""

    type: ClassVar[str] = "credit.posted.v1"
    key_field: ClassVar[str] = "contract_id"
    time_field: ClassVar[str | None] = "effective_at"

    entry_id: Id
    entry_number: Number
    contract_id: Id
    seat_id: Id | None = None
    inmail_id: Id | None = None
    kind: LedgerKind
    amount: Amount
    balance_after: Balance
    cause_id: Id
    effective_at: Instant


class CreditDeniedV1(EventData):
    """A scheduled InMail holds no credit."""

    type: ClassVar[str] = "credit.denied.v1"
    key_field: ClassVar[str] = "contract_id"
    time_field: ClassVar[str | None] = "at"

    contract_id: Id
    seat_id: Id
    inmail_id: Id
    reason: DenialReason
    at: Instant

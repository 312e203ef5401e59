"""The base of all event data and the field types that the families share."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

Id = Annotated[str, Field(min_length=1, max_length=128)]
"""An opaque identifier."""
Source = Annotated[str, Field(min_length=1, max_length=512)]
"""An event's `source`: bounded because (source, id) is the primary key of every inbox."""
DerivedKey = Annotated[str, Field(min_length=1, max_length=512)]
"""A key that a service composes of ids, so longer than one."""

Count = Annotated[int, Field(ge=0, le=INT32_MAX)]
Number = Annotated[int, Field(ge=1, le=INT64_MAX)]
"""A version or a running number, from 1."""
NumberOrNone = Annotated[int, Field(ge=0, le=INT64_MAX)]
"""The same, with 0 for: none yet."""
CreditCost = Annotated[int, Field(ge=0, le=1)]  # Literal[0, 1] would take true and 1.0, for they are equal
Credits = Annotated[int, Field(ge=-INT64_MAX, le=INT64_MAX)]

Choice = Literal["interested", "not_interested"]
InmailKind = Literal["initial", "follow_up"]
InmailStatus = Literal["scheduled", "sent", "undelivered", "withdrawn", "cancelled"]
Content = Literal["template_only", "with_message", "message", "automated"]
Outcome = Literal["accepted", "declined"]


class Part(BaseModel):
    """An object inside event data: immutable, strictly typed, deaf to fields it does not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class EventData(Part):
    """The data of one type of event.

    `type` is the CloudEvents type. `key_field` is the (dotted) path of the field that is the event's subject and the
    record's key; a topic that is keyed by another field of the data re-keys it. `time_field` is the field that is the
    same instant as the envelope's `time`, where the data has its own. `business_id_field` names the identifier that may
    occur once per type, under whatever event id (R11).
    """

    type: ClassVar[str]
    key_field: ClassVar[str]
    time_field: ClassVar[str | None] = None
    business_id_field: ClassVar[str | None] = None


class Candidate(Part):
    """Whom an InMail addresses. The optional fields are absent where unknown, withheld or erased."""

    id: Id
    name: str | None = None
    locale: str | None = None
    time_zone: str | None = None


class Template(Part):
    """The smart reply that a text was filled in from.

    Whatever upstream names as a version is taken: one that is not known fails open (R3).
    """

    id: str
    version: Annotated[int, Field(ge=-INT64_MAX, le=INT64_MAX)] | str
    locale: str

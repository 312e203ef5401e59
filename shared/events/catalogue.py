"""Every event type that the system knows, by its CloudEvents name."""

from typing import Final

from shared.events.base import EventData
from shared.events.classification import ClassificationRequestedV1
from shared.events.contract import (
    ContractEndedV1,
    ContractStartedV1,
    CreditsRefreshedV1,
    SeatAssignedV1,
    SeatPreferencesSetV1,
)
from shared.events.conversation import (
    FollowUpCancelledV1,
    InmailStatusChangedV1,
    RecruiterMessageAcceptedV1,
    RecruiterMessageRejectedV1,
    ReplyDraftChangedV1,
    ReplyRecordedV1,
    ThreadAudienceChangedV1,
    ThreadLockedV1,
    ThreadUnlockedV1,
)
from shared.events.credit import CreditDeniedV1, CreditPostedV1
from shared.events.insight import InsightWindowV1
from shared.events.messaging import (
    InmailScheduledV1,
    InmailSentV1,
    InmailUndeliveredV1,
    InmailWithdrawnV1,
    RecruiterMessageSentV1,
    ReplyDraftedV1,
    ReplySentV1,
    ThreadFollowedV1,
    ThreadReassignedV1,
    ThreadUnfollowedV1,
)
from shared.events.notification import NotificationRequestedV1, NotificationRetractedV1
from shared.events.outcome import (
    OutcomeCorrectionRejectedV1,
    OutcomeCorrectionRequestedV1,
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
)
from shared.events.privacy import CandidateErasedV1
from shared.events.thread_state import ThreadStateV1

_CLASSES: Final[tuple[type[EventData], ...]] = (
    InmailScheduledV1,
    InmailSentV1,
    InmailUndeliveredV1,
    InmailWithdrawnV1,
    ReplyDraftedV1,
    ReplySentV1,
    RecruiterMessageSentV1,
    ThreadFollowedV1,
    ThreadUnfollowedV1,
    ThreadReassignedV1,
    ContractStartedV1,
    CreditsRefreshedV1,
    ContractEndedV1,
    SeatAssignedV1,
    SeatPreferencesSetV1,
    CandidateErasedV1,
    InmailStatusChangedV1,
    ReplyRecordedV1,
    ReplyDraftChangedV1,
    ThreadLockedV1,
    ThreadUnlockedV1,
    FollowUpCancelledV1,
    ThreadAudienceChangedV1,
    RecruiterMessageAcceptedV1,
    RecruiterMessageRejectedV1,
    ClassificationRequestedV1,
    OutcomeDecidedV1,
    OutcomeUnchangedV1,
    OutcomeCorrectionRejectedV1,
    OutcomeCorrectionRequestedV1,
    NotificationRequestedV1,
    NotificationRetractedV1,
    CreditPostedV1,
    CreditDeniedV1,
    InsightWindowV1,
    ThreadStateV1,
)

CATALOGUE: Final[dict[str, type[EventData]]] = {cls.type: cls for cls in _CLASSES}

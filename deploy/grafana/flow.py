"""For those who answer for the product: does what candidates do reach recruiters, and how soon?"""

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import (
    BAD,
    GOOD,
    LATENCY_COLOURS,
    WARN,
    Level,
    Panel,
    Query,
    board,
    latency,
    letters,
    lines,
    number,
)
from shared.topics import (
    CLASSIFICATION_REQUESTS,
    CONVERSATION_EVENTS,
    CREDIT_EVENTS,
    MESSAGING_EVENTS,
    NOTIFICATION_REQUESTS,
    OUTCOME_EVENTS,
)

_COLOURS: Final = {
    "InMails sent": "#5794F2",
    "replies": "#73BF69",
    "undelivered": "#F2495C",
    "withdrawn": "#8E8E8E",
    "decided": "#73BF69",
    "unchanged": "#8E8E8E",
    "correction rejected": "#F2495C",
    "requested": "#FF9830",
    "retracted": "#8E8E8E",
    "taken": "#FF9830",
    "given back": "#73BF69",
    "denied": "#F2495C",
    "locked": "#F2495C",
    "unlocked": "#73BF69",
    "accepted": "#73BF69",
    "rejected": "#F2495C",
}


def _events(service: str, topic: str, event_type: str) -> str:
    """Select an event's counter at one service, so that each event counts once."""
    return f'inmail_events_total{{service="{service}",topic="{topic}",type="{event_type}",result="accepted"}}'


SENT: Final = _events("ingestion", MESSAGING_EVENTS, "inmail.sent.v1")
UNDELIVERED: Final = _events("ingestion", MESSAGING_EVENTS, "inmail.undelivered.v1")
WITHDRAWN: Final = _events("ingestion", MESSAGING_EVENTS, "inmail.withdrawn.v1")
REPLIES: Final = _events("inbox", CONVERSATION_EVENTS, "reply.recorded.v1")
HUMAN_REPLIES: Final = _events("classification", CLASSIFICATION_REQUESTS, "classification.requested.v1")
DECIDED: Final = _events("inbox", OUTCOME_EVENTS, "outcome.decided.v1")
UNCHANGED: Final = _events("inbox", OUTCOME_EVENTS, "outcome.unchanged.v1")
CORRECTION_REJECTED: Final = _events("inbox", OUTCOME_EVENTS, "outcome.correction_rejected.v1")
REQUESTED: Final = _events("inbox", NOTIFICATION_REQUESTS, "notification.requested.v1")
RETRACTED: Final = _events("inbox", NOTIFICATION_REQUESTS, "notification.retracted.v1")
DENIED: Final = _events("inbox", CREDIT_EVENTS, "credit.denied.v1")
LOCKED: Final = _events("inbox", CONVERSATION_EVENTS, "thread.locked.v1")
UNLOCKED: Final = _events("inbox", CONVERSATION_EVENTS, "thread.unlocked.v1")
MESSAGES_ACCEPTED: Final = _events("inbox", CONVERSATION_EVENTS, "recruiter_message.accepted.v1")
MESSAGES_REJECTED: Final = _events("inbox", CONVERSATION_EVENTS, "recruiter_message.rejected.v1")
GIVEN_BACK: Final = 'inmail_ledger_posted_credits_total{kind=~"returned|refunded"}'
TAKEN: Final = 'inmail_ledger_posted_credits_total{kind=~"captured|charged"}'


def flow() -> dashboard.Dashboard:
    """Build the dashboard."""
    return board(
        "inmail-flow",
        "InMail: flow",
        "What candidates and recruiters do, what becomes of it, and how soon they see it.",
        {"In the time shown": _totals(), "Per minute": _rates(), "How soon, and what did not get through": _delays()},
        since="now-24h",
    )


def _totals() -> list[Panel]:
    return [
        number("InMails sent", "How many InMails were sent, follow-ups included?", _total(SENT)),
        number("Replies", "How many replies were recorded, automated ones included?", _total(REPLIES)),
        number(
            "Replies per InMail sent",
            "Is the answer rate what it usually is? Human replies by InMails sent in the same time: a hint, not the"
            " response rate of the reports.",
            f"{_total(HUMAN_REPLIES)} / {_total(SENT)}",
            unit="percentunit",
            decimals=1,
        ),
        number(
            "Awaiting a reply, change",
            "Does the pile of InMails without an answer grow? Sent, less undelivered, withdrawn and human replies; a"
            " second reply in a thread counts too.",
            f"{_total(SENT)} - {_total(UNDELIVERED)} - {_total(WITHDRAWN)} - {_total(HUMAN_REPLIES)}",
        ),
        number("Notifications", "How many notifications were asked for, over all channels?", _total(REQUESTED)),
        number(
            "Credits given back", "How many credits came back for answers and failed deliveries?", _total(GIVEN_BACK)
        ),
    ]


def _rates() -> list[Panel]:
    return [
        _per_minute(
            "Messages",
            "Are InMails going out and replies coming in?",
            {"InMails sent": SENT, "replies": REPLIES, "undelivered": UNDELIVERED, "withdrawn": WITHDRAWN},
        ),
        _per_minute(
            "Outcomes",
            "What becomes of replies: an outcome, or none that is new?",
            {"decided": DECIDED, "unchanged": UNCHANGED, "correction rejected": CORRECTION_REJECTED},
        ),
        _per_minute("Notifications", "Are recruiters being told?", {"requested": REQUESTED, "retracted": RETRACTED}),
        _per_minute(
            "Credits",
            "Are credits taken, given back, denied?",
            {"taken": TAKEN, "given back": GIVEN_BACK, "denied": DENIED},
        ),
        _per_minute(
            "Threads locked",
            "How often does a candidate decline without a word, and come back later?",
            {"locked": LOCKED, "unlocked": UNLOCKED},
        ),
        _per_minute(
            "Recruiters' own messages",
            "Are recruiters turned away when they write on?",
            {"accepted": MESSAGES_ACCEPTED, "rejected": MESSAGES_REJECTED},
        ),
    ]


def _delays() -> list[Panel]:
    return [
        lines(
            "From arrival to the recruiter's view",
            "How long after an event reached us does the inbox show it?",
            latency("inmail_end_to_end_seconds", 'service="inbox"'),
            unit="s",
            colours=LATENCY_COLOURS,
        ),
        lines(
            "From arrival to the notification",
            "How long after a reply reached us is a notification asked for?",
            latency("inmail_end_to_end_seconds", 'service="notification"'),
            unit="s",
            colours=LATENCY_COLOURS,
        ),
        lines(
            "Age of events when we get them",
            "Do they come late from upstream? From their own time to our commit.",
            latency("inmail_event_age_seconds", 'service="ingestion"'),
            unit="s",
            colours=LATENCY_COLOURS,
        ),
        number(
            "Given up",
            "How many events could not be processed in the time shown? Each is something that a person did.",
            f"sum{letters('', '$__range')} or vector(0)",
            levels=(Level(None, GOOD), Level(1, BAD)),
        ),
        number(
            "Waiting for a missing fact",
            "How many events are kept until another one comes? They are given up after 24 hours.",
            "sum(max by (service) (inmail_parked_records))",
            levels=(Level(None, GOOD), Level(100, WARN)),
        ),
        number(
            "Behind",
            "How old is the oldest event that some service has yet to work?",
            "max(inmail_lag_seconds)",
            unit="s",
            levels=(Level(None, GOOD), Level(10, WARN), Level(60, BAD)),
        ),
        number(
            "Unknown smart replies",
            "How many replies named a smart reply that we do not know? They are read as the candidate's own words.",
            _total("inmail_unknown_templates_total"),
            levels=(Level(None, GOOD), Level(1, WARN)),
        ),
        number(
            "Unknown time zones",
            "How many seats came with a time zone that we do not know? Their quiet hours are those of UTC.",
            _total("inmail_unknown_time_zones_total"),
            levels=(Level(None, GOOD), Level(1, WARN)),
        ),
    ]


def _total(counter: str) -> str:
    return f"sum(increase({counter}[$__range]))"


def _per_minute(title: str, question: str, counters: dict[str, str]) -> Panel:
    queries = [Query(f"60 * sum(rate({counter}[$__rate_interval]))", name) for name, counter in counters.items()]
    return lines(title, question, queries, unit="cpm", colours={name: _COLOURS[name] for name in counters})

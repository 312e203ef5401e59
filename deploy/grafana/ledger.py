"""For those who answer for customers' credits: do the books balance, and what moves in them?"""

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import (
    BAD,
    GOOD,
    LATENCY_COLOURS,
    SERVICE_COLOURS,
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
from shared.topics import CREDIT_EVENTS

_CREDITS: Final = 'service="credits"'
_MOVED: Final = "inmail_ledger_posted_credits_total"
_DENIED: Final = (
    f'inmail_events_total{{service="inbox",topic="{CREDIT_EVENTS}",type="credit.denied.v1",result="accepted"}}'
)
_KIND_COLOURS: Final = {
    "granted": "#73BF69",
    "expired": "#8E8E8E",
    "held": "#FADE2A",
    "released": "#8AB8FF",
    "captured": "#FF9830",
    "charged": "#E55400",
    "refunded": "#B877D9",
    "returned": "#5794F2",
}
_ONLY: Final = {"credits": SERVICE_COLOURS["credits"]}


def ledger() -> dashboard.Dashboard:
    """Build the dashboard."""
    return board(
        "inmail-ledger",
        "InMail: ledger",
        "Customers' credits: whether the books balance, what moves in them, and whether credits keeps up.",
        {"Books": _books(), "Movements per minute": _movements(), "Keeping up": _keeping_up()},
        since="now-24h",
    )


def _books() -> list[Panel]:
    return [
        number(
            "Imbalance",
            "By how many credits do balances and ledger differ? It must be 0; NaN says that the last audit failed.",
            "max(abs(inmail_ledger_imbalance_credits))",
            levels=(Level(None, GOOD), Level(1, BAD)),
        ),
        number("Taken", "How many credits were taken for InMails sent?", _total("captured|charged")),
        number(
            "Given back",
            "How many came back for answers (returned) and failures (refunded)?",
            _total("returned|refunded"),
        ),
        number("Granted", "How many credits did refreshes grant?", _total("granted")),
        number(
            "Denied",
            "How many schedules found no credit? A recruiter wanted to write and could not.",
            f"sum(increase({_DENIED}[$__range]))",
            levels=(Level(None, GOOD), Level(1, WARN)),
        ),
        number(
            "Behind",
            "How late are balances?",
            f"max(inmail_lag_seconds{{{_CREDITS}}})",
            unit="s",
            levels=(Level(None, GOOD), Level(10, WARN), Level(60, BAD)),
        ),
    ]


def _movements() -> list[Panel]:
    return [
        _moved("Grants and expiry", "What do contracts get and lose by the calendar?", "granted", "expired"),
        _moved(
            "Holds", "Are holds resolved? What is held is later captured or released.", "held", "captured", "released"
        ),
        _moved(
            "Taken and given back",
            "Do answers bring credits back as usual? Charged: sent without a hold.",
            "captured",
            "charged",
            "returned",
            "refunded",
        ),
        lines(
            "Denials",
            "Do customers run out of credits?",
            [Query(f"60 * sum(rate({_DENIED}[$__rate_interval]))", "denied")],
            unit="cpm",
            colours={"denied": "#F2495C"},
        ),
    ]


def _keeping_up() -> list[Panel]:
    return [
        lines(
            "Imbalance over time",
            "Since when do the books not balance?",
            [Query(f"max by (service) (abs(inmail_ledger_imbalance_credits{{{_CREDITS}}}))", "{{service}}")],
            unit="short",
            colours=_ONLY,
            limit=1,
        ),
        lines(
            "Behind, in time",
            "How late are balances?",
            [Query(f"max by (service) (inmail_lag_seconds{{{_CREDITS}}})", "{{service}}")],
            unit="s",
            colours=_ONLY,
            limit=60,
        ),
        lines(
            "From arrival to the ledger",
            "How long after an event reached us is it booked?",
            latency("inmail_end_to_end_seconds", _CREDITS),
            unit="s",
            colours=LATENCY_COLOURS,
        ),
        lines(
            "InMails of unknown contracts and seats",
            "How many wait for a contract or seat that we have not heard of?",
            [Query(f"max by (service) (inmail_parked_records{{{_CREDITS}}})", "{{service}}")],
            unit="short",
            colours=_ONLY,
        ),
        lines(
            "Dead letters in 15 minutes",
            "What could not be booked, and why?",
            [Query(f"sum by (reason) {letters(_CREDITS, '15m')}", "{{reason}}")],
            unit="short",
            colours={},
        ),
    ]


def _total(kinds: str) -> str:
    return f'sum(increase({_MOVED}{{kind=~"{kinds}"}}[$__range]))'


def _moved(title: str, question: str, *kinds: str) -> Panel:
    queries = [Query(f'60 * sum(rate({_MOVED}{{kind="{kind}"}}[$__rate_interval]))', kind) for kind in kinds]
    return lines(title, question, queries, unit="cpm", colours={kind: _KIND_COLOURS[kind] for kind in kinds})

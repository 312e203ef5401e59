"""For whoever is on call: is each service getting on, and what holds it up?"""

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import BAD, GOOD, WARN, Level, Panel, Query, board, letters, lines, number, service_variable

_OF: Final = 'service=~"$service"'
_LABEL: Final = "{{service}}"
_RESULT_COLOURS: Final = {
    "accepted": "#73BF69",
    "duplicate": "#8E8E8E",
    "parked": "#FADE2A",
    "dead_letter": "#F2495C",
    "ignored": "#8AB8FF",
}
_LAG_SECONDS_MAX: Final = 60
_STILL_SECONDS_MAX: Final = 90
_OUTBOX_SECONDS_MAX: Final = 60
_REJECTIONS_MAX: Final = 5
_STARTS_MAX: Final = 3


def services() -> dashboard.Dashboard:
    """Build the dashboard."""
    rows = {
        "Now": _now(),
        "Getting on": _progress(),
        "Work": _work(),
        "Delivery": _delivery(),
        "Resources": _resources(),
    }
    purpose = "Lag, progress, delivery and resources of the services. Dashed lines are where the alerts stand."
    return board("inmail-services", "InMail: services", purpose, rows).with_variable(service_variable())


def _now() -> list[Panel]:
    return [
        number(
            "Not answering",
            "How many processes does Prometheus not reach?",
            f'sum(1 - up{{job="inmail",{_OF}}})',
            levels=(Level(None, GOOD), Level(1, BAD)),
        ),
        number(
            "Behind",
            "How old is the oldest record that waits on the broker?",
            f"max(inmail_lag_seconds{{{_OF}}})",
            unit="s",
            levels=(Level(None, GOOD), Level(10, WARN), Level(_LAG_SECONDS_MAX, BAD)),
        ),
        number(
            "Standing still",
            "How long ago did the slowest loop last get on?",
            f"time() - min(inmail_progress_timestamp_seconds{{{_OF}}})",
            unit="s",
            levels=(Level(None, GOOD), Level(30, WARN), Level(_STILL_SECONDS_MAX, BAD)),
        ),
        number(
            "Oldest in an outbox",
            "How long has something decided waited to be published?",
            f"max(inmail_outbox_age_seconds{{{_OF}}})",
            unit="s",
            levels=(Level(None, GOOD), Level(10, WARN), Level(_OUTBOX_SECONDS_MAX, BAD)),
        ),
        number(
            "Dead letters",
            "How many records were given up in the time shown? `inmail dlq list` shows them.",
            f"sum{letters(_OF, '$__range')} or vector(0)",
            levels=(Level(None, GOOD), Level(1, BAD)),
        ),
        number(
            "Numbers skipped",
            "Was a fact lost between two services? Anything but 0 is a defect.",
            f"sum(increase(inmail_gaps_total{{{_OF}}}[$__range]))",
            levels=(Level(None, GOOD), Level(1, BAD)),
        ),
    ]


def _progress() -> list[Panel]:
    return [
        lines(
            "Behind, in time",
            "How late does what people do show?",
            [Query(f"max by (service) (inmail_lag_seconds{{{_OF}}})", _LABEL)],
            unit="s",
            limit=_LAG_SECONDS_MAX,
        ),
        lines(
            "Behind, in records",
            "How much is there to catch up with?",
            [Query(f"sum by (service) (inmail_lag_records{{{_OF}}})", _LABEL)],
            unit="short",
        ),
        lines(
            "Since the loop last got on",
            "Does a service wait for the broker or the database, or is it stuck?",
            [Query(f"time() - min by (service) (inmail_progress_timestamp_seconds{{{_OF}}})", _LABEL)],
            unit="s",
            limit=_STILL_SECONDS_MAX,
        ),
    ]


def _work() -> list[Panel]:
    return [
        lines(
            "Events",
            "How much does each service work?",
            [Query(f"sum by (service) (rate(inmail_events_total{{{_OF}}}[$__rate_interval]))", _LABEL)],
            unit="eps",
        ),
        lines(
            "What became of them",
            "Are more than usual repeated, kept waiting or given up?",
            [Query(f"sum by (result) (rate(inmail_events_total{{{_OF}}}[$__rate_interval]))", "{{result}}")],
            unit="eps",
            colours=_RESULT_COLOURS,
            stacked=True,
        ),
        lines(
            "Repeats",
            "Does upstream, or a service before this one, send the same again?",
            [Query(f"sum by (service) (rate(inmail_duplicates_total{{{_OF}}}[$__rate_interval]))", _LABEL)],
            unit="eps",
        ),
        lines(
            "Time for a batch",
            "From decoding to commit, 95 % of the batches: is the database slow, or the model?",
            [Query(_share_by_service("inmail_processing_seconds"), _LABEL)],
            unit="s",
        ),
        lines(
            "Records in a batch",
            "On average: full batches mean that the service catches up, or is at its limit.",
            [
                Query(
                    f"sum by (service) (rate(inmail_batch_records_sum{{{_OF}}}[$__rate_interval]))"
                    f" / sum by (service) (rate(inmail_batch_records_count{{{_OF}}}[$__rate_interval]))",
                    _LABEL,
                )
            ],
            unit="short",
        ),
        lines(
            "From arrival to commit here",
            "95 % of the events: which service adds the delay?",
            [Query(_share_by_service("inmail_end_to_end_seconds"), _LABEL)],
            unit="s",
        ),
    ]


def _delivery() -> list[Panel]:
    return [
        lines(
            "Oldest in the outbox",
            "Does what is decided leave?",
            [Query(f"max by (service) (inmail_outbox_age_seconds{{{_OF}}})", _LABEL)],
            unit="s",
            limit=_OUTBOX_SECONDS_MAX,
        ),
        lines(
            "Records in the outbox",
            "How much waits to be published? Some always does, until it is deleted within a second.",
            [Query(f"max by (service) (inmail_outbox_records{{{_OF}}})", _LABEL)],
            unit="short",
        ),
        lines(
            "Parked",
            "How many records wait for a missing fact? They end as ORPHANED.",
            [Query(f"max by (service) (inmail_parked_records{{{_OF}}})", _LABEL)],
            unit="short",
        ),
        lines(
            "Dead letters in 15 minutes",
            "What is given up, where and why?",
            [
                Query(
                    f"sum by (service, reason) {letters(_OF, '15m')}",
                    "{{service}} {{reason}}",
                )
            ],
            unit="short",
            colours={},
        ),
        lines(
            "Fence rejections in 15 minutes",
            "Do two processes hold the same partition? One or two with a deployment are the fence at work.",
            [Query(f"sum by (service) (increase(inmail_fence_rejections_total{{{_OF}}}[15m]))", _LABEL)],
            unit="short",
            limit=_REJECTIONS_MAX,
        ),
        lines(
            "Rebalances in 15 minutes",
            "Do members of a group come and go?",
            [Query(f"sum by (service) (increase(inmail_rebalances_total{{{_OF}}}[15m]))", _LABEL)],
            unit="short",
        ),
    ]


def _resources() -> list[Panel]:
    return [
        lines(
            "Database connections in use",
            "Is the pool the limit?",
            [Query(f'sum by (service) (inmail_pool_connections{{state="used",{_OF}}})', _LABEL)],
            unit="short",
        ),
        lines(
            "Processor",
            "How many cores does each service keep busy? A loop uses one at most; only classification has threads.",
            [
                Query(
                    f'sum by (service) (rate(process_cpu_seconds_total{{job="inmail",{_OF}}}[$__rate_interval]))',
                    _LABEL,
                )
            ],
            unit="short",
        ),
        lines(
            "Memory",
            "Does a service grow?",
            [Query(f'max by (service) (process_resident_memory_bytes{{job="inmail",{_OF}}})', _LABEL)],
            unit="bytes",
        ),
        lines(
            "Starts in 15 minutes",
            "Does a process end again and again?",
            [Query(f'max by (service) (changes(process_start_time_seconds{{job="inmail",{_OF}}}[15m]))', _LABEL)],
            unit="short",
            limit=_STARTS_MAX,
        ),
    ]


def _share_by_service(metric: str) -> str:
    rate = f"sum by (le, service) (rate({metric}_bucket{{{_OF}}}[$__rate_interval]))"
    return f"histogram_quantile(0.95, {rate})"

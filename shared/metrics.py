"""The metrics of every service, each with the question it answers. Labels never hold ids, names or texts."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
    86400.0,
)
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

# A series beside each counter that says when it began: nothing asks for it, and it doubles what is stored.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it without types


class BatchHistogram(Collector):
    """A histogram that takes a batch of values at once: a lock and a call per event would cost more than its use."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, values: Iterable[float]) -> None:
        """Add values, in the unit of the metric's name."""
        counts, bounds, total = self._counts, self._bounds, 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self._sum += total

    def collect(self) -> Iterator[Metric]:
        """The family as Prometheus reads it: cumulative buckets."""
        cumulative, buckets = 0, []
        for bound, count in zip([*map(str, map(float, self._bounds)), "+Inf"], self._counts, strict=True):
            cumulative += count
            buckets.append((bound, cumulative))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class Metrics:
    """The metrics that every service exposes, on a registry of its own."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files, and when the process began
        self.events = Counter(
            "inmail_events",
            "What became of the events: accepted, duplicate, parked, dead_letter?",
            ["service", "topic", "type", "result"],
            registry=registry,
        )
        self.processing_seconds = BatchHistogram(
            "inmail_processing_seconds", "How long does a batch take, from decoding to commit?", _SECONDS, registry
        )
        self.end_to_end_seconds = BatchHistogram(
            "inmail_end_to_end_seconds",
            "How long after the first input record was received is an event's effect committed here?",
            _SECONDS,
            registry,
        )
        self.event_age_seconds = BatchHistogram(
            "inmail_event_age_seconds",
            "How old is an event, by its own time, when its effect is committed?",
            _SECONDS,
            registry,
        )
        self.batch_records = BatchHistogram("inmail_batch_records", "How full are the batches?", _RECORDS, registry)
        self.lag_records = Gauge(
            "inmail_lag_records", "How many records wait on the broker?", ["topic", "partition"], registry=registry
        )
        self.lag_seconds = Gauge(
            "inmail_lag_seconds",
            "How old, at most, is the oldest record not yet processed? 0 when none waits.",
            registry=registry,
        )
        self.rebalances = Counter("inmail_rebalances", "How often did the held partitions change?", registry=registry)
        self.fence_rejections = Counter(
            "inmail_fence_rejections",
            "How often did the fence turn this process away as no longer the owner?",
            registry=registry,
        )
        self.duplicates = Counter("inmail_duplicates", "How many repeats had no effect?", registry=registry)
        self.gaps = Counter(
            "inmail_gaps", "How many numbers of a numbered topic were skipped? Each is a defect.", registry=registry
        )
        self.parked_records = Gauge(
            "inmail_parked_records", "How many records wait for a missing fact?", registry=registry
        )
        self.outbox_records = Gauge(
            "inmail_outbox_records", "How many committed records are not known to be on the broker?", registry=registry
        )
        self.outbox_age_seconds = Gauge(
            "inmail_outbox_age_seconds", "How old is the oldest of them?", registry=registry
        )
        self.dead_letters = Counter(
            "inmail_dead_letters", "What could not be processed, and why?", ["topic", "reason"], registry=registry
        )
        self.pool_connections = Gauge(
            "inmail_pool_connections", "How many database connections are idle, in use?", ["state"], registry=registry
        )
        self.progress_timestamp_seconds = Gauge(
            "inmail_progress_timestamp_seconds",
            "When did the loop last get on? A loop that only waits for the broker or the database does not.",
            registry=registry,
        )
        self.progress_timestamp_seconds.set_to_current_time()  # the process has begun: no progress since the year 1970
        self.observe_pool(0, 0)

    def expect(self, topic: str, types: Iterable[str]) -> None:
        """Begin the counters of these types at 0: in one that begins with its first events, no rate shows them."""
        for event_type in types:
            self.events.labels(self.service, topic, event_type, "accepted")

    def forget_partitions(self) -> None:
        """Empty the gauges of what is held: a process that lost its partitions must not report their last state."""
        self.lag_records.clear()
        for gauge in (self.lag_seconds, self.outbox_records, self.outbox_age_seconds, self.parked_records):
            gauge.set(0)

    def observe_pool(self, size: int, idle: int) -> None:
        """Set the pool's gauges."""
        self.pool_connections.labels("idle").set(idle)
        self.pool_connections.labels("used").set(size - idle)

"""Every setting of a service with its default and unit; an environment variable `INMAIL_<NAME>` gives another."""

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.topics import DAY_MS, SERVICES, TOPICS


class Settings(BaseSettings):
    """The bounds and addresses a service runs with.

    Bounds are settings so that an operator can move them, and have names so that an error can say which one was met.
    """

    model_config = SettingsConfigDict(env_prefix="INMAIL_", frozen=True, extra="ignore")

    kafka_bootstrap: str = "localhost:9092"
    postgres_dsn: str = "postgresql://localhost:5432/inmail"
    http_host: str = "127.0.0.1"
    http_port: int = 0
    instance: str = "0"
    """Static member of the consumer group: after a restart it keeps its partitions without a rebalance."""

    batch_records_max: int = Field(1_000, ge=1)
    """More makes no record cheaper, for a batch outgrows the processor's cache, and takes memory."""
    lanes: int = Field(2, ge=1)
    """Full batches are split by partition into so many transactions at once: one decides while another is stored."""
    lane_records_min: int = Field(500, ge=1)
    """A lane with fewer records is not worth a transaction of its own."""
    batch_wait_ms: int = Field(50, ge=1)
    """How long a poll waits for the first record, and what waits for company (`Read.waits`) for that."""
    outbox_batches_max: int = Field(2, ge=1)
    """Committed batches that may wait behind the one that is being sent before the next one is held back."""
    attempts_max: int = Field(3, ge=1)
    """Failures of a record on its own before it becomes a dead letter."""
    failed_in_a_row_max: int = Field(20, ge=1)
    """After so many such dead letters without a record that succeeds, the next one waits and its partition stands."""
    parked_seconds_max: float = Field(24 * 3600, gt=0)
    inbox_days: int = Field(35, ge=1)
    """How long an event id is remembered: longer than the longest retention of an input topic."""
    clock_skew_seconds_max: float = Field(300, ge=0)

    classified_text_days: int = Field(180, ge=0)
    """How long classification keeps the texts it judged, so that corrections can teach; 0 keeps none."""
    model_threads: int = Field(2, ge=1)
    """In so many threads the model runs; more than there are cores gain nothing."""

    session_timeout_ms: int = 10_000
    heartbeat_interval_ms: int = 2_000
    rebalance_timeout_ms: int = 30_000
    request_timeout_ms: int = 15_000
    retry_seconds_min: float = 0.2
    retry_seconds_max: float = 5.0
    publish_recheck_ms: int = Field(500, ge=0)
    """A batch that began earlier is published only after a look whether its partitions are still held."""
    drain_seconds_max: float = 10.0
    sweep_seconds: float = Field(1.0, gt=0)
    """How often lag is measured, parked records expire and the rest of the acknowledged outbox rows is deleted."""
    progress_seconds_max: float = 60.0
    """A loop that has not turned for so long is stuck: its process ends and is started anew."""
    deaf_seconds_max: float = 20.0
    """A consumer that receives nothing of a partition with lag for so long is deaf: it is closed and opened anew."""

    pool_connections_max: int = Field(6, ge=3)
    http_connections_max: int = Field(3, ge=1)
    """So many of them may HTTP requests hold at once, or fewer: the loop's lanes and its publisher keep theirs."""
    http_wait_ms: int = Field(2_000, ge=0)
    """A request that gets none of them for so long is answered with 503."""
    connect_timeout_ms: int = 5_000
    # Postgres takes 0 for no limit at all.
    statement_timeout_ms: int = Field(8_000, ge=1)
    lock_timeout_ms: int = Field(2_000, ge=1)
    transaction_timeout_ms: int = Field(9_000, ge=1)
    idle_in_transaction_timeout_ms: int = Field(5_000, ge=1)

    ingestion_url: str = ""
    credits_url: str = ""

    @model_validator(mode="after")
    def _frozen_owner_lets_go(self) -> "Settings":
        """A stopped owner must lose its row locks before the group gives its partitions to another."""
        for name in ("transaction_timeout_ms", "idle_in_transaction_timeout_ms", "lock_timeout_ms"):
            value = getattr(self, name)
            if value >= self.session_timeout_ms:
                message = (
                    f"INMAIL_{name.upper()} is {value}, but must be below INMAIL_SESSION_TIMEOUT_MS "
                    f"({self.session_timeout_ms}): lower the first or raise the second"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _ids_outlive_their_records(self) -> "Settings":
        """A record that is read again after its id was forgotten would take effect twice."""
        retention_days = max(t.retention_ms for t in TOPICS.values() if set(t.readers) & set(SERVICES)) // DAY_MS
        if self.inbox_days <= retention_days:
            message = (
                f"INMAIL_INBOX_DAYS is {self.inbox_days}, but must be above {retention_days}, the longest retention of "
                "an input topic, for what is read again later would take effect twice: raise it"
            )
            raise ValueError(message)
        return self

    @property
    def http_places(self) -> int:
        """How many connections HTTP requests may hold at once: at least one, for a pool may be as small as its loop."""
        return max(1, min(self.http_connections_max, self.pool_connections_max - self.lanes - 1))

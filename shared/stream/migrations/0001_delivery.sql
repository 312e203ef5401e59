-- The delivery kit's tables. Every service has them in its own schema.

-- Where each partition stands: the truth, moved in the transaction that holds the effects.
CREATE TABLE consumer_offset (
    consumer         text        NOT NULL,
    topic            text        NOT NULL,
    partition        integer     NOT NULL,
    next_offset      bigint      NOT NULL CHECK (next_offset >= 0),
    owner_epoch      bigint      NOT NULL DEFAULT 1,
    newest_timestamp timestamptz NOT NULL DEFAULT '-infinity', -- the partition's clock
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50); -- updated with every batch: room for heap-only updates

-- The first record seen under an identity: a digest of (source, id), or of (type, business id).
-- One table without partitions, because uniqueness must hold across days; old event identities leave in small deletes.
CREATE TABLE inbox (
    identity     bytea   PRIMARY KEY,
    content_hash bytea   NOT NULL,
    expires_on   date    NULL -- null: a business id, unique for ever
);
CREATE INDEX inbox_expiry ON inbox USING brin (expires_on);

-- What could not be processed. The unique key keeps a repeat from making a second dead letter.
CREATE TABLE dead_letter (
    identity     bytea       NOT NULL,
    content_hash bytea       NOT NULL,
    reason       text        NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    "offset"     bigint      NOT NULL,
    first_seen   timestamptz NOT NULL,
    PRIMARY KEY (identity, content_hash)
);

-- Records that wait for a fact that has not come yet, with their original bytes.
CREATE TABLE parked (
    topic            text        NOT NULL,
    partition        integer     NOT NULL,
    "offset"         bigint      NOT NULL,
    wait_key         text        NOT NULL,
    record_timestamp timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    redriven         boolean     NOT NULL,
    key              bytea       NULL,
    value            bytea       NOT NULL,
    headers          bytea       NOT NULL,
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX parked_wait_key ON parked (wait_key);
CREATE INDEX parked_expiry ON parked (topic, partition, expires_at);

-- Encoded records that are committed and not yet acknowledged by the broker: one row per batch, source partition and topic.
CREATE TABLE outbox (
    outbox_id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_topic     text        NULL, -- null: written by an HTTP request, sent by whoever holds partition 0
    source_partition integer     NULL,
    topic            text        NOT NULL,
    keys             bytea[]     STORAGE EXTERNAL NOT NULL, -- not compressed: the rows live for some milliseconds
    payloads         bytea[]     STORAGE EXTERNAL NOT NULL,
    headers          bytea[]     NULL, -- null: every record has the headers of a structured CloudEvent
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Notification: how far each thread is known, who is told about it, how seats want to be told, and what was asked for.
-- No names and no texts: a request's text is published and not kept.

CREATE TABLE thread (
    thread_id       text    PRIMARY KEY,
    thread_version  bigint  NOT NULL DEFAULT 0, -- newest event of the conversation that was seen
    outcome_version bigint  NOT NULL DEFAULT 0, -- newest outcome that was notified
    notified        boolean NOT NULL DEFAULT false, -- has rows in notification_request
    holding         boolean NOT NULL DEFAULT false  -- outcomes may be parked under its id
) WITH (fillfactor = 70); -- updated with every batch: room for heap-only updates

-- Who is told about a thread from a version of it on. Kept as a history, because an outcome is told to the audience
-- at the version of the reply that it answers, however late it comes.
CREATE TABLE audience (
    thread_id         text        NOT NULL,
    thread_version    bigint      NOT NULL,
    owner_seat_id     text        NOT NULL,
    follower_seat_ids text[]      NOT NULL,
    changed_at        timestamptz NOT NULL,
    PRIMARY KEY (thread_id, thread_version)
);

-- The newest assignment of each seat. Its rows and the preferences' come by contract and are read by thread, so other
-- processes may write them: the newest instant wins in the statement itself.
CREATE TABLE seat (
    seat_id     text        PRIMARY KEY,
    time_zone   text        NULL, -- null: none or none that exists, so UTC
    assigned_at timestamptz NOT NULL
);

-- The newest preferences of each seat.
CREATE TABLE preference (
    seat_id     text        PRIMARY KEY,
    channels    text[]      NOT NULL,
    quiet_start time        NULL, -- in the seat's time zone
    quiet_end   time        NULL,
    digest      text        NOT NULL CHECK (digest IN ('off', 'hourly', 'daily')),
    set_at      timestamptz NOT NULL,
    CONSTRAINT preference_quiet_hours CHECK ((quiet_start IS NULL) = (quiet_end IS NULL))
);

-- One row per request. The id is made of cause, recipient and channel, so its key keeps a request from being made twice;
-- the versions of a recipient, channel and thread have no gaps.
CREATE TABLE notification_request (
    notification_id         uuid        PRIMARY KEY,
    thread_id               text        NOT NULL,
    recipient_seat_id       text        NOT NULL,
    channel                 text        NOT NULL CHECK (channel IN ('in_thread', 'push', 'email', 'webhook')),
    version                 bigint      NOT NULL CHECK (version > 0),
    outcome_notification_id uuid        NULL, -- of the newest request, up to this one, that told an outcome
    deliver_after           timestamptz NULL,
    retracted               boolean     NOT NULL DEFAULT false,
    CONSTRAINT notification_request_version UNIQUE (thread_id, recipient_seat_id, channel, version),
    CONSTRAINT notification_request_in_thread_at_once CHECK (channel <> 'in_thread' OR deliver_after IS NULL),
    CONSTRAINT notification_request_retractable CHECK (NOT retracted OR deliver_after IS NOT NULL)
);

-- What a changed outcome may still take back.
CREATE INDEX notification_request_deferred ON notification_request (thread_id, deliver_after)
    WHERE deliver_after IS NOT NULL AND NOT retracted;

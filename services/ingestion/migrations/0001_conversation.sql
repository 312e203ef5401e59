-- What ingestion knows of every thread. Facts are added; what follows from them is derived by the domain.
-- No foreign keys: one module writes these tables, always from a whole thread, and every key would cost a lookup a row.

CREATE TABLE thread (
    thread_id          text        PRIMARY KEY,
    thread_version     bigint      NOT NULL DEFAULT 0 CHECK (thread_version >= 0), -- the last conversation event's number
    locked             boolean     NOT NULL DEFAULT false,                         -- as published last
    reassigned_seat_id text        NULL,
    reassigned_at      timestamptz NULL,
    draft_choice       text        NULL,
    drafted_at         timestamptz NULL,
    CHECK ((reassigned_seat_id IS NULL) = (reassigned_at IS NULL)),
    CHECK (draft_choice IS NULL OR drafted_at IS NOT NULL)
) WITH (fillfactor = 70); -- inserted, then updated by each event: room for heap-only updates

CREATE TABLE inmail (
    thread_id      text        NOT NULL,
    inmail_id      text        NOT NULL,
    contract_id    text        NOT NULL,
    seat_id        text        NOT NULL,
    candidate_id   text        NOT NULL,
    locale         text        NULL,
    time_zone      text        NULL,
    kind           text        NOT NULL CHECK (kind IN ('initial', 'follow_up')),
    automated      boolean     NOT NULL,
    credit_cost    integer     NOT NULL CHECK (credit_cost IN (0, 1)),
    scheduled_at   timestamptz NULL,
    sent_at        timestamptz NULL,
    undelivered_at timestamptz NULL,
    withdrawn_at   timestamptz NULL,
    cancelled_at   timestamptz NULL,
    PRIMARY KEY (thread_id, inmail_id),
    CHECK (scheduled_at IS NOT NULL OR sent_at IS NOT NULL),   -- nothing else makes an InMail known
    CHECK (cancelled_at IS NULL OR scheduled_at IS NOT NULL)   -- only what waits can be cancelled
) WITH (fillfactor = 80);

-- Human replies. Away messages are no responses and leave no trace here.
CREATE TABLE reply (
    thread_id        text        NOT NULL,
    reply_id         text        NOT NULL,
    sent_at          timestamptz NOT NULL,
    inmail_id        text        NOT NULL, -- the InMail it answers, decided on arrival
    locks            boolean     NOT NULL,
    template_id      text        NULL,     -- of a refusal that is not its template for any name known yet
    template_version integer     NULL,
    template_locale  text        NULL,
    PRIMARY KEY (thread_id, reply_id)
);

CREATE TABLE following (
    thread_id text        NOT NULL,
    seat_id   text        NOT NULL,
    said_at   timestamptz NOT NULL,
    following boolean     NOT NULL,
    PRIMARY KEY (thread_id, seat_id)
);

-- All that names a candidate or comes from their words. Touched by private.py alone, so that there is one place to erase.
CREATE TABLE private_text (
    thread_id text NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('scheduled_name', 'sent_name', 'unmatched_digest')),
    id        text NOT NULL, -- inmail_id of a name, reply_id of a digest
    content   text NOT NULL,
    PRIMARY KEY (thread_id, kind, id)
);

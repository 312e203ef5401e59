-- What the inbox shows. Names of candidates are in private_text alone.

-- One row a thread: what its conversation and its outcomes add up to. Only the process that holds the thread's
-- partition writes it. Nothing that changes with a reply is indexed, so that those updates stay within their page.
CREATE TABLE thread (
    thread_id         text        PRIMARY KEY,
    version           bigint      NOT NULL, -- of the newest conversation event
    contract_id       text        NULL,     -- null: only rejected messages are known
    candidate_id      text        NULL,
    named_at          timestamptz NULL,     -- event time of the InMail that gave the name
    locale            text        NULL,
    located_at        timestamptz NULL,
    owner_seat_id     text        NULL,
    phase             text        NOT NULL, -- where the thread stands as long as nobody has answered
    last_inmail_at    timestamptz NULL,
    first_response_at timestamptz NULL,
    locked            boolean     NOT NULL,
    draft_choice      text        NULL,
    outcome_version   bigint      NOT NULL, -- 0: none yet
    outcome           text        NULL,
    outcome_source    text        NULL,
    status            text        NULL      -- null: as contract_id
) WITH (fillfactor = 75);
-- A seat's folders, newest first; accepted, declined and awaiting ones are picked out of the page that is read.
CREATE INDEX thread_folder ON thread (owner_seat_id, last_inmail_at DESC, thread_id DESC);

-- One row an InMail: the times of its facts.
CREATE TABLE inmail (
    inmail_id      text        PRIMARY KEY,
    thread_id      text        NOT NULL,
    contract_id    text        NOT NULL,
    seat_id        text        NOT NULL, -- the seat that sent it
    kind           text        NOT NULL,
    automated      boolean     NOT NULL,
    credit_cost    integer     NOT NULL,
    scheduled_at   timestamptz NULL,
    sent_at        timestamptz NULL,
    undelivered_at timestamptz NULL,
    withdrawn_at   timestamptz NULL,
    cancelled_at   timestamptz NULL,
    answered_at    timestamptz NULL -- of the first reply to it that was classified
) WITH (fillfactor = 75);
CREATE INDEX inmail_thread ON inmail (thread_id);
CREATE INDEX inmail_seat ON inmail (seat_id); -- rates; without sent_at, so that sending moves no index entry

-- Every event about a thread, as it was consumed, without names and texts. Only ever inserted, by any process.
CREATE TABLE fact (
    thread_id text        NOT NULL,
    event_id  text        NOT NULL,
    type      text        NOT NULL,
    at        timestamptz NOT NULL,
    number    bigint      NOT NULL, -- thread_version, outcome version or version of the notification
    cause_id  text        NULL,
    root_id   text        NULL,
    data      json        NOT NULL,
    PRIMARY KEY (thread_id, event_id)
);

-- The contracts' ledgers, line by line. Only ever inserted.
CREATE TABLE entry (
    contract_id  text        NOT NULL,
    entry_number bigint      NOT NULL,
    entry_id     text        NOT NULL,
    seat_id      text        NULL,
    inmail_id    text        NULL,
    kind         text        NOT NULL,
    amount       bigint      NOT NULL CHECK (amount > 0),
    available    bigint      NOT NULL, -- after this line
    held         bigint      NOT NULL, -- after this line
    cause_id     text        NOT NULL,
    effective_at timestamptz NOT NULL,
    PRIMARY KEY (contract_id, entry_number)
);
CREATE INDEX entry_inmail ON entry (inmail_id) WHERE inmail_id IS NOT NULL;

-- Schedules for which no credit was held. Only ever inserted.
CREATE TABLE denial (
    inmail_id   text        PRIMARY KEY,
    contract_id text        NOT NULL,
    seat_id     text        NOT NULL,
    reason      text        NOT NULL,
    at          timestamptz NOT NULL
);

-- Corrections that humans asked for here, with what was published for them.
CREATE TABLE correction (
    command_id   text        PRIMARY KEY,
    thread_id    text        NOT NULL,
    version      bigint      NOT NULL, -- of the outcome to be corrected
    outcome      text        NOT NULL,
    corrected_by text        NOT NULL,
    requested_at timestamptz NOT NULL
);
CREATE INDEX correction_thread ON correction (thread_id);

-- The only place that names a person.
CREATE TABLE private_text (
    kind    text NOT NULL,
    id      text NOT NULL,
    content text NOT NULL,
    PRIMARY KEY (kind, id)
);

-- Credits: contracts with their balances, seats, what is known of each InMail, and the ledger.

-- A contract's terms and the balances of its accounts. Credits come out of `granted` and are never made elsewhere, so
-- the books balance exactly when the other four add up to it; the database refuses a commit that breaks this.
-- `available` may be negative: what was sent is charged, covered or not.
CREATE TABLE contract (
    contract_id       text        PRIMARY KEY,
    monthly_allotment bigint      NOT NULL,
    cap_multiple      bigint      NOT NULL,
    started_at        timestamptz NOT NULL,
    ended_at          timestamptz NULL,
    entry_number      bigint      NOT NULL CHECK (entry_number >= 0), -- of the newest line: numbers have no gaps
    granted           bigint      NOT NULL CHECK (granted >= 0),
    available         bigint      NOT NULL,
    held              bigint      NOT NULL CHECK (held >= 0),
    taken             bigint      NOT NULL CHECK (taken >= 0),
    expired           bigint      NOT NULL CHECK (expired >= 0),
    CONSTRAINT contract_books_balance CHECK (granted = available + held + taken + expired)
) WITH (fillfactor = 70); -- updated with every batch: room for heap-only updates

-- The newest assignment of each seat.
CREATE TABLE seat (
    contract_id   text        NOT NULL,
    seat_id       text        NOT NULL,
    monthly_limit bigint      NULL, -- null: no limit
    assigned_at   timestamptz NOT NULL,
    PRIMARY KEY (contract_id, seat_id)
);

-- The facts known of each InMail; they are only ever added. Where its credit lies follows from them.
CREATE TABLE inmail (
    inmail_id      text        PRIMARY KEY,
    contract_id    text        NOT NULL,
    seat_id        text        NOT NULL,
    credit_cost    smallint    NULL, -- null: answered before any status came
    thread_version bigint      NOT NULL,
    scheduled      boolean     NOT NULL,
    denied         boolean     NOT NULL,
    sent_at        timestamptz NULL,
    stopped        boolean     NOT NULL, -- cancelled or withdrawn
    undelivered    boolean     NOT NULL,
    answered       boolean     NOT NULL  -- within the window that brings the credit back
) WITH (fillfactor = 80);

-- The months that were granted, also those whose allotment was nothing: a plain insert, so a second one fails.
CREATE TABLE granted_period (
    contract_id text NOT NULL,
    period      text NOT NULL, -- YYYY-MM
    PRIMARY KEY (contract_id, period)
);

-- The ledger. A line moves `amount` out of one account and into another, both given by its kind, so its two postings
-- sum to zero by construction.
CREATE TABLE ledger_entry (
    contract_id     text        NOT NULL, -- no foreign key: its check a line costs more than the insert; the audit finds strays
    entry_number    bigint      NOT NULL CHECK (entry_number > 0),
    entry_id        uuid        NOT NULL,
    kind            text        NOT NULL,
    amount          bigint      NOT NULL CHECK (amount > 0),
    inmail_id       text        NULL,
    seat_id         text        NULL,
    available_after bigint      NOT NULL,
    held_after      bigint      NOT NULL CHECK (held_after >= 0),
    cause_id        text        NOT NULL,
    effective_at    timestamptz NOT NULL,
    PRIMARY KEY (contract_id, entry_number),
    CONSTRAINT ledger_entry_once UNIQUE (entry_id),
    CONSTRAINT ledger_entry_subject CHECK (
        CASE
            WHEN kind IN ('granted', 'expired') THEN inmail_id IS NULL AND seat_id IS NULL
            WHEN kind IN ('held', 'captured', 'released', 'charged', 'refunded', 'returned')
                THEN inmail_id IS NOT NULL AND seat_id IS NOT NULL
            ELSE false
        END
    )
);

-- Each kind at most once per InMail, and of `captured` and `charged`, of `refunded` and `returned`, only one.
CREATE UNIQUE INDEX ledger_entry_inmail_step ON ledger_entry (
    inmail_id,
    (CASE kind WHEN 'captured' THEN 'charged' WHEN 'refunded' THEN 'returned' ELSE kind END)
) WHERE inmail_id IS NOT NULL;

-- A line is corrected by another line, never edited.
CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % of ledger_entry refused', TG_OP
        USING ERRCODE = 'restrict_violation', HINT = 'Post another line that moves the credits back.';
END
$$;
CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();

-- The double entry of each line: what leaves an account is negative.
CREATE VIEW posting AS
SELECT e.contract_id, e.entry_number, m.account, m.sign * e.amount AS amount
FROM ledger_entry e
JOIN (VALUES
    ('granted',  'granted',   -1), ('granted',  'available', 1),
    ('expired',  'available', -1), ('expired',  'expired',   1),
    ('held',     'available', -1), ('held',     'held',      1),
    ('captured', 'held',      -1), ('captured', 'taken',     1),
    ('released', 'held',      -1), ('released', 'available', 1),
    ('charged',  'available', -1), ('charged',  'taken',     1),
    ('refunded', 'taken',     -1), ('refunded', 'available', 1),
    ('returned', 'taken',     -1), ('returned', 'available', 1)
) AS m (kind, account, sign) USING (kind);

-- How far each contract's lines have been added up and found equal to its balances. The ledger is append-only, so an
-- audit adds what came since and never reads a line twice.
CREATE TABLE audited (
    contract_id  text   PRIMARY KEY,
    entry_number bigint NOT NULL,
    granted      bigint NOT NULL,
    available    bigint NOT NULL,
    held         bigint NOT NULL,
    taken        bigint NOT NULL,
    expired      bigint NOT NULL
);

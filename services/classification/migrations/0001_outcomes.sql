-- Classification: the outcome of every thread, and the verdict on each of its replies. No text and no label of a text
-- but the verdict is kept: the words stay on their topic, for as long as it holds them.

-- A thread's newest version, where its fold stands, and the newest human correction.
CREATE TABLE thread (
    thread_id          text             PRIMARY KEY,
    outcome_id         uuid             NOT NULL UNIQUE,
    version            bigint           NOT NULL CHECK (version > 0),
    outcome            text             NOT NULL CHECK (outcome IN ('accepted', 'declined')),
    source             text             NOT NULL CHECK (source IN ('choice', 'classifier', 'human')),
    confidence         double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    needs_confirmation boolean          NOT NULL,
    signals            text[]           NOT NULL,
    model_version      text             NULL,
    reply_id           text             NOT NULL, -- the reply that the version was published for, and what it carried
    inmail_id          text             NOT NULL,
    contract_id        text             NOT NULL,
    seat_id            text             NOT NULL,
    candidate_id       text             NOT NULL,
    thread_version     bigint           NOT NULL,
    responded_at       timestamptz      NOT NULL,
    newest_at          timestamptz      NOT NULL, -- the last reply in order
    newest_reply_id    text             NOT NULL,
    by_human           boolean          NOT NULL, -- only an explicit choice changes the outcome now
    corrected          text             NULL CHECK (corrected IN ('accepted', 'declined')),
    corrected_after_at timestamptz      NULL, -- the last reply that the correction stands after
    corrected_after_id text             NULL,
    CHECK ((corrected IS NULL) = (corrected_after_at IS NULL) AND (corrected IS NULL) = (corrected_after_id IS NULL)),
    CHECK (corrected IS NOT NULL OR NOT by_human)
) WITH (fillfactor = 70); -- updated with every reply: room for heap-only updates

-- Each answered reply's choice or label: a repeat is recognised by its id, and a late reply is folded in among them.
CREATE TABLE reply (
    reply_id           text             PRIMARY KEY,
    thread_id          text             NOT NULL,
    responded_at       timestamptz      NOT NULL,
    outcome            text             NOT NULL CHECK (outcome IN ('accepted', 'declined')),
    source             text             NOT NULL CHECK (source IN ('choice', 'classifier')),
    confidence         double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    needs_confirmation boolean          NOT NULL,
    signals            text[]           NOT NULL,
    model_version      text             NULL
);
CREATE INDEX reply_thread ON reply (thread_id);

-- All that names a candidate. Touched by private.py alone, so that there is one place to erase.
CREATE TABLE private_text (
    kind    text NOT NULL CHECK (kind = 'candidate_name'),
    id      text NOT NULL, -- thread_id
    content text NOT NULL,
    PRIMARY KEY (kind, id)
);

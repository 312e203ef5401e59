-- The words of the replies that the model judged, for as long as a setting says (180 days), and what humans made of its
-- verdicts: together they are examples to learn from.

ALTER TABLE private_text
    DROP CONSTRAINT private_text_kind_check,
    ADD CONSTRAINT private_text_kind_check CHECK (kind IN ('candidate_name', 'reply_text')), -- reply_text: id is reply_id
    ADD COLUMN locale text NULL,     -- of a reply_text
    ADD COLUMN kept_until date NULL, -- the same; a name stays
    ADD CHECK ((kind = 'reply_text') = (kept_until IS NOT NULL));
CREATE INDEX private_text_kept_until ON private_text (kept_until) WHERE kept_until IS NOT NULL;

-- Each correction taken (R29): the version that it made, and the reply that stood for the one before.
CREATE TABLE correction (
    thread_id    text        NOT NULL,
    version      bigint      NOT NULL,
    reply_id     text        NOT NULL,
    outcome      text        NOT NULL CHECK (outcome IN ('accepted', 'declined')),
    requested_at timestamptz NOT NULL,
    PRIMARY KEY (thread_id, version)
);

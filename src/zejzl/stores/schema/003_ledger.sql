-- What a request needs to be taken up again, work that waits, and what every call costs.
-- `messages` is made anew, because the states it allows cannot be changed in place.

CREATE TABLE new_messages (
    seq INTEGER PRIMARY KEY,            -- order of acceptance
    id TEXT NOT NULL UNIQUE,
    conversation_id TEXT,               -- NULL: belongs to none
    sender TEXT NOT NULL,
    provider TEXT NOT NULL,             -- who was asked, then who answered
    content TEXT NOT NULL,
    asked_at TEXT NOT NULL,
    owner TEXT NOT NULL,                -- the store that accepted or claimed it
    state TEXT NOT NULL CHECK (state IN ('accepted', 'settled', 'parked', 'dead')),
    settled_at TEXT,                    -- parked and dead: since when it is that
    turn INTEGER,                       -- place in its conversation's history; NULL: not in it
    response TEXT,
    response_time REAL,                 -- seconds
    error TEXT,
    model TEXT NOT NULL DEFAULT '',     -- that answered, as the provider reports it
    finish_reason TEXT NOT NULL DEFAULT '',
    maybe_duplicate INTEGER NOT NULL DEFAULT 0,     -- 1: answered, and maybe not for the first time
    idempotency_key TEXT,               -- the caller's own; NULL: none
    options TEXT,                       -- JSON, how it was asked; NULL: as usual
    parks INTEGER NOT NULL DEFAULT 0,   -- 1: it may wait for better times
    tries INTEGER NOT NULL DEFAULT 0,   -- how often it was taken up again in vain
    due_at TEXT,                        -- parked: when it is to be taken up again
    counted INTEGER NOT NULL DEFAULT 0  -- so many of its attempts are in `spending`
);

INSERT INTO new_messages
    (seq, id, conversation_id, sender, provider, content, asked_at, owner, state, settled_at, turn,
     response, response_time, error)
SELECT seq, id, conversation_id, sender, provider, content, asked_at, owner, state, settled_at,
    turn, response, response_time, error
FROM messages;

DROP TABLE messages;
ALTER TABLE new_messages RENAME TO messages;

-- What history and messages look for.
CREATE UNIQUE INDEX messages_turn ON messages (conversation_id, turn) WHERE turn IS NOT NULL;
CREATE INDEX messages_conversation ON messages (conversation_id, seq)
    WHERE conversation_id IS NOT NULL;
-- What orphans and prune look for. Descending, so that what is accepted and what was just settled
-- lie side by side: every write touches one page of this index, not two.
CREATE INDEX messages_state ON messages (state DESC, asked_at);
CREATE UNIQUE INDEX messages_key ON messages (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX messages_due ON messages (due_at) WHERE state = 'parked';

ALTER TABLE attempts ADD COLUMN at TEXT;                    -- when it began; NULL: not known
ALTER TABLE attempts ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN completion_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN cost_usd REAL;              -- NULL: no price is known
ALTER TABLE attempts ADD COLUMN settled INTEGER NOT NULL DEFAULT 1;     -- 0: estimated

-- The sums of what calls cost, those under way left out; they outlive the messages.
CREATE TABLE spending (
    day TEXT NOT NULL,                  -- of UTC, when the calls began
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    unpriced INTEGER NOT NULL,          -- calls with tokens of no known price
    unsettled INTEGER NOT NULL,         -- calls whose tokens are estimated
    unsettled_usd REAL NOT NULL,        -- of cost_usd, what is estimated
    PRIMARY KEY (day, provider, model)
) WITHOUT ROWID;

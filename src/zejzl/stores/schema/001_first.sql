-- Times are ISO 8601 text in UTC with microseconds, so that they sort and can be read.

CREATE TABLE messages (
    seq INTEGER PRIMARY KEY,            -- order of acceptance
    id TEXT NOT NULL UNIQUE,
    conversation_id TEXT,               -- NULL: belongs to none
    sender TEXT NOT NULL,
    provider TEXT NOT NULL,             -- who was asked, then who answered
    content TEXT NOT NULL,
    asked_at TEXT NOT NULL,
    owner TEXT NOT NULL,                -- the store that accepted or claimed it
    state TEXT NOT NULL CHECK (state IN ('accepted', 'settled')),
    settled_at TEXT,
    turn INTEGER,                       -- place in its conversation's history; NULL: not in it
    response TEXT,
    response_time REAL,                 -- seconds
    error TEXT
);

-- What history and messages look for.
CREATE UNIQUE INDEX messages_turn ON messages (conversation_id, turn) WHERE turn IS NOT NULL;
CREATE INDEX messages_conversation ON messages (conversation_id, seq)
    WHERE conversation_id IS NOT NULL;
-- What orphans and prune look for. Descending, so that what is accepted and what was just settled
-- lie side by side: every write touches one page of this index, not two.
CREATE INDEX messages_state ON messages (state DESC, asked_at);

CREATE TABLE attempts (
    message_seq INTEGER NOT NULL REFERENCES messages (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT,                       -- NULL while it runs
    seconds REAL,
    remedy TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message_seq, number)
) WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    at TEXT NOT NULL,
    body TEXT NOT NULL                  -- JSON with its version, v
);

CREATE INDEX events_type ON events (type, seq);
CREATE INDEX events_at ON events (at);

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE snapshots (
    owner TEXT PRIMARY KEY,             -- whose state it is
    held_by TEXT NOT NULL,              -- the store that wrote it, whose lock tells if it runs
    at TEXT NOT NULL,
    body TEXT NOT NULL                  -- JSON
);

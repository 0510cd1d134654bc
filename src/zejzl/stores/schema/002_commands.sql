-- What other processes ask of a running bus, and what it answered.

CREATE TABLE commands (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice: somebody may still wait for it
    owner TEXT NOT NULL,                    -- the bus it is for: the owner of its snapshot
    name TEXT NOT NULL,
    body TEXT NOT NULL,                     -- JSON
    at TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'taken', 'done', 'failed')),
    answer TEXT NOT NULL DEFAULT ''         -- JSON
);

-- A running bus asks twice a second: this index is all that it reads where nothing waits.
CREATE INDEX commands_waiting ON commands (owner, id) WHERE state = 'waiting';
CREATE INDEX commands_at ON commands (at);

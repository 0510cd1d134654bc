-- Events of users and agents, to be recalled. Their search index is made by the first write where
-- this SQLite has FTS5 (stores/memories.py): a file must open where it has not.

CREATE TABLE memories (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival; never used twice, the index has it
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    conversation_id TEXT,                   -- NULL: belongs to none
    at TEXT NOT NULL,
    body TEXT NOT NULL,                     -- JSON
    text TEXT NOT NULL,                     -- what a search looks through
    indexed INTEGER NOT NULL                -- 1: its words are in memory_words
);

CREATE INDEX memories_at ON memories (at, seq);
CREATE INDEX memories_type ON memories (type, at, seq);
CREATE INDEX memories_conversation ON memories (conversation_id, at, seq);
CREATE INDEX memories_unindexed ON memories (seq) WHERE NOT indexed;

"""What `SqliteStore` says to SQLite. `schema/` has the tables.

Text that never changes, so that each statement is compiled once. `turn IS NOT NULL` looks idle
and is not: without it SQLite may not use the index that leaves the other rows out.
"""

ACCEPT = """
    INSERT INTO messages
        (id, conversation_id, sender, provider, content, asked_at, owner, idempotency_key, options,
        parks, state)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'accepted')"""
FIND = """
    SELECT seq, state, conversation_id, owner, response IS NOT NULL, counted,
        (SELECT count(*) FROM attempts WHERE message_seq = seq)
    FROM messages WHERE id = ?"""
NEXT_TURN = """
    SELECT coalesce(max(turn), 0) + 1 FROM messages
    WHERE conversation_id = ? AND turn IS NOT NULL"""
SETTLE = """
    UPDATE messages SET state = 'settled', provider = ?, response = ?, response_time = ?,
        error = ?, model = ?, finish_reason = ?, maybe_duplicate = ?, settled_at = ?, turn = ?,
        counted = ?
    WHERE seq = ?"""
PARK = """
    UPDATE messages SET state = ?, due_at = ?, tries = ?, provider = ?, response_time = ?,
        error = ?, settled_at = ?, counted = ?
    WHERE seq = ?"""
TAKE_UP = """
    UPDATE messages SET state = 'accepted', owner = ?, due_at = NULL, error = NULL,
        response_time = NULL, settled_at = NULL
    WHERE seq = ?"""
ATTEMPT = "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
REPLACE_ATTEMPT = ATTEMPT.replace("INSERT", "INSERT OR REPLACE")
FORGET_ATTEMPTS = "DELETE FROM attempts WHERE message_seq = ? AND number > ?"
EVENT = "INSERT INTO events (type, at, body) VALUES (?, ?, ?)"
MESSAGE = """
    SELECT id, content, asked_at, sender, provider, response, response_time, error,
        conversation_id
    FROM messages"""
HISTORY = f"""{MESSAGE}
    WHERE conversation_id = ? AND turn IS NOT NULL ORDER BY turn DESC LIMIT ?"""
NEWEST = f"{MESSAGE} ORDER BY seq DESC LIMIT ?"
NEWEST_OF_ONE = f"{MESSAGE} WHERE conversation_id = ? ORDER BY seq DESC LIMIT ?"
TRIED = """
    SELECT a.provider, a.model, coalesce(a.outcome, ''), coalesce(a.seconds, 0.0), a.remedy,
        a.error, a.at, a.prompt_tokens, a.completion_tokens, a.cost_usd, a.settled
    FROM attempts AS a"""
ATTEMPTS = f"""{TRIED} JOIN messages AS m ON m.seq = a.message_seq
    WHERE m.id = ? ORDER BY a.number"""
ATTEMPTS_AT = f"{TRIED} WHERE a.message_seq = ? ORDER BY a.number"
# What may wait is not settled as an orphan, but taken up again.
ORPHANS = f"""{
    MESSAGE.replace("SELECT", "SELECT seq,").replace(
        "conversation_id",
        "conversation_id, (SELECT count(*) FROM attempts WHERE message_seq = seq)",
    )
}
    WHERE state = 'accepted' AND NOT parks AND owner = ? ORDER BY seq"""
OWNERS = "SELECT DISTINCT owner FROM messages WHERE state = 'accepted' AND NOT parks"
CLAIM = "UPDATE messages SET owner = ? WHERE state = 'accepted' AND NOT parks AND owner = ?"
KEPT = MESSAGE.replace(
    "SELECT",
    """SELECT seq, state, owner, idempotency_key, options, parks, tries, due_at, model,
        finish_reason, maybe_duplicate,""",
)
KEPT_BY_ID = f"{KEPT} WHERE id = ?"
KEPT_BY_KEY = f"{KEPT} WHERE idempotency_key = ?"
KEPT_AT = f"{KEPT} WHERE seq = ?"
PARKED = f"""{KEPT}
    WHERE state IN ('parked', 'dead') OR state = 'accepted' AND parks ORDER BY seq LIMIT ?"""
DUE = "SELECT seq FROM messages WHERE state = 'parked' AND due_at <= ? ORDER BY due_at LIMIT ?"
NEXT_DUE = "SELECT due_at FROM messages WHERE state = 'parked' ORDER BY due_at LIMIT 5"
PARKING_OWNERS = "SELECT DISTINCT owner FROM messages WHERE state = 'accepted' AND parks"
LEFT = "SELECT seq FROM messages WHERE state = 'accepted' AND parks AND owner = ? ORDER BY seq"
SPEND = """
    INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET calls = calls + excluded.calls,
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens,
        cost_usd = cost_usd + excluded.cost_usd, unpriced = unpriced + excluded.unpriced,
        unsettled = unsettled + excluded.unsettled,
        unsettled_usd = unsettled_usd + excluded.unsettled_usd"""
_COSTS = """count(*), sum(a.prompt_tokens), sum(a.completion_tokens),
        coalesce(sum(a.cost_usd), 0.0), sum(a.cost_usd IS NULL), sum(NOT a.settled),
        coalesce(sum(CASE WHEN a.settled THEN 0.0 ELSE a.cost_usd END), 0.0)
    FROM messages AS m JOIN attempts AS a ON m.seq = a.message_seq"""
# What is under way is not in the sums yet.
_OPEN = "m.state = 'accepted' AND a.number > m.counted"
SPENDING = f"""
    SELECT day, provider, model, sum(calls), sum(prompt_tokens), sum(completion_tokens),
        sum(cost_usd), sum(unpriced), sum(unsettled), sum(unsettled_usd)
    FROM (
        SELECT * FROM spending
        UNION ALL
        SELECT substr(a.at, 1, 10), a.provider, a.model, {_COSTS} WHERE {_OPEN} GROUP BY 1, 2, 3
    ) WHERE day >= ? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
SPENDING_OF_ONE = f"""
    SELECT substr(coalesce(a.at, m.asked_at), 1, 10) AS day, a.provider, a.model, {_COSTS}
    WHERE m.conversation_id = ? AND day >= ?
    GROUP BY day, a.provider, a.model ORDER BY day, a.provider, a.model"""
SPENT_ON = f"""
    SELECT coalesce((SELECT sum(cost_usd) FROM spending WHERE day = ?1), 0.0) + coalesce((
        SELECT sum(a.cost_usd) FROM messages AS m JOIN attempts AS a ON m.seq = a.message_seq
        WHERE {_OPEN} AND a.at >= ?1), 0.0)"""
SPENT_IN = """
    SELECT coalesce(sum(a.cost_usd), 0.0)
    FROM messages AS m JOIN attempts AS a ON m.seq = a.message_seq
    WHERE m.conversation_id = ?"""
PRUNE_MESSAGES = """
    DELETE FROM messages WHERE seq IN (
        SELECT seq FROM messages
        WHERE state IN ('settled', 'dead') AND asked_at < ? LIMIT ?)"""
PRUNE_EVENTS = """
    DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE at < ? LIMIT ?)"""
PRUNE_SNAPSHOTS = """
    DELETE FROM snapshots WHERE owner IN (SELECT owner FROM snapshots WHERE at < ? LIMIT ?)"""
PRUNE_COMMANDS = """
    DELETE FROM commands WHERE id IN (SELECT id FROM commands WHERE at < ? LIMIT ?)"""
EVENTS = "SELECT body FROM events"
SETTING = "SELECT value FROM settings WHERE name = ?"
KEEP_SETTING = "INSERT OR REPLACE INTO settings VALUES (?, ?)"
FORGET_SETTING = "DELETE FROM settings WHERE name = ?"
KEEP_SNAPSHOT = "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)"
SNAPSHOTS = "SELECT owner, held_by, at, body FROM snapshots ORDER BY at DESC"
POST_COMMAND = "INSERT INTO commands (owner, name, body, at) VALUES (?, ?, ?, ?)"
WAITING_COMMANDS = """
    SELECT id, name, body FROM commands WHERE owner = ? AND state = 'waiting' ORDER BY id"""
TAKE_COMMANDS = "UPDATE commands SET state = 'taken' WHERE owner = ? AND state = 'waiting'"
ANSWER_COMMAND = "UPDATE commands SET state = ?, answer = ? WHERE id = ? AND state = 'taken'"
COMMAND = "SELECT state, answer FROM commands WHERE id = ?"
REMEMBER = """
    INSERT INTO memories (id, type, conversation_id, at, body, text, indexed)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"""
MEMORIES = "SELECT id, type, conversation_id, at, body, text FROM memories"
CREATE_INDEX = """
    CREATE VIRTUAL TABLE memory_words
    USING fts5 (words, tokenize = 'ascii', detail = 'none', columnsize = 0)"""
INDEX_EXISTS = "SELECT 1 FROM sqlite_master WHERE name = 'memory_words'"
INDEX = "INSERT INTO memory_words (rowid, words) VALUES (?, ?)"
UNINDEX = "DELETE FROM memory_words WHERE rowid = ?"
IN_INDEX = """seq IN (
        SELECT rowid FROM memory_words WHERE memory_words MATCH ?
        UNION ALL
        SELECT seq FROM memories WHERE NOT indexed AND holds_words(text))"""
IN_TEXT = "holds_words(text)"
MEMORY_SPAN = """
    SELECT coalesce((SELECT max(seq) FROM memories) - (SELECT min(seq) FROM memories) + 1, 0)"""
COUNT_MEMORIES = "SELECT count(*) FROM memories"
FIRST_MEMORIES = "SELECT seq FROM memories ORDER BY seq LIMIT ?"
OLD_MEMORIES = "SELECT seq FROM memories WHERE at < ? LIMIT ?"
FORGET_MEMORY = "DELETE FROM memories WHERE seq = ?"
LOST_WORDS = """
    SELECT id FROM memories
    WHERE indexed AND seq NOT IN (SELECT rowid FROM memory_words) LIMIT ?"""

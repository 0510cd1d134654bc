"""What `SqliteStore` says to SQLite. `schema/` has the tables.

Text that never changes, so that each statement is compiled once. `turn IS NOT NULL` looks idle
and is not: without it SQLite may not use the index that leaves the other rows out.
"""

ACCEPT = """
    INSERT INTO messages
        (id, conversation_id, sender, provider, content, asked_at, owner, state)
    VALUES (?, ?, ?, ?, ?, ?, ?, 'accepted')"""
BEGIN_ATTEMPT = """
    INSERT INTO attempts (message_seq, number, provider, model, remedy) VALUES (?, ?, ?, ?, ?)"""
FIND = """
    SELECT seq, state, conversation_id, (SELECT count(*) FROM attempts WHERE message_seq = seq)
    FROM messages WHERE id = ?"""
NEXT_TURN = """
    SELECT coalesce(max(turn), 0) + 1 FROM messages
    WHERE conversation_id = ? AND turn IS NOT NULL"""
SETTLE = """
    UPDATE messages SET state = 'settled', provider = ?, response = ?, response_time = ?,
        error = ?, settled_at = ?, turn = ?
    WHERE seq = ?"""
ATTEMPT = "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
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
ATTEMPTS = """
    SELECT a.provider, a.model, coalesce(a.outcome, ''), coalesce(a.seconds, 0.0), a.remedy,
        a.error
    FROM attempts AS a JOIN messages AS m ON m.seq = a.message_seq
    WHERE m.id = ? ORDER BY a.number"""
ORPHANS = f"""
    SELECT m.*, (SELECT count(*) FROM attempts WHERE message_seq = seq)
    FROM ({MESSAGE.replace("SELECT", "SELECT seq, owner, state,")}) AS m
    WHERE state = 'accepted' AND owner = ? ORDER BY seq"""
OWNERS = "SELECT DISTINCT owner FROM messages WHERE state = 'accepted'"
CLAIM = "UPDATE messages SET owner = ? WHERE state = 'accepted' AND owner = ?"
PRUNE_MESSAGES = """
    DELETE FROM messages WHERE seq IN (
        SELECT seq FROM messages WHERE state = 'settled' AND asked_at < ? LIMIT ?)"""
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

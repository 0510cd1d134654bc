"""What can be wrong with a database file, asked of the file itself."""

import sqlite3
from contextlib import closing
from typing import Final

_SHOWN = 5  # rows of one kind that are named

# What SQLite's own checks cannot know. Each query finds messages that must not be.
_LAWS: Final = {
    "settled without response or error": """
        SELECT id FROM messages
        WHERE state = 'settled' AND (settled_at IS NULL OR response IS NULL AND error IS NULL)""",
    "not settled, but with an outcome": """
        SELECT id FROM messages
        WHERE state = 'accepted' AND (settled_at IS NOT NULL OR response IS NOT NULL
            OR error IS NOT NULL OR turn IS NOT NULL)""",
    "answered in a conversation, but missing in its history": """
        SELECT id FROM messages
        WHERE response IS NOT NULL AND conversation_id IS NOT NULL AND turn IS NULL""",
    "in a history without an answer": """
        SELECT id FROM messages
        WHERE turn IS NOT NULL AND (response IS NULL OR conversation_id IS NULL)""",
    "not under way, with an attempt that still runs": """
        SELECT DISTINCT id FROM messages JOIN attempts ON message_seq = seq
        WHERE state <> 'accepted' AND outcome IS NULL""",
    "waiting without a time or a reason, or with an answer": """
        SELECT id FROM messages
        WHERE state IN ('parked', 'dead') AND (response IS NOT NULL OR error IS NULL
            OR turn IS NOT NULL OR (state = 'parked') <> (due_at IS NOT NULL))""",
    "to be taken up, but not parked": """
        SELECT id FROM messages WHERE due_at IS NOT NULL AND state <> 'parked'""",
}


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return a sentence for everything that is wrong; [] when nothing is."""
    found = damage(connection)
    for law, query in _LAWS.items():
        ids = [id for (id,) in connection.execute(f"{query} LIMIT {_SHOWN + 1}")]
        if ids:
            more = " and more" if len(ids) > _SHOWN else ""
            found.append(f"messages {law}: {', '.join(map(repr, ids[:_SHOWN]))}{more}")
    return found


def damage(connection: sqlite3.Connection) -> list[str]:
    """Return what is wrong with the file itself, whatever its tables are for."""
    with closing(connection.execute("PRAGMA integrity_check")) as rows:
        found = [f"integrity: {problem}" for (problem,) in rows if problem != "ok"]
    with closing(connection.execute("PRAGMA foreign_key_check")) as rows:
        return found + [f"row {row} of {table} belongs to no {of}" for table, row, of, _ in rows]

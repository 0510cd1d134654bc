"""Where a bus keeps what it must not lose; `ports.Store` is the contract."""

from zejzl.stores.inmemory import InMemoryStore
from zejzl.stores.sqlite import SqliteStore

__all__ = ["InMemoryStore", "SqliteStore"]

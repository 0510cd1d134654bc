"""One file, several stores in one process, another process that comes and goes."""

import asyncio
import sys
from pathlib import Path

from zejzl.messages import Message
from zejzl.stores import SqliteStore

VISITOR = """
import asyncio, sys
from zejzl.stores import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    print(len(await store.messages()))
    await store.close()

asyncio.run(main())
"""


async def visit(path: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VISITOR, str(path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return int(out)


async def test_a_second_store_in_a_process_does_not_give_the_locks_of_the_first_away(
    tmp_path: Path,
) -> None:
    path = tmp_path / "z.db"
    first, second = SqliteStore(path), SqliteStore(path)
    await first.open()
    await first.accept(Message.create("one", "me", "a"), "a", "m")
    await second.open()

    seen = [await visit(path)]
    await first.accept(Message.create("two", "me", "a"), "a", "m")
    seen.append(await visit(path))

    assert seen == [1, 2]
    await second.close()
    await first.close()

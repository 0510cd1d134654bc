"""How fast the Learner takes events in, how much memory it needs, how long a report takes.

    python bench/learner.py            100 events at a time, then 10⁵ and 10⁶
    python bench/learner.py --long     10⁷ too
    python bench/learner.py --others   the same tables by Polars, DuckDB and pm4py, where installed

CPU time of one process, one run; the events are made outside the time. Each size has a process of
its own, so that its memory is its own: `grown` is the peak above that after the imports, and holds
the 16,384 events that are handed over at a time.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random
from statistics import median
from time import process_time

from machine import print_machine

from zejzl.learning.mining import Miner

PORTION = 16_384
STEPS = ("observation", "plan", "execution", "validation", "executor")
DATA: tuple[Callable[[Random], dict[str, object]], ...] = (
    lambda chance: {"text": "look at it"},
    lambda chance: {"steps": chance.randrange(1, 5)},
    lambda chance: {"tool": chance.choice(("search", "read", "count"))},
    lambda chance: {"is_valid": chance.random() < 0.9},
    lambda chance: {"status": "completed" if chance.random() < 0.95 else "failed"},
)

Event = dict[str, object]


def bus_events(size: int, *, seed: int = 1) -> Iterator[Event]:
    """Yield events of runs that overlap, 40 at a time; a step is done again one time in six."""
    chance = Random(seed)
    under_way: list[tuple[str, int]] = []
    begun, at = 0, 1_700_000_000.0
    for _ in range(size):
        if len(under_way) < 40:
            under_way.append((f"run-{begun}", 0))
            begun += 1
        place = chance.randrange(len(under_way))
        case, step = under_way[place]
        at += chance.random()
        yield {
            "type": STEPS[step],
            "conversation_id": case,
            "timestamp": at,
            "agent": f"{STEPS[step]}-agent",
            "data": DATA[step](chance),
        }
        if step == len(STEPS) - 1:
            under_way[place] = under_way[-1]
            under_way.pop()
        elif chance.random() > 1 / 6:
            under_way[place] = (case, step + 1)


def portions(size: int) -> Iterator[list[Event]]:
    events = bus_events(size)
    for start in range(0, size, PORTION):
        yield [next(events) for _ in range(min(PORTION, size - start))]


def peak_mb() -> float:
    """Return the most memory that this process had."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage tells of the parent's too, on Linux
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def hundred() -> None:
    """Print the time of 100 events, learned by a miner that knows the log already."""
    events = [*bus_events(60_000)]
    miner = Miner(vectors=False)
    miner.learn(events[:10_000])
    took = []
    for start in range(10_000, len(events), 100):
        portion = events[start : start + 100]
        began = process_time()
        miner.learn(portion)
        took.append(process_time() - began)
    took.sort()
    print(f"100 events, plain Python: median {1000 * median(took):.3f} ms, ", end="")
    print(f"best {1000 * took[0]:.3f} ms, mean {1000 * sum(took) / len(took):.3f} ms")


def still_open() -> None:
    """Print the times of reports while 20,000 cases are open: the first, then after 100 events."""
    miner = Miner()
    miner.learn(event for event in bus_events(130_000) if event["type"] != "executor")
    took: list[float] = []
    place = 0
    for _ in range(20):
        began = process_time()
        miner.patterns()
        took.append(1000 * (process_time() - began))
        cases = [*miner.open.values()][place : place + 100]
        place += 100
        miner.learn(
            {
                "type": "validation",
                "conversation_id": held.case,
                "timestamp": held.times()[-1] / 1e6 + 1,
                "agent": "validation-agent",
                "data": {"is_valid": True},
            }
            for held in cases
        )
    variants = len(miner.patterns().variants)
    print(
        f"{len(miner.open):,} open cases of {variants} variants: first report {took[0]:.1f} ms, ",
        end="",
    )
    print(f"after 100 more events median {median(took[1:]):.1f} ms, best {min(took[1:]):.1f} ms")


def child(size: int, vectors: bool) -> None:
    """Learn so many events and print the figures as JSON."""
    miner = Miner(vectors=vectors)
    if vectors:
        miner.learn([*bus_events(PORTION, seed=2)])  # numpy is imported by this
        miner = Miner(vectors=vectors)
    gc.collect()
    before, took = peak_mb(), 0.0
    for portion in portions(size):
        began = process_time()
        miner.learn(portion)
        took += process_time() - began
    began = process_time()
    patterns = miner.patterns()
    report = process_time() - began
    began = process_time()
    miner.patterns()
    again = process_time() - began
    print(
        json.dumps(
            {
                "rate": size / took,
                "grown": peak_mb() - before,
                "peak": peak_mb(),
                "report": 1000 * report,
                "again": 1000 * again,
                "variants": len(patterns.variants),
                "cases": patterns.cases,
            }
        )
    )


def sizes(long: bool) -> None:
    """Print a row for each size, with and without numpy."""
    print(f"{'events':>10} {'by':>6} {'events/s':>10} {'grown MB':>9} {'peak MB':>8} ", end="")
    print(f"{'report ms':>10} {'again ms':>9} {'variants':>9}")
    for size in [10**5, 10**6, *([10**7] if long else [])]:
        for by in ("plain", *(["numpy"] if find_spec("numpy") else [])):
            command = [sys.executable, __file__, "--child", str(size), by]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout)
            print(f"{size:>10,} {by:>6} {row['rate']:>10,.0f} {row['grown']:>9.1f} ", end="")
            print(f"{row['peak']:>8.1f} {row['report']:>10.2f} {row['again']:>9.2f} ", end="")
            print(f"{row['variants']:>9,}", flush=True)


def timed(name: str, size: int, work: Callable[[], int]) -> None:
    began = process_time()
    edges = work()
    took = process_time() - began
    print(f"{name:>10} {size / took:>12,.0f} events/s, {edges} edges", flush=True)


def others(size: int) -> None:
    """Print how fast others count edges and variants of the same events; from dicts, as here."""
    events = [
        {name: event[name] for name in ("type", "conversation_id", "timestamp")}
        for event in bus_events(size)
    ]
    timed("zejzl", size, lambda: by_zejzl(events))
    for name, work in (("polars", by_polars), ("duckdb", by_duckdb), ("pm4py", by_pm4py)):
        if find_spec(name):
            timed(name, size, lambda work=work: work(events))  # type: ignore[misc]
        else:
            print(f"{name:>10} is not installed")


def by_zejzl(events: list[Event]) -> int:
    miner = Miner()
    miner.learn({**event, "data": {}} for event in events)
    return len(miner.patterns().edges)


def by_polars(events: list[Event]) -> int:
    import polars as pl  # type: ignore[import-not-found, unused-ignore]

    frame = pl.DataFrame(events).sort("conversation_id", "timestamp", maintain_order=True)
    following = frame.with_columns(
        pl.col("type").shift(-1).over("conversation_id").alias("next"),
        (pl.col("timestamp").shift(-1).over("conversation_id") - pl.col("timestamp")).alias("took"),
    ).filter(pl.col("next").is_not_null())
    edges = following.group_by("type", "next").agg(
        pl.len().alias("n"),
        pl.col("took").mean().alias("mean"),
        pl.col("took").quantile(0.5).alias("p50"),
        pl.col("took").quantile(0.95).alias("p95"),
    )
    ways = frame.group_by("conversation_id", maintain_order=True).agg(pl.col("type"))
    ways.group_by("type").len()
    return len(edges)


def by_duckdb(events: list[Event]) -> int:
    import duckdb  # type: ignore[import-not-found, unused-ignore]

    base = duckdb.connect()
    base.execute("create table log (type varchar, conversation_id varchar, timestamp double)")
    if find_spec("polars"):
        import polars as pl  # type: ignore[import-not-found, unused-ignore]

        frame = pl.DataFrame(events)
        base.register("frame", frame.to_arrow())
        base.execute("insert into log select type, conversation_id, timestamp from frame")
    else:
        base.executemany(
            "insert into log values (?, ?, ?)", [[*event.values()] for event in events]
        )
    edges = base.execute(
        "select type, next, count(*), avg(took), quantile_cont(took, [0.5, 0.95]) from ("
        " select type, lead(type) over w as next, lead(timestamp) over w - timestamp as took"
        " from log window w as (partition by conversation_id order by timestamp)"
        ") where next is not null group by all"
    ).fetchall()
    base.execute(
        "select way, count(*) from (select list(type order by timestamp) as way from log"
        " group by conversation_id) group by way"
    ).fetchall()
    return len(edges)


def by_pm4py(events: list[Event]) -> int:
    import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import pm4py  # type: ignore[import-not-found, import-untyped, unused-ignore]

    frame = pd.DataFrame(events)
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="s", utc=True)
    names = {"conversation_id": "case:concept:name", "type": "concept:name"}
    frame = frame.rename(columns={**names, "timestamp": "time:timestamp"})
    pm4py.discover_performance_dfg(frame)
    pm4py.get_variants(frame)
    return len(pm4py.discover_dfg(frame)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--long", action="store_true", help="10⁷ events too")
    parser.add_argument("--others", action="store_true", help="compare with what is installed")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(int(asked.child[0]), asked.child[1] == "numpy")
        return
    print_machine()
    if asked.others:
        others(10**6)
        return
    hundred()
    still_open()
    sizes(asked.long)


if __name__ == "__main__":
    main()

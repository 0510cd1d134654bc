"""What a circuit breaker costs: a good call, a refusal, its memory.

    .venv/bin/python bench/breaker.py [ROUNDS]

A good call is measured against a bare await of the same function, the two taking turns within one
run; figures are medians over the rounds, less what an empty loop takes. Compare ratios between
machines, not nanoseconds. Memory is what tracemalloc counts for 10,000 breakers that share one
configuration, as those of a program do.
"""

import asyncio
import gc
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from zejzl.errors import CircuitOpen
from zejzl.magic.breakers import CircuitBreaker, CircuitBreakerConfig
from zejzl.policies.breaker import Breaker
from zejzl.policies.breaker_rules import BreakerRules

CALLS = 1_000  # per round
BREAKERS = 10_000
GOALS = {
    "good call": "goal 600 over it",
    "refusal, raised": "goal 1,200",
    "refusal, by token": "goal 200",
    "healthy": "goal 320",
    "with a window": "goal 450",
}  # nanoseconds; bytes


async def nothing() -> None:
    pass


def kinds() -> dict[str, Callable[[], Awaitable[None]]]:
    """Return what is measured: each makes CALLS calls of its kind."""
    config = CircuitBreakerConfig(recovery_timeout=3600.0)
    closed, faulty, shut = CircuitBreaker(), CircuitBreaker(), CircuitBreaker(config)
    policy = Breaker(BreakerRules())
    numbers, now = range(CALLS), time.monotonic()

    async def empty_loop() -> None:
        for _ in numbers:
            pass

    async def bare_await() -> None:
        for _ in numbers:
            await nothing()

    async def good_call() -> None:
        for _ in numbers:
            await closed.call(nothing)

    async def good_call_with_window() -> None:
        for number in numbers:
            if number % 50 == 0:  # without a failure among the last 64 there is no window
                faulty.fail(faulty.rule.generation, RuntimeError())
            await faulty.call(nothing)

    async def good_block() -> None:
        for _ in numbers:
            async with closed:
                await nothing()

    async def good_in_policy() -> None:
        acquire, ok = policy.try_acquire, policy.ok
        for _ in numbers:
            token = acquire(now)
            if token.__class__ is int:
                ok(token, now)

    async def refused_by_token() -> None:
        acquire = shut.rule.try_acquire
        for _ in numbers:
            acquire(now)

    async def refused_raised() -> None:
        for _ in numbers:
            try:
                await shut.call(nothing)
            except CircuitOpen:
                continue

    for _ in range(3):
        shut.fail(shut.rule.generation, ValueError("it broke"))
    return {
        "empty loop": empty_loop,
        "bare await": bare_await,
        "good call": good_call,
        "good call, one in 50 failing": good_call_with_window,
        "good block": good_block,
        "policy: try_acquire and ok": good_in_policy,
        "refusal, by token": refused_by_token,
        "refusal, raised": refused_raised,
    }


async def measure(rounds: int) -> dict[str, float]:
    """Return the nanoseconds of one call of each kind, the kinds taking turns."""
    all_kinds = kinds()
    taken: dict[str, list[float]] = {what: [] for what in all_kinds}
    for _ in range(rounds):
        for what, calls in all_kinds.items():
            started = time.perf_counter_ns()
            await calls()
            taken[what].append((time.perf_counter_ns() - started) / CALLS)
    return {what: median(each) for what, each in taken.items()}


def weigh(make: Callable[[], object]) -> float:
    """Return the bytes that each of many takes."""
    kept: list[object] = [None] * BREAKERS
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for place in range(BREAKERS):
        kept[place] = make()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / BREAKERS


def weights() -> dict[str, float]:
    rules, config = BreakerRules(), CircuitBreakerConfig()
    failure = ValueError("it broke")

    def policy_with_window() -> Breaker:
        breaker = Breaker(rules)
        breaker.fail(breaker.generation, 0.0)
        return breaker

    def whole_with_window() -> CircuitBreaker:
        breaker = CircuitBreaker(config)
        breaker.fail(breaker.rule.generation, failure)
        return breaker

    return {
        "policy, healthy": weigh(lambda: Breaker(rules)),
        "policy, with a window": weigh(policy_with_window),
        "CircuitBreaker, healthy": weigh(lambda: CircuitBreaker(config)),
        "CircuitBreaker, with a window, a time and an error text": weigh(whole_with_window),
    }


def goal_of(what: str) -> str:
    return next((goal for name, goal in GOALS.items() if what.endswith(name)), "")


def context() -> str:
    root = Path(__file__).resolve().parents[1]
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, commit {commit.stdout.strip() or 'none'}, "
        f"command: python bench/breaker.py {' '.join(sys.argv[1:])}".rstrip()
    )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    figures = asyncio.run(measure(rounds))
    loop = figures.pop("empty loop")
    bare = figures["bare await"] - loop
    print(context())
    print(f"\nmedians of {rounds} rounds of {CALLS:,} calls, in nanoseconds")
    for what, whole in figures.items():
        spent = whole - loop
        over = f"{spent - bare:6,.0f} over it" if what.startswith("good") else ""
        print(f"  {what:<30}{spent:6,.0f}{spent / bare:6.2f} × bare {over:<15}{goal_of(what)}")
    print(f"\nbytes each, of {BREAKERS:,}")
    for what, size in weights().items():
        print(f"  {what:<58}{size:4,.0f}  {goal_of(what)}")


if __name__ == "__main__":
    main()

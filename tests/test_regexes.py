"""A stranger's regular expression is matched quickly or refused: the matcher cannot be stopped."""

import subprocess
import sys

import pytest

from zejzl.agents.regexes import check_pattern, matches

# In a process of its own: a matcher that hangs holds the interpreter's lock, and no signal ends it.
ONE = """
import sys
from zejzl.agents.regexes import matches
try:
    print(matches(sys.argv[1], sys.argv[2]))
except ValueError as problem:
    print("refused:", problem)
"""
MANY = """
import random, sys, time, warnings
from zejzl.agents.regexes import matches
warnings.simplefilter("ignore")
chance, until = random.Random(int(sys.argv[1])), time.monotonic() + 4.0
ATOMS = ["a", "b", ".", "[ab]", "^", "$", r"\\b", r"\\w", "", "a*", "a?", "a{0}", "a+?", "(?i:A)"]
REPEATS = ["*", "+", "?", "{1}", "{0,1}", "{2}", "{9}", "{999}", "{99999999}", "{0}", "{3,}", "*?",
           "{0,9}", "*+"]
FORMS = ["(%s)", "(?:%s)", "(?:%s|a)", "(?:a|%s)", "(?>%s)", "(?=%s)", "(?<!%s)", "(?P<n>%s)"]
def made(depth):
    parts = []
    for _ in range(chance.randint(1, 5)):
        part = chance.choice(ATOMS)
        if depth and chance.random() < 0.6:
            part = chance.choice(FORMS) % made(depth - 1)
            if chance.random() < 0.7:
                part += chance.choice(REPEATS)
        parts.append(part)
    return "".join(parts)
matched = slowest = 0
while time.monotonic() < until:
    pattern = made(chance.randint(0, 4))
    if chance.random() < 0.3:
        pattern *= chance.randint(2, 12)
    text = "a" * chance.choice([4, 30, 200, 3000]) + chance.choice(["", "b", "c"])
    print(repr(pattern), len(text), file=sys.stderr, flush=True)
    started = time.process_time()
    try:
        matches(pattern, text)
        matched += 1
    except ValueError:
        pass
    slowest = max(slowest, time.process_time() - started)
print(matched, slowest)
"""


def told(script: str, *words: str) -> str:
    """Return what a script prints; fail if it takes longer than anything here may."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, timeout=9.0, text=True
        )
    except subprocess.TimeoutExpired as late:
        last = (late.stderr or b"").decode().splitlines()[-1:]
        pytest.fail(f"no end: {last or words}")
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(?:(?:(?:^){999}){999}){99}a*", "aaaa"),
        ("(?:a{0}){4294967290}a*", "aaaa"),
        ("((((b{0}){99}){99}){99}){99}a*", "aaaa"),
        (r"(?:(?:\b){9999999}){99}a*", "aaaa"),
        ("(?:(?:){9999999}){99}a*", "aaaa"),
        ("(?:a*a*a*a*a*a*a*a*a*a*)?b", "a" * 200),
        ("(?:a*a*a*a*a*a*a*a*a*a*){1}b", "a" * 200),
        ("(?:a*a*a*a*a*a*a*a){0,1}b", "a" * 200),
        ("(?:a*a*a*a*a*a*a*a)??b", "a" * 200),
        ("(?i:a*a*a*a*a*a*a*a)b", "a" * 200),
        ("(?:a|a)" * 28 + "b", "a" * 200),
        ("(?:a|ab?)" * 22 + "c", "ab" * 100),
        ("a?" * 99 + "b", "a" * 99),
        ("(?:(?:(?:(?:a*)?a*)?a*)?a*)?a*a*a*b", "a" * 200),
    ],
)
def test_a_pattern_that_would_take_for_ever_is_refused(pattern: str, text: str) -> None:
    assert "refused: pattern" in told(ONE, pattern, text)


def test_no_pattern_that_is_matched_takes_long() -> None:
    matched, slowest = told(MANY, "1").split()

    assert int(matched) > 100
    assert float(slowest) < 2.0


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[0-9a-f]{64}", "0" * 64),
        (r"(?:\d{4})-(?:\d{2})-(?:\d{2})", "2026-11-22"),
        (r"-?\d+(\.\d+)?", "-12.50"),
        ("(yes|no)( please)?", "yes please"),
        ("(?i)ok", "OK"),
        (r"\w+@\w+\.[a-z]{2,9}", "somebody@somewhere.org"),
        ("(?:ab){3}", "ababab"),
        ("(?:(?:ab){2}c){2}", "ababcababc"),
        (".*", "x" * 1_000_000),
        ("(?:ab)*", "ab" * 1_000),
    ],
)
def test_what_is_usual_is_matched(pattern: str, text: str) -> None:
    assert matches(pattern, text)
    assert not matches(pattern, f"{text}\n")


@pytest.mark.parametrize("pattern", ["(?:a?){2}", "(?:^)*", r"(?:\b){3}", "(?:a{0}){9}", "(){2}"])
def test_what_may_be_empty_is_not_repeated(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"what may be empty|a repeat within"):
        check_pattern(pattern)


def test_a_cost_beyond_every_number_is_refused_as_any_other() -> None:
    with pytest.raises(ValueError, match="could take"):
        matches("a*" * 99, "a" * 1_000_000)

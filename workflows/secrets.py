"""Keys that should not be in files: their shapes, where they are looked for, how they are told.

A key found is never told whole: its first characters, its length and its place are enough to find
it. What only looks like a key – an example, a counting row of characters, a word in capitals – is
passed over, so that every line that is told deserves a look.
"""

import math
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Facts about each vendor's keys, from its own documents and the prefixes it has registered with
# secret scanning.
SHAPES = {
    "Anthropic key": r"sk-ant-[a-z0-9]{3,8}-[A-Za-z0-9_-]{24,}",
    "OpenAI key": r"sk-(?!ant-)(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{24,}",
    "Google key": r"AIza[A-Za-z0-9_-]{35}",
    "xAI key": r"xai-[A-Za-z0-9]{40,}",
    "Groq key": r"gsk_[A-Za-z0-9]{40,}",
    "Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
    "GitHub token": r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    "AWS key id": r"(?:AKIA|ASIA)[A-Z2-7]{16}",
    "Slack token": r"xox[abeprs]-[A-Za-z0-9-]{20,}",
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
}
FINDER = re.compile(
    "|".join(
        f"(?P<k{number}>(?<![A-Za-z0-9_-]){shape})" for number, shape in enumerate(SHAPES.values())
    )
)
NAMES = list(SHAPES)
MADE_UP = re.compile(
    r"test|example|fake|dummy|secret|your|invalid|not-a|01234|12345|abcd|xxxx|(.)\1{5}", re.I
)
LEAST_BITS = 3.2  # a character; words and repetition have fewer, keys drawn by chance have more
LONGEST_LINE = 20_000  # characters; what is longer was made by a program


@dataclass(frozen=True, slots=True)
class Found:
    """Something that looks like a key, and where it is."""

    kind: str
    place: str
    shown: str

    def __str__(self) -> str:
        return f"{self.kind} {self.shown} in {self.place}"


def keys_in(text: str, place: str) -> Iterator[Found]:
    """Yield what looks like a real key in a line."""
    for match in FINDER.finditer(text[:LONGEST_LINE]):
        kind = NAMES[int(str(match.lastgroup)[1:])]
        key = match.group()
        if kind == "private key":
            yield Found(kind, place, "(its first line)")
        elif not MADE_UP.search(key) and _bits(key) >= LEAST_BITS:
            yield Found(kind, place, f"{key[:6]}… ({len(key)} characters)")


def in_tree(root: Path, names: Iterable[str]) -> list[Found]:
    """Return the keys in files, by their names in the project."""
    found: list[Found] = []
    for name in names:
        path = root / name
        if not path.is_file() or path.is_symlink():
            continue
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                found += keys_in(line, f"{name}:{number}")
    return found


def in_history(root: Path) -> list[Found]:
    """Return the keys in lines that any commit of any branch added.

    Raises:
        OSError: If git cannot tell.
    """
    command = ["git", "log", "--all", "-p", "-U0", "--no-color", "--no-ext-diff", "--no-textconv"]
    command += ["--format=commit %h", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/"]
    found: list[Found] = []
    commit = name = ""
    with subprocess.Popen(
        command,
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("commit "):
                commit = line.split()[1]
            elif line.startswith("+++ "):
                name = line[6:].strip()
            elif line.startswith("+"):
                found += keys_in(line, f"{name} of commit {commit}")
    if process.returncode:
        raise OSError(f"git log ended with exit code {process.returncode}")
    return found


def _bits(text: str) -> float:
    """Return the Shannon entropy of a text's characters."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values())

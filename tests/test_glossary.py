"""A fairy word is a row of the glossary, and occurs on no floor that outlives the story."""

import importlib
import re
from pathlib import Path

import pytest

from tests.tree import ROOT, SRC, label

PAGE = ROOT / "docs/glossary.md"
ROWS = re.findall(r"^\| (?!fairy word|---)(.+?) \| (.+?) \| `(.+?)` \|$", PAGE.read_text(), re.M)

# All of the house, those of later days too: none may slip into stored data before its row exists.
FAIRY = {"fairy", "magic", "energy", "acorn", "acorns", "shield", "spark", "sparks"}
FAIRY |= {"ritual", "rituals", "ward", "wards", "vitality", "mana", "blessing", "enchanted"}

# Words of the public surface of FairyMagic → the row that explains them.
EXPLAINED_BY = {
    "energy": "energy",
    "spark": "blue spark",
    "healing": "healing history",
    "magic": "FairyMagic",
    "fairy": "FairyMagic",
    "acorn": "acorn",
    "vitality": "acorn",
    "shield": "fairy shield",
    "ritual": "ritual",
    "ward": "ward",
    "wards": "ward",
    "preferences": "learning preferences",
}

PLAIN = sorted(
    path
    for place in ("policies", "learning", "stores", "providers")
    for path in SRC.glob(f"zejzl/{place}/**/*")
    if path.suffix in (".py", ".sql")
) + [SRC / f"zejzl/{module}.py" for module in ("errors", "events", "settings", "messages")]

# The contract gives HealingRecord this field, and HealingRecord is RecoveryRecorded; and it names
# this action of the Improver.
CONTRACT = {"src/zejzl/events.py": "energy_used", "src/zejzl/learning/change.py": "shield"}


def words(text: str) -> set[str]:
    """Return the lower-case words, those inside identifiers too."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    return {word.lower() for word in re.findall(r"[A-Za-z]+", apart)}


@pytest.mark.parametrize(("word", "home"), [(row[0], row[2]) for row in ROWS])
def test_what_a_row_points_to_exists(word: str, home: str) -> None:
    try:
        importlib.import_module(home)
    except ModuleNotFoundError:
        module, _, name = home.rpartition(".")
        assert hasattr(importlib.import_module(module), name), f"{word}: there is no {home}"


@pytest.mark.parametrize("word", [row[0] for row in ROWS])
def test_a_row_is_the_only_one_of_its_word(word: str) -> None:
    assert [row[0] for row in ROWS].count(word) == 1


def test_every_fairy_word_of_the_magic_surface_has_a_row() -> None:
    magic = importlib.import_module("zejzl.magic")
    surface = [*magic.__all__, *(name for name in dir(magic.FairyMagic) if name[0] != "_")]

    needed = {EXPLAINED_BY[word] for name in surface for word in words(name) & {*EXPLAINED_BY}}

    assert needed <= {row[0] for row in ROWS}


@pytest.mark.parametrize("path", PLAIN, ids=label)
def test_what_outlives_the_story_speaks_plainly(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace(CONTRACT.get(label(path), "\0"), "")

    assert not words(text) & FAIRY

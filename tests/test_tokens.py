"""Token counts: exact without a network, honest where not."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zejzl.engine import tokens


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Load the vocabulary anew, into a cache of the test's own."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "vocabulary"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("requests.get", _no_network)
    tokens._encoding.cache_clear()


def _no_network(*args: object, **kwargs: object) -> None:
    raise AssertionError("the network was asked")


async def test_counts_are_exact_and_ask_no_network() -> None:
    ids = await tokens.encode("hello world")
    counted = await tokens.count("hello world")

    assert ids == [24912, 2375]
    assert (counted.tokens, counted.exact, str(counted)) == (2, True, "2")


async def test_the_vocabulary_is_kept_for_the_next_time(tmp_path: Path) -> None:
    await tokens.count("hello")

    kept = os.listdir(tmp_path / "vocabulary")
    assert kept == ["fb374d419588a4632f3f557e76b4b70aebbca790"]


async def test_a_damaged_vocabulary_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    (folder / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(b"rubbish")

    assert await tokens.encode("hello world") == [24912, 2375]


async def test_without_a_cache_the_pure_vocabulary_counts_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")

    assert await tokens.encode("hello world") == [24912, 2375]


async def test_without_any_vocabulary_the_count_is_an_estimate_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "_encoding", lambda: None)

    counted = await tokens.count("hello world")

    assert (counted.tokens, counted.exact, str(counted)) == (3, False, "~3")
    assert await tokens.encode("hello") is None


@settings(max_examples=50)
@given(st.text())
def test_an_estimate_is_a_quarter_of_the_bytes_rounded_up(text: str) -> None:
    size = len(text.encode("utf-8", "replace"))

    assert tokens.estimate(text).tokens == (size + 3) // 4


async def test_special_words_are_counted_as_text() -> None:
    counted = await tokens.count("<|endoftext|>")

    assert counted.tokens > 1

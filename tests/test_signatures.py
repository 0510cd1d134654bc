import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.learning.signatures import LENGTH, signature


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("total price is 305, but paid 255", "total price is <n>, but paid <n>"),
        ("waited 1.5 s at 10:30:01", "waited <n> s at <n>"),
        ("flight HAT136 not available", "flight <id> not available"),
        ("object at 0x7f3a2b", "object at <id>"),
        ("request 123e4567-e89b-12d3-a456-426614174000 lost", "request <id> lost"),
        ("commit deadbeef12 not found", "commit <id> not found"),
        ("user 'Ann Lee' and \"Bob\"", "user <text> and <text>"),
        ("I don't know, you don't know", "I don't know, you don't know"),
        ("no file /var/log/app.log", "no file <path>"),
        ("GET https://example.org/x?y=1 failed", "GET <url> failed"),
        ("mail to ann@example.org bounced", "mail to <mail> bounced"),
        ("read/write error", "read/write error"),
        ("two\n  lines\tand tabs", "two lines and tabs"),
        ("ConnectError: refused", "ConnectError: refused"),
        ("", ""),
    ],
)
def test_what_varies_is_replaced(text: str, expected: str) -> None:
    assert signature(text) == expected


@given(st.text(), st.integers(0, 10**9), st.integers(0, 10**9))
def test_numbers_make_no_difference(word: str, one: int, other: int) -> None:
    said = "".join(filter(str.isalpha, word))

    assert signature(f"{said} {one} left") == signature(f"{said} {other} left")


@given(st.text(alphabet="ab1/.@'\"`:-x_ ", max_size=3000))
def test_a_signature_is_short_and_soon_made(text: str) -> None:
    assert len(signature(text)) <= LENGTH

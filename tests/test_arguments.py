"""The edge, as properties; `test_ai_framework.py` shows it through the bus."""

from hypothesis import given
from hypothesis import strategies as st

from zejzl.engine.arguments import checked_name, checked_text
from zejzl.errors import ZejzlError


@given(st.text())
def test_text_is_taken_as_it_is_or_refused_as_a_value(text: str) -> None:
    try:
        taken = checked_text("content", text)
    except ValueError as refused:
        assert not text.strip() or any("\ud800" <= char <= "\udfff" for char in text)
        assert not isinstance(refused, ZejzlError)
    else:
        assert taken == text


@given(st.text())
def test_a_name_is_kept_in_one_form_that_is_safe_to_show(text: str) -> None:
    try:
        name = checked_name(text)
    except ValueError:
        return

    assert name == checked_name(name) == name.strip().lower()
    assert name.isprintable() and not set(name) & set("/: \t\n[]")

"""How a request is asked is kept with it, and read back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zejzl.engine.options import USUAL, Options
from zejzl.ports import USUAL_TERMS

OPTIONS = st.builds(
    Options,
    provider=st.none() | st.text(),
    model=st.none() | st.text(),
    system=st.none() | st.text(),
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=st.none() | st.floats(0, 2),
    deadline=st.none() | st.floats(0.1, 100),
    patience=st.none() | st.floats(0, 100),
    failover=st.none() | st.booleans() | st.lists(st.text()),
    criticality=st.sampled_from(["normal", "critical"]),
)


@given(OPTIONS, st.booleans())
def test_what_is_kept_is_read_back_as_it_was(options: Options, streamed: bool) -> None:
    assert Options.from_json(options.to_json(streamed=streamed)) == options


def test_what_is_as_usual_is_not_written_down() -> None:
    assert USUAL.to_json() is None
    assert USUAL.terms(None, False) is USUAL_TERMS
    assert Options(max_tokens=5).to_json() == '{"max_tokens": 5}'


def test_that_an_answer_was_streamed_is_kept_for_the_record() -> None:
    assert USUAL.to_json(streamed=True) == '{"stream": true}'
    assert Options(max_tokens=5).to_json(streamed=True) == '{"max_tokens": 5, "stream": true}'


@pytest.mark.parametrize("text", ['{"colour": 1}', "[]", "5", '"x"', "{broken"])
def test_what_is_none_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Options.from_json(text)

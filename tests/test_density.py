"""How many tokens a text will be counted as is learned from counts."""

from hypothesis import given
from hypothesis import strategies as st

from zejzl.policies.density import PER_BYTE, USUAL_ANSWER, Density


def test_before_anything_was_counted_four_bytes_are_a_token() -> None:
    density = Density()

    assert density.prompt_tokens(4_000) == 4_000 * PER_BYTE
    assert density.answer_tokens(400) == 400 * PER_BYTE
    assert density.usual == USUAL_ANSWER


def test_questions_and_answers_are_learned_apart() -> None:
    density = Density()
    for _ in range(300):
        density.asked(1_000, 500)
        density.answered(1_000, 100)

    assert density.prompt_tokens(1_000) == 500
    assert density.answer_tokens(1_000) == 100


def test_the_usual_length_follows_the_answers() -> None:
    density = Density()

    density.answered(40, 10)
    first = density.usual
    for _ in range(400):
        density.answered(40, 30)

    assert (first, round(density.usual)) == (10, 30)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.05, 2.0)), min_size=1, max_size=50),
    st.integers(0, 10**7),
)
def test_an_estimate_lies_between_the_least_and_the_most_that_was_seen(
    seen: list[tuple[int, float]], octets: int
) -> None:
    density = Density()
    for size, ratio in seen:
        density.asked(size, round(size * ratio))
    ratios = [round(size * ratio) / size for size, ratio in seen] + [PER_BYTE]

    estimate = density.prompt_tokens(octets)

    assert min(ratios) * octets - 1 <= estimate <= max(ratios) * octets + 1

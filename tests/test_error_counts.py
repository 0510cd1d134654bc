from zejzl.learning.error_counts import SIGNATURES, UNSAID, ErrorCounts
from zejzl.learning.eventlog import OTHERS, Token

CALL = Token("call", "ann", 2, 0)


def words(number: int) -> str:
    """Return a text of letters alone that no other number has."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def test_an_error_without_text_has_a_name_too() -> None:
    faults = ErrorCounts()

    faults.add("", 5, CALL, "a")

    assert list(faults.by_signature) == [UNSAID]


def test_signatures_beyond_the_most_are_one() -> None:
    faults = ErrorCounts()

    for number in range(SIGNATURES + 5):
        faults.add(words(number), number, CALL, str(number))

    assert len(faults.by_signature) == SIGNATURES + 1
    assert faults.by_signature[OTHERS].n == 5


def test_merged_they_are_the_errors_of_both() -> None:
    one, other = ErrorCounts(), ErrorCounts()
    one.add("no", 5, CALL, "a")
    other.add("no", 3, CALL, "b")
    other.add("never", 9, CALL, "b")

    one.merge(other)

    no = one.by_signature["no"]
    assert (no.n, no.first, no.last, no.firsts) == (2, 3, 5, [(3, "b"), (5, "a")])
    assert (no.activities, no.agents) == ({"call": 2}, {"ann": 2})
    assert "never" in one.by_signature

"""`bench/ledger.py`: our books agree with the provider's, whatever goes wrong."""

import ledger
import pytest

from zejzl.testing import virtual


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_over_a_storm_of_mixed_faults_no_call_is_missing_and_the_tokens_agree(
    capsys: pytest.CaptureFixture[str],
) -> None:
    books = virtual.run(ledger.storm(7, 500))

    assert ledger.show(books, tolerance=0.03), capsys.readouterr().out  # few calls, rough guesses
    kinds = {each.outcome for each in books.attempts if not each.bill.settled}
    assert kinds <= {
        "cut_stream", "malformed", "first_token_timeout", "stalled", "overloaded", "connect",
        "cancelled", "deadline", "empty",
    }  # fmt: skip

"""A provider that truly limits its callers, and tells them how much is left.

Each limit is a bucket that is refilled evenly, as OpenAI's and Anthropic's are: it holds a whole
limit, and gets as much back in a window. A call takes what it costs when it comes; where there is
not enough for it, it takes nothing and is told when there will be.

Units: seconds, calls, words. One word is one token.
"""

import time
from math import ceil

from zejzl.policies.quota import Rates
from zejzl.testing.behaviours import Allowance, Answer, Behaviour, Call, Play, Refusal
from zejzl.testing.player import said

ROUNDING = 1e-6  # of a call or a word: with so little missing it is there


class Quota:
    """See `faults.quota`: a rule with a memory."""

    def __init__(self, rates: Rates, then: Play) -> None:
        self._then = then
        limits = (("requests", rates.requests), ("tokens", rates.tokens))
        self._buckets = {what: _Bucket(most, rates.window) for what, most in limits if most}

    def __call__(self, call: Call) -> Play:
        """Return what the call gets; write what is left of the limits into it."""
        if call.probe:
            return self._then
        asked = {"requests": 1, "tokens": call.prompt_tokens}
        waits = [
            (bucket.wait(asked[what], call.at), what) for what, bucket in self._buckets.items()
        ]
        wait, what = max(waits, default=(0.0, ""))
        play: Play = self._then
        if wait > 0:
            play = _refusal(call, what, self._buckets[what], wait)
        else:
            while not isinstance(play, Behaviour):
                play = play(call)
            asked["tokens"] += _answered(play, call)
            for name, bucket in self._buckets.items():
                bucket.level -= asked[name]
        call.allowances = {name: bucket.allowance() for name, bucket in self._buckets.items()}
        return play


class _Bucket:
    """Holds a limit; may be in debt for an answer that was longer than what was left."""

    def __init__(self, most: int, window: float) -> None:
        self.most, self.window = most, window
        self.level = float(most)
        self._at = 0.0

    def wait(self, amount: int, at: float) -> float:
        """Return the seconds until there is enough; more than a limit is as much as the limit."""
        rate = self.most / self.window
        self.level = min(self.most, self.level + max(0.0, at - self._at) * rate)
        self._at = max(self._at, at)
        missing = min(amount, self.most) - self.level
        return missing / rate if missing > ROUNDING else 0.0

    def allowance(self) -> Allowance:
        reset = (self.most - self.level) * self.window / self.most
        left = max(0, int(self.level + ROUNDING))
        return Allowance(limit=self.most, remaining=left, reset=reset, until=time.time() + reset)


def _answered(play: Behaviour, call: Call) -> int:
    """Return the words that the usage will say were answered."""
    if not isinstance(play, Answer) or play.finish == "blocked":
        return 0
    return len(said(play, call, continues=call.wire != "openai").words)


def _refusal(call: Call, what: str, bucket: _Bucket, wait: float) -> Refusal:
    wait = ceil(wait * 1000) / 1000  # never too soon
    message = (
        f"Rate limit reached for {call.model}: {bucket.most} {what} in {bucket.window:g} s. "
        f"Please try again in {wait:g}s."
    )
    return Refusal(name="quota", kind="rate_limited", message=message, retry_after=wait)

"""Acorns: the burst credits of one bus, and whom they are spent on.

One is spent by hand (`boost`), before a call whose like were cut at their token limit lately
(`before`), and after an answer that was (`after`).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from zejzl.clock import Clock
from zejzl.events import CreditSpent, Event, utc
from zejzl.magic.lanes import Lane
from zejzl.messages import MOST_TOKENS
from zejzl.policies.boost import CREDITS, Credits, Lengths, factor, grown

REMEMBERED = 1_000  # conversations and senders whose last answer was cut


class Acorns:
    """Burst credits."""

    def __init__(self, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._credits = Credits(clock.now())
        self._cut: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._most: dict[tuple[str, str], int] = {}

    @property
    def left(self) -> int:
        """How many there are, 0 to 5."""
        return self._credits.left

    def boost(
        self, agent: str, config: Mapping[str, object], lengths: Lengths | None
    ) -> dict[str, object]:
        """Spend one on an agent's configuration; see `FairyMagic.acorn_vitality_boost`."""
        if not isinstance(config, Mapping):
            raise TypeError(f"a configuration is a mapping, not {type(config).__name__}")
        limit = config.get("max_tokens")
        if limit is not None:
            if isinstance(limit, bool) or not isinstance(limit, int):
                raise ValueError(f"max_tokens must be a whole number, not {limit!r}")
            if not 1 <= limit <= MOST_TOKENS:
                raise ValueError(f"max_tokens must be from 1 to {MOST_TOKENS:,}")
        unchanged = {"vitality_boost": 1.0, "new_config": dict(config)}
        if limit is None:
            reason = "no_max_tokens"
        elif not self._credits.left:
            reason = "no_acorns"
        else:
            by = factor(limit, lengths)
            larger = max(limit + 1, grown(limit, by))
            self._spend(agent, by, larger)
            config = {**config, "max_tokens": larger}
            return {"vitality_boost": by, "new_config": config, "acorns_remaining": self.left}
        return {**unchanged, "acorns_remaining": self.left, "reason": reason}

    def before(self, lane: Lane, model: str, who: str, max_tokens: int) -> int:
        """Return the limit to send, grown if this one's last answer was cut and a credit is left.

        Args:
            lane: The provider's.
            model: Its model.
            who: The conversation, or the sender where there is none.
            max_tokens: The limit that was asked for.
        """
        if not self._cut or (lane.name, who) not in self._cut:
            return max_tokens
        return self.after(lane, model, max_tokens) or max_tokens

    def after(self, lane: Lane, model: str, max_tokens: int) -> int | None:
        """Return the larger limit for an answer that was cut, its credit spent; None: no credit."""
        by = factor(max_tokens, lane.lengths)
        larger = grown(max_tokens, by, self._most.get((lane.name, model)))
        if larger <= max_tokens or not self._credits.left:
            return None
        self._spend(lane.name, by, larger)
        return larger

    def answered(self, lane: Lane, who: str, tokens: int | None, *, cut: bool) -> None:
        """An answer came, so long, and cut at its limit or not."""
        if self._credits.left < CREDITS:
            self._credits.succeeded(self._clock.now())
        if tokens is not None:
            lane.lengths.push(tokens)
        if cut:
            self._cut[lane.name, who] = None
            self._cut.move_to_end((lane.name, who))
            if len(self._cut) > REMEMBERED:
                self._cut.popitem(last=False)
        elif self._cut:
            self._cut.pop((lane.name, who), None)

    def too_much(self, lane: Lane, model: str, max_tokens: int) -> None:
        """A model refused a grown limit: it is never asked for more than this again."""
        self._most[lane.name, model] = max_tokens

    def give_back(self) -> None:
        """Return the credit of a call that was never made."""
        self._credits.give_back()

    def _spend(self, target: str, by: float, larger: int) -> None:
        self._credits.spend(self._clock.now())
        self._emit(
            CreditSpent(
                target=target,
                factor=by,
                max_tokens=larger,
                left=self._credits.left,
                timestamp=utc(self._clock.wall()),
            )
        )

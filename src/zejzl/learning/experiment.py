"""Experiments: which of two arms is better, told as soon as it can be, however often one looks.

    assign ──▶ treatment │ control ──▶ observe ──▶ running ──▶ kept        the treatment is better
                                                           ├─▶ reverted    it is worse, or breaks
                                                           │               a guard rail
                                                           └─▶ undecided   too many, no difference

Bets of `betting` are on success and, as guard rails or in its place, on whether a request took
longer than 90 % (cost more than 75 %) of the first ones of the faster (cheaper) arm did. Alike arms
are told apart by the goal in at most one trial of 20, and by each rail in one of a hundred.

That rests on the drawing of the arms alone: an outage that hits both, a world that changes and
conversations that resemble each other are no evidence for either.

Pure: no chance of its own; an arm follows from a name and a key.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from zejzl.errors import StoreTooNew
from zejzl.learning.betting import FEW, Bet, Rail
from zejzl.learning.evidence import Fields
from zejzl.learning.statistics import difference_interval, wilson

VERSION = 2  # of a stored trial; version 1 bet on outcomes in pairs

STOP = 20.0  # the e-value that decides about what is tried for
RAIL = 100.0  # and about guard rails, of which there are several
MOST = 4_000  # in both arms together: then it is undecided
SLOW_AT, DEAR_AT = 0.90, 0.75  # quantiles of the first requests that the bets are about
WORST_P95, WORST_COST = 1.25, 1.25  # times the control's: what a guard rail lets pass
LOST_SUCCESS = 0.05  # points of success that a faster arm may seem to lose and still be kept
_MILLIONTH = 1e-6  # USD: the least cost that is told from none
_MOST_MOST = 1_000_000_000  # outcomes that a trial may be given
_LARGEST = 1e18  # seconds or USD that anything may take

State = Literal["running", "kept", "reverted", "undecided"]
Goal = Literal["success", "seconds", "cost"]


def assign(name: str, key: str, shares: Mapping[str, float], token: str = "") -> str:
    """Return the arm of a conversation: the same in every process, and at all times.

    Args:
        name: The experiment's; another one divides the same conversations anew.
        key: The conversation, or the request where there is none.
        shares: Of each arm, above 0 and together 1.
        token: Of this beginning of it; with another one they are divided anew, too.

    Raises:
        ValueError: If the shares are none.
    """
    _check_shares(shares)
    begun = f"{len(token)}:{token}:" if token else ""
    text = f"{len(name)}:{name}:{begun}{key}".encode("utf-8", "backslashreplace")
    place = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    *others, last = shares
    for arm in others:
        place -= shares[arm]
        if place < 0:
            return arm
    return last


def _check_shares(shares: Mapping[str, float]) -> None:
    if len(shares) < 2 or any(not 0 < share < 1 for share in shares.values()):
        raise ValueError(f"shares must be of two arms or more, each above 0, not {shares!r}")
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"shares must add up to 1, not {sum(shares.values())!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What was seen of one arm.

    Attributes:
        n: Outcomes that are known.
        share: Of successes among them, with its 95 % interval.
        mean_s: Of what they took; `p95_s` the slow end. None where no time was given.
        mean_usd: Of what they cost; None where no cost is known.
    """

    name: str
    n: int
    successes: int
    share: float
    ci95: tuple[float, float]
    mean_s: float | None
    p95_s: float | None
    mean_usd: float | None

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "ci95": list(self.ci95)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """How a trial stands, and why.

    Attributes:
        reason: In words.
        e_value: Of what is tried for; 20 decides. `e_slower` and `e_dearer` are those of the
            rails, where 100 decides.
        difference: Of the shares of success, with its interval as if looked at once only.
    """

    state: State
    reason: str
    e_value: float
    e_slower: float
    e_dearer: float
    difference: float
    ci95: tuple[float, float]
    treatment: Arm
    control: Arm

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "state": self.state,
            "reason": self.reason,
            "e_value": self.e_value,
            "e_slower": self.e_slower,
            "e_dearer": self.e_dearer,
            "difference": self.difference,
            "ci95": list(self.ci95),
            "treatment": self.treatment.to_json(),
            "control": self.control.to_json(),
        }


class Trial:
    """One experiment of two arms; mutable. Once it has ended, nothing changes it any more.

    Args:
        name: Of the experiment; `assign` uses it.
        treatment: The arm that is tried; `control` the one it is compared with.
        share: Of the treatment, above 0 and below 1.
        goal: What the treatment is tried for: more success, less time or less cost.
        most: Outcomes of both arms after which it ends undecided.
        token: What tells it from others of its name, before and after it; `assign` uses it.

    Raises:
        ValueError: If one of them cannot be.
    """

    def __init__(
        self,
        name: str,
        treatment: str,
        control: str,
        *,
        share: float = 0.5,
        goal: Goal = "success",
        most: int = MOST,
        token: str = "",
    ) -> None:
        if treatment == control:
            raise ValueError(f"the arms must differ, not both be {treatment!r}")
        if goal not in get_args(Goal):
            raise ValueError(f"goal must be one of {', '.join(get_args(Goal))}, not {goal!r}")
        if type(most) is not int or not 2 * FEW <= most <= _MOST_MOST:
            raise ValueError(
                f"most must be a whole number, {2 * FEW} or more and up to {_MOST_MOST:,}, "
                f"not {most!r:.40}"
            )
        self.name, self.goal, self.most, self.token = name, goal, most, token
        self.shares = {treatment: share, control: 1 - share}
        _check_shares(self.shares)
        self._arms = (treatment, control)
        self._success = Bet(share)
        self._seconds = Rail(share, SLOW_AT)
        self._cost = Rail(share, DEAR_AT, _MILLIONTH)
        self._ended: tuple[State, str] | None = None

    def arm(self, key: str) -> str:
        """Return the arm of a conversation, or of a request that has none."""
        return assign(self.name, key, self.shares, self.token)

    def observe(
        self,
        arm: str,
        success: bool | None,
        seconds: float | None = None,
        cost_usd: float | None = None,
    ) -> State:
        """Take in how one request ended, and return how the trial stands.

        Args:
            success: None where nobody knows; its time and cost count all the same.
            seconds: What it took; None where that is unknown, as below.
            cost_usd: What it cost.

        Raises:
            ValueError: If there is no such arm, or an amount is no number; nothing was taken in.
        """
        if arm not in self._arms:
            raise ValueError(f"no arm {arm!r}; there are {' and '.join(self._arms)}")
        for amount in (seconds, cost_usd):
            if amount is not None and not abs(amount) <= _LARGEST:
                raise ValueError(f"seconds and cost_usd cannot be {amount!r:.40}")
        if self._ended:
            return self._ended[0]
        which = self._arms.index(arm)
        if success is not None:
            self._success.see(which, success)
        if seconds is not None:
            self._seconds.see(which, seconds)
        if cost_usd is not None:
            self._cost.see(which, cost_usd)
        return self._end()

    def _end(self) -> State:
        """Return how it stands; what is decided stays so."""
        state, reason = self._judge()
        if state != "running":
            self._ended = (state, reason)
        return state

    def ruling(self) -> Ruling:
        """Return how it stands, with all figures."""
        state, reason = self._ended or self._judge()
        (yes, no), (yes0, no0) = self._success.counts
        treatment, control = (self._arm(which) for which in (0, 1))
        return Ruling(
            state=state,
            reason=reason,
            e_value=self._bets[self.goal].e_value,
            e_slower=self._seconds.bet.e_value,
            e_dearer=self._cost.bet.e_value,
            difference=treatment.share - control.share,
            ci95=difference_interval(yes, yes + no, yes0, yes0 + no0),
            treatment=treatment,
            control=control,
        )

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "v": VERSION,
            "name": self.name,
            "treatment": self._arms[0],
            "control": self._arms[1],
            "share": self.shares[self._arms[0]],
            "goal": self.goal,
            "most": self.most,
            **({"token": self.token} if self.token else {}),  # older ones have none
            "success": self._success.to_json(),
            "seconds": self._seconds.to_json(),
            "cost": self._cost.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> "Trial":
        """Return the trial that `to_json` wrote, to go on with.

        Raises:
            StoreTooNew: If a newer version wrote it.
            ValueError: If it is none, or one of version 1, which cannot go on.
        """
        read = Fields(body, "trial", version=None)
        if (version := read.count("v")) > VERSION:
            raise StoreTooNew(f"trial of version {version}; this zejzl reads {VERSION}")
        if version < VERSION:
            raise ValueError(
                f"a trial of version {version} cannot go on: its evidence was counted another way, "
                "that took an outage for a difference; begin it anew"
            )
        trial = cls(
            read.text("name"),
            read.text("treatment"),
            read.text("control"),
            share=read.number("share"),
            goal=cast(Goal, read.text("goal")),
            most=read.count("most"),
            token=read.maybe_text("token") or "",
        )
        trial._success.load(body.get("success"))
        trial._seconds.load(body.get("seconds"))
        trial._cost.load(body.get("cost"))
        try:
            trial._end()  # what was decided follows from the counts, and is decided again
        except OverflowError:
            raise ValueError("not a trial: an amount that cannot be") from None
        if not _same(trial.to_json(), body):
            raise ValueError("not a trial as it is written: a field too many, or of another kind")
        return trial

    @property
    def _bets(self) -> Mapping[Goal, Bet]:
        return {
            "success": self._success,
            "seconds": self._seconds.bet,
            "cost": self._cost.bet,
        }

    def _arm(self, which: int) -> Arm:
        yes, no = self._success.counts[which]
        return Arm(
            name=self._arms[which],
            n=yes + no,
            successes=yes,
            share=self._success.shares[which],
            ci95=wilson(yes, yes + no),
            mean_s=self._seconds.mean(which),
            p95_s=self._seconds.p95(which),
            mean_usd=self._cost.mean(which),
        )

    def _judge(self) -> tuple[State, str]:
        n = [sum(counts) for counts in self._success.counts]
        if min(n) < FEW:
            if sum(n) >= self.most:
                return "undecided", f"one arm has {min(n)} outcomes only, after {sum(n)} in all"
            return "running", f"nothing is claimed under {FEW} outcomes in each arm"
        if broken := self._broken():
            return "reverted", broken
        bet = self._bets[self.goal]
        first, second = bet.shares if self.goal == "success" else reversed(bet.shares)
        if bet.e_value >= STOP and first < second:
            return "reverted", f"worse in {self.goal}: e-value {bet.e_value:.3g}"
        won, over = bet.e_value >= STOP, sum(n) >= self.most
        doubt = self._doubt() if won else None
        if won and not doubt:
            return "kept", f"better in {self.goal}: e-value {bet.e_value:.3g}"
        if over:
            return "undecided", doubt or f"no clear difference after {sum(n)} outcomes"
        return "running", doubt or f"e-value {bet.e_value:.3g} of {STOP:g}"

    def _broken(self) -> str | None:
        """Return which guard rail the treatment has certainly broken, if one."""
        treated, untreated = self._success.shares
        if self.goal != "success" and self._success.e_value >= RAIL and treated < untreated:
            return f"fewer successes: e-value {self._success.e_value:.3g}"
        for rail, slip in ((self._seconds, self._slower), (self._cost, self._dearer)):
            often, seldom = rail.bet.shares
            if rail.bet.e_value >= RAIL and often > seldom and (said := slip()):
                return f"{said}: e-value {rail.bet.e_value:.3g}"
        return None

    def _doubt(self) -> str | None:
        """Return why the treatment would not be kept though better: what looks worse elsewhere."""
        treated, untreated = self._success.shares
        if treated < untreated - LOST_SUCCESS:
            return f"fewer successes, it seems: {treated:.0%} against {untreated:.0%}"
        return self._slower() or self._dearer()

    def _slower(self) -> str | None:
        slow, usual = self._seconds.p95(0), self._seconds.p95(1)
        if slow is None or usual is None or slow <= WORST_P95 * usual:
            return None
        return f"slower: p95 {slow:.3g} s against {usual:.3g} s"

    def _dearer(self) -> str | None:
        dear, usual = self._cost.mean(0), self._cost.mean(1)
        if dear is None or usual is None or dear <= WORST_COST * usual:
            return None
        return f"dearer: {dear:.3g} USD against {usual:.3g} USD"


def _same(ours: object, theirs: object) -> bool:
    """Say whether values are the same in kind too: 1, 1.0 and True are three."""
    if isinstance(ours, dict):
        if not isinstance(theirs, Mapping) or ours.keys() != theirs.keys():
            return False
        return all(_same(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, list):
        if not isinstance(theirs, list) or len(ours) != len(theirs):
            return False
        return all(map(_same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs

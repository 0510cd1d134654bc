"""The recovery log, what is learned from it, and recovery attempts made by hand."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from zejzl.clock import Clock
from zejzl.errors import FailureClass, shorten, words
from zejzl.events import DriftDetected, Event, PreferenceStated, RecoveryRecorded, utc
from zejzl.magic.breakers import Breakers
from zejzl.magic.gate import Gate
from zejzl.magic.remedies import Remedies
from zejzl.policies.breaker import State
from zejzl.policies.budget import HEALING_COST
from zejzl.policies.diagnosis import RUNBOOK, Diagnosis, Remedy, Verdict, diagnose
from zejzl.policies.preferences import Preferences

HISTORY = 1_000  # recoveries kept in memory; a store keeps them all
MOST_REMEDIES = 3  # tried against one failure
VERSION = 1


class Recoveries:
    """What failed, what was done about it, and what does best.

    Attributes:
        history: The newest 1,000 rows of the recovery log, oldest first.
    """

    def __init__(
        self,
        breakers: Breakers,
        gate: Gate,
        remedies: Remedies,
        clock: Clock,
        emit: Callable[[Event], None],
    ) -> None:
        self._breakers = breakers
        self._gate = gate
        self._remedies = remedies
        self._clock = clock
        self._emit = emit
        self._preferences = Preferences(
            {cls.value: [remedy.value for remedy in page] for cls, page in RUNBOOK.items()}
        )
        self._seen: dict[tuple[str, str], None] = {}
        self.history: deque[RecoveryRecorded] = deque(maxlen=HISTORY)

    # Choosing --------------------------------------------------------------------------------

    def best_first(
        self, target: str, failure_class: FailureClass, built_in: Sequence[Remedy]
    ) -> list[str]:
        """Return what can be tried against a failure, the best first as far as is known."""
        own = self._remedies.offered(target, failure_class)
        candidates = [*(remedy.value for remedy in built_in), *own]
        return self._preferences.order(target, failure_class.value, candidates)

    def probabilities(self) -> dict[str, dict[str, float]]:
        """Return the learned policy: "component:class" → {remedy: probability}."""
        keys = {(row.component, row.failure_class) for row in self._preferences.rows()}
        return {
            f"{component}:{kind}": self._shares(component, kind)
            for component, kind in sorted(keys | set(self._seen))
        }

    def _shares(self, component: str, kind: str) -> dict[str, float]:
        known = self._preferences.probabilities(component, kind)
        own = self._remedies.offered(component, kind)
        return self._preferences.probabilities(component, kind, [*known, *own])

    def rows(self) -> list[dict[str, object]]:
        """Return what was learned, a row for each component, failure class and remedy."""
        return [
            {name: getattr(row, name) for name in row.__dataclass_fields__}
            for row in self._preferences.rows()
        ]

    def prefer(
        self,
        winner: str,
        loser: str,
        *,
        component: str | None,
        failure_class: FailureClass | str | None,
        author: str,
        withdraw: bool,
    ) -> None:
        """State a preference or take it back; see `FairyMagic.prefer`."""
        cls = None if failure_class is None else FailureClass(failure_class).value
        if withdraw:
            self._preferences.withdraw(winner, loser, component=component, failure_class=cls)
        else:
            self._preferences.prefer(
                winner, loser, author=author, component=component, failure_class=cls
            )
        self._emit(
            PreferenceStated(
                winner=winner,
                loser=loser,
                author=author,
                target=component,
                failure_class=cls,
                withdrawn=withdraw,
                timestamp=utc(self._clock.wall()),
            )
        )

    # By hand ---------------------------------------------------------------------------------

    async def heal(self, component: str, issue: str | BaseException) -> bool:
        """Make one recovery attempt; see `FairyMagic.blue_spark_heal`."""
        if isinstance(issue, BaseException):
            diagnosis = diagnose(issue)
        else:
            diagnosis = Diagnosis(FailureClass.UNKNOWN, Verdict.FAIL)
        cls = diagnosis.failure_class
        own = self._remedies.offered(component, cls)
        candidates = [*own, Remedy.WAIT.value] if diagnosis.same_again_may_help else own
        refusal = self._why_not(component, diagnosis, candidates)
        if refusal:
            self.record(
                component,
                issue,
                cls,
                Remedy.WAIT,
                success=False,
                verified=None,
                energy_used=0.0,
                outcome=refusal,
            )
            return False
        self._remember(component, cls)
        order = self._preferences.order(component, cls.value, candidates)
        for remedy in order[:MOST_REMEDIES]:
            if not self._gate.pay(HEALING_COST):
                return False
            if await self._apply(component, issue, diagnosis, remedy):
                return True
        return False

    async def _apply(
        self, component: str, issue: str | BaseException, diagnosis: Diagnosis, remedy: str
    ) -> bool:
        """Try one remedy, verify it, and write its row of the log."""
        said, ok, found = "a retry may be made", True, None
        try:
            if remedy == Remedy.WAIT:
                await self._clock.sleep(self._gate.backoff(2, diagnosis))
            else:
                ok, said = await self._remedies.apply(component, remedy, issue)
            found = await self._remedies.check(component) if ok else None
        except asyncio.CancelledError:
            said = "cancelled"
            raise
        finally:
            if found is not None:
                ok, said = found
            # What nobody verified teaches nothing; what failed by its own word does.
            verified = None if ok and found is None else ok
            self.record(
                component,
                issue,
                diagnosis.failure_class,
                remedy,
                success=ok and said != "cancelled",
                verified=verified,
                energy_used=HEALING_COST,
                outcome=said,
                cost=None if verified is None else 0.0,
            )
        return ok

    def _why_not(self, component: str, diagnosis: Diagnosis, candidates: Sequence[str]) -> str:
        """Return why a recovery attempt would be in vain, or ""."""
        now = self._clock.now()
        if not candidates:
            return f"a retry cannot mend {diagnosis.failure_class}"
        breaker = self._breakers.all.get(component)
        if breaker is not None and breaker.state is State.OPEN:
            return f"circuit breaker is open for {breaker.rule.wait(now):.1f} s"
        if self._gate.affordable_in(HEALING_COST) > 0.0:
            return self._gate.short_of(HEALING_COST)
        return ""

    def _remember(self, component: str, failure_class: FailureClass) -> None:
        if len(self._seen) < HISTORY:
            self._seen[component, failure_class.value] = None

    # The log ---------------------------------------------------------------------------------

    def record(
        self,
        target: str,
        issue: str | BaseException,
        failure_class: str,
        remedy: str,
        *,
        success: bool,
        verified: bool | None,
        energy_used: float,
        outcome: str,
        request_id: str | None = None,
        cost: float | None = None,
    ) -> RecoveryRecorded:
        """Write one row of the recovery log, learn from it, and return it.

        Args:
            cost: What it cost, from 0 to 1; None: nothing is to be learned from it.
        """
        row = RecoveryRecorded(
            target=target,
            issue=shorten(words(issue)),
            failure_class=str(failure_class),
            remedy=str(remedy),
            success=success,
            verified=verified,
            energy_used=energy_used,
            timestamp=utc(self._clock.wall()),
            outcome=outcome,
            request_id=request_id,
            cost=cost,
        )
        self.history.append(row)
        self._emit(row)
        self.learn(row)
        return row

    def learn(self, row: RecoveryRecorded) -> None:
        """Take one row of the recovery log into the learned preferences."""
        if row.cost is None:
            return
        of = (row.target, row.failure_class, row.remedy)
        if self._preferences.learn(*of, success=row.success, cost=row.cost):
            target, failure_class, remedy = of
            self._emit(
                DriftDetected(
                    target=target,
                    failure_class=failure_class,
                    remedy=remedy,
                    timestamp=utc(self._clock.wall()),
                )
            )

    # Keeping ---------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        """Return what was learned, JSON-ready."""
        return {"v": VERSION, "preferences": self._preferences.snapshot()}

    def restore(self, kept: Mapping[str, object]) -> None:
        """Go on from a snapshot; see `FairyMagic.restore`."""
        if not isinstance(kept, Mapping) or kept.get("v") != VERSION:
            version = kept.get("v") if isinstance(kept, Mapping) else None
            raise ValueError(
                f"what was learned is of version {version!r}; this zejzl reads {VERSION}"
            )
        self._preferences.restore(kept.get("preferences"))

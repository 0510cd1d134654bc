"""The recovery log, what is learned from it, and recovery attempts made by hand."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from zejzl.clock import Clock
from zejzl.errors import FailureClass, shorten, words
from zejzl.events import (
    UNTRIED,
    DriftDetected,
    Event,
    PreferenceStated,
    RecoveryRecorded,
    check_text,
    utc,
)
from zejzl.magic.breakers import Breakers
from zejzl.magic.gate import PROVIDERS, Gate
from zejzl.magic.remedies import Ended, Remedies, failure_class
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
        self._rows: list[dict[str, object]] = []
        self._rows_of: tuple[int, int] = (0, 0)
        self.history: deque[RecoveryRecorded] = deque(maxlen=HISTORY)

    # Names -----------------------------------------------------------------------------------

    def named(self, name: str) -> str | None:
        """Return the full name of a component, or of a provider by its own; None: unknown.

        A provider that is registered and that nobody has called yet is known by its probe.
        """
        known = self._breakers.all
        for full in (name, _as_provider(name)):
            if full in known or full in self._remedies.probed:
                return full
        return None

    def known(self, name: str, *, later: bool = False) -> str:
        """Return the full name of a component or provider.

        Args:
            later: Whether "component:child" will do for a child that is yet to come.

        Raises:
            TypeError, ValueError: If there is none; lists those that are known.
        """
        check_text("component", name)
        found = self.named(name)
        component = name.partition(":")[0]
        if found is None and later and component in self._breakers.all:
            found = _as_provider(name) if component == PROVIDERS else name
        if found is None:
            names = dict.fromkeys((*self._breakers.all, *self._remedies.probed))
            known = ", ".join(each for each in names if "/" not in each)  # models are too many
            hint = f"; a provider that comes later is {_as_provider(name)!r}" if later else ""
            raise ValueError(f"no component named {name!r}; known: {known}{hint}")
        return found

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
        return {
            f"{component}:{kind}": self._shares(component, kind)
            for component, kind in sorted(self.places)
        }

    @property
    def places(self) -> set[tuple[str, str]]:
        """Every component and failure class that the learned policy tells of."""
        return self._preferences.places.union(self._seen)

    @property
    def changes(self) -> int:
        """How often what was learned has changed."""
        return self._preferences.changes

    def _shares(self, component: str, kind: str) -> dict[str, float]:
        known = self._preferences.probabilities(component, kind)
        own = self._remedies.offered(component, kind)
        return self._preferences.probabilities(component, kind, [*known, *own])

    def rows(self) -> list[dict[str, object]]:
        """Return what was learned or stated; see `FairyMagic.preferences`."""
        state = self.changes, self._remedies.names.total()
        if state != self._rows_of:  # thousands of rows are asked for once a second
            self._rows_of = state
            self._rows = [
                {name: getattr(row, name) for name in row.__dataclass_fields__}
                for row in self._preferences.rows(self._remedies.offered)
            ]
        return [row.copy() for row in self._rows]

    def prefer(
        self,
        winner: str,
        loser: str,
        *,
        component: str | None,
        kind: FailureClass | str | None,
        author: str,
        withdraw: bool,
    ) -> None:
        """State a preference or take it back; see `FairyMagic.prefer`."""
        for name, text in (("winner", winner), ("loser", loser), ("author", author)):
            check_text(name, text)
            if not text.strip():
                raise ValueError(f"{name} must not be empty")
        cls = None if kind is None else failure_class(kind).value
        if component is not None:
            check_text("component", component)
            try:
                component = self.known(component, later=True)
            except ValueError:
                if not withdraw:  # what was said of one that is gone can be taken back
                    raise
        if withdraw:
            self._preferences.withdraw(winner, loser, component=component, failure_class=cls)
        else:
            self._check_remedies(winner, loser)
            self._preferences.prefer(
                winner, loser, author=author, component=component, failure_class=cls
            )
        self._emit(
            PreferenceStated(
                winner=str(winner),
                loser=str(loser),
                author=str(author),
                target=component,
                failure_class=cls,
                withdrawn=withdraw,
                timestamp=utc(self._clock.wall()),
            )
        )

    def _check_remedies(self, *names: str) -> None:
        known = self._preferences.remedies.union(self._remedies.names)
        for name in names:
            if name not in known:
                raise ValueError(f"no remedy named {name!r}; known: {', '.join(sorted(known))}")

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
                UNTRIED,
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

    def reset(self, name: str) -> bool:
        """Close a breaker, with its children; see `FairyMagic.reset_circuit_breaker`."""
        full = self.named(name)
        if full is None:
            return False
        self._close([full, *(child.name for child in self._breakers.children(full).values())])
        return True

    async def check_all(self) -> dict[str, Ended]:
        """Probe everything, close the breakers of what is well; see `FairyMagic.check_all`."""
        names = self._remedies.probed
        ends = await asyncio.gather(*(self._remedies.check(name) for name in names))
        found = {name: ended for name, ended in zip(names, ends, strict=True) if ended is not None}
        closed = self._close([name for name, ended in found.items() if ended.ok])
        return found | dict.fromkeys(closed, Ended(True, "circuit breaker closed"))

    def _close(self, names: Iterable[str]) -> list[str]:
        """Close breakers, of those who have one; return the names of those that were not closed."""
        breakers = [self._breakers.all[name] for name in names if name in self._breakers.all]
        closed = [each.name for each in breakers if each.state is not State.CLOSED]
        for breaker in breakers:
            breaker.reset()
        self._gate.look_for_light(self._clock.now())
        self._gate.look_again()
        return closed

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
        wait = breaker.rule.wait(now) if breaker is not None else 0.0
        if wait > 0.0 and breaker is not None and breaker.state is State.OPEN:
            return f"circuit breaker is open for {wait:.1f} s"
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
            energy_used=float(energy_used),
            timestamp=utc(self._clock.wall()),
            outcome=str(outcome),
            request_id=request_id,
            cost=None if cost is None else float(cost),
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


def _as_provider(name: str) -> str:
    """Return what the breaker of a provider, or of one of its models, is called."""
    provider, slash, model = name.removeprefix(f"{PROVIDERS}:").partition("/")
    return f"{PROVIDERS}:{provider.strip().lower()}{slash}{model}"

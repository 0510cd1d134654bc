"""What users add to the healing: remedies of their own, and probes that say whether one is well.

A user's code may raise, hang or return anything. It is run within a limit, its end is turned into
a verdict in words, and it never takes the call down that it was to help.
"""

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from zejzl.clock import Clock
from zejzl.errors import FailureClass, shorten, words
from zejzl.events import check_text
from zejzl.policies.diagnosis import NEVER_AGAIN, Remedy

SECONDS = 10.0  # that a remedy or probe may take

RemedyFn = Callable[..., Awaitable[object]]
ProbeFn = Callable[..., Awaitable[object]]
R = TypeVar("R", bound=RemedyFn)

ALL_CLASSES = frozenset(FailureClass) - NEVER_AGAIN - {FailureClass.CANCELLED}


class Ended(NamedTuple):
    """How a remedy or a probe ended.

    Attributes:
        ok: Whether it helped, or the probed is well.
        said: "ok", or what went wrong, in words.
    """

    ok: bool
    said: str


@dataclass(frozen=True, slots=True)
class _Remedy:
    apply: RemedyFn
    classes: frozenset[FailureClass]


class Remedies:
    """The users' remedies and probes, by component.

    Attributes:
        names: Every remedy by the name of its function, and in how many components it is known.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._remedies: dict[str, dict[str, _Remedy]] = {}
        self._probes: dict[str, ProbeFn] = {}
        self._usual_probes: dict[str, ProbeFn] = {}
        self.names: Counter[str] = Counter()

    def remedy(
        self, component: str, classes: Iterable[FailureClass | str] | None = None
    ) -> Callable[[R], R]:
        """Return a decorator; see `FairyMagic.remedy`."""
        wanted = _classes(classes)
        _checked_component(component)

        def add(apply: R) -> R:
            _checked(apply)
            name = getattr(apply, "__name__", "")
            if not name:
                raise TypeError(f"{apply!r} must have a name: it is the remedy's")
            check_text("the remedy's name", name)
            of = self._remedies.setdefault(component, {})
            if name in of or name in set(Remedy):
                raise ValueError(f"{component} has a remedy named {name!r} already")
            of[name] = _Remedy(apply, wanted)
            self.names[name] += 1
            return apply

        return add

    def probe(self, component: str) -> Callable[[R], R]:
        """Return a decorator; see `FairyMagic.probe`."""
        _checked_component(component)

        def add(check: R) -> R:
            _checked(check)
            self._probes[component] = check
            return check

        return add

    def watch(self, component: str, check: ProbeFn | None) -> None:
        """Look at a component this way where users have no probe of their own; None: not at all."""
        if check is None:
            self._usual_probes.pop(component, None)
        else:
            self._usual_probes[component] = check

    @property
    def probed(self) -> list[str]:
        """What there is a probe for; among it every registered provider."""
        return list(dict.fromkeys((*self._probes, *self._usual_probes)))

    def offered(self, component: str, failure_class: str) -> list[str]:
        """Return the names of the remedies for this failure, in the order of their coming."""
        return [
            name
            for family in dict.fromkeys((component, _parent(component)))
            for name, remedy in self._remedies.get(family, {}).items()
            if failure_class in remedy.classes
        ]

    async def apply(self, component: str, name: str, failure: BaseException | str) -> Ended:
        """Run a remedy; it gets the failure and the component, as far as it takes arguments."""
        family = component if name in self._remedies.get(component, {}) else _parent(component)
        remedy = self._remedies[family][name]
        return await self._run(remedy.apply, failure, component, silence_is_consent=True)

    async def check(self, component: str) -> Ended | None:
        """Run a component's probe, or else its parent's; None: there is none."""
        probe = (
            self._probes.get(component)
            or self._usual_probes.get(component)
            or self._probes.get(_parent(component))
        )
        if probe is None:
            return None
        return await self._run(probe, component, silence_is_consent=False)

    async def _run(
        self, fn: Callable[..., Awaitable[object]], *values: object, silence_is_consent: bool
    ) -> Ended:
        try:
            async with self._clock.timeout(SECONDS):
                found = await fn(*fitting(fn, values))
        except TimeoutError as problem:
            return Ended(False, shorten(str(problem)) or f"no end within {SECONDS:g} s")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Ended(False, "its own work was cancelled")  # nobody has cancelled this task
        except Exception as problem:  # noqa: BLE001 - a user's code may raise anything; it is told
            return Ended(False, shorten(f"{type(problem).__name__}: {words(problem)}"))
        if found is True or (found is None and silence_is_consent):
            return Ended(True, "ok")
        if found is False:
            return Ended(False, "it said no")
        return Ended(False, f"it returned {type(found).__name__}, not True or False")


def fitting(fn: Callable[..., object], values: tuple[object, ...]) -> tuple[object, ...]:
    """Return as many of `values` as `fn` takes by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(fn).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters):
        return values
    return values[: sum(each.kind in kinds for each in parameters)]


def _parent(component: str) -> str:
    return component.partition(":")[0]


def _checked(fn: RemedyFn) -> None:
    if not inspect.iscoroutinefunction(fn):
        raise TypeError(f"{fn!r} must be an async function")


def _checked_component(component: str) -> None:
    if not isinstance(component, str) or not component.strip():
        raise ValueError(f"component must be a name like 'ai_provider', not {component!r}")
    check_text("component", component)


def failure_class(name: FailureClass | str) -> FailureClass:
    """Return the class of that name.

    Raises:
        ValueError: If there is none; lists them.
    """
    if name not in set(FailureClass):
        raise ValueError(f"no failure class {name!r}; known: {', '.join(FailureClass)}")
    return FailureClass(name)


def _classes(classes: Iterable[FailureClass | str] | None) -> frozenset[FailureClass]:
    if classes is None:
        return ALL_CLASSES
    if isinstance(classes, str):
        classes = (classes,)
    wanted = frozenset(map(failure_class, classes))
    never = wanted - ALL_CLASSES - {FailureClass.AUTH}
    if never:
        raise ValueError(f"nothing can be done about {', '.join(sorted(never))}")
    return wanted

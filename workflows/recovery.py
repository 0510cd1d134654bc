"""What recovery does: which release is gone back to, and whether the store needs its backup.

    current release   store      what is done
    answers           damaged    the last good backup of the store; the release stays
    answers           whole      the release before it: who asks knows why
    does not answer   either     the release before it

After going back, the store is replaced too if that release cannot read it: damaged, or migrated
since. Else it stays: a backup is older than what it would replace. What is replaced is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workflows.deployment import Deployment, told
from workflows.release_folders import Environment, Release
from workflows.steps import Failed
from workflows.wheels import store_done, store_state, try_out

NOTHING = "nothing: the current release answers, and the store is whole"


@dataclass(frozen=True, slots=True)
class Plan:
    """What recovery will do, and why.

    Attributes:
        target: The release that is current afterwards.
        back: Whether that is another than now.
        restore: Whether the store is replaced by its last good backup.
    """

    target: Release
    back: bool
    restore: bool
    why: str

    @property
    def said(self) -> str:
        """What will be done, as a sentence without its end."""
        what = [f"go back to {self.target.path.name}"] if self.back else []
        what += ["put the last good backup of the store in its place"] if self.restore else []
        text = " and ".join(what)
        return text[:1].upper() + text[1:]


def planned(deployment: Deployment) -> Plan:
    """Return what recovery has to do.

    Raises:
        Failed: If there is nothing to go back to.
    """
    place = deployment.place
    current = place.current
    why = _trouble(current)
    if current is not None and not why and (damage := _damage(place, current)):
        return Plan(current, back=False, restore=True, why=f"the store: {damage}")
    older = [release for release in place.proven() if current is None or release.at < current.at]
    target = next((release for release in older if not _broken(release)), None)
    if target is None:
        raise Failed(
            f"{why or 'the current release is well'}, and there is no earlier one to go back to; "
            f"./orchestrate.sh deploy-{place.name} makes a new one"
        )
    needs = _damage(place, target)
    return Plan(
        target, back=True, restore=bool(needs), why="; ".join(filter(None, (why, needs))) or NOTHING
    )


def recover(deployment: Deployment, plan: Plan) -> bool:
    """Do what was planned; the store comes first, as it may refuse."""
    name = plan.target.path.name

    def put_back() -> str:
        return _put_back(deployment.place, plan)

    def switch() -> str:
        return deployment.switched(plan.target)

    def smoke() -> str:
        return deployment.smoke(plan.target, deployment.place.link)

    steps: list[tuple[str, Callable[[], str | None]]] = []
    if plan.restore:
        steps.append(("restore store", told("put the last good backup back", put_back)))
    if plan.back:
        steps.append(("switch", told(f"let the link lead to {name}", switch)))
    steps.append(("smoke test, linked", told("try the link", smoke)))
    return all(deployment.flow.step(name, work) for name, work in steps)


def _put_back(place: Environment, plan: Plan) -> str:
    """Put the last good backup in the store's place."""
    words = ["restore", f"--folder={place.backups}"]
    done = store_done(plan.target.zejzl, place.home, *words)
    return f"{Path(done['backup']).name}, verified; what was there: {done['kept']}"


def _trouble(current: Release | None) -> str:
    if current is None:
        return "no whole release is current"
    return _broken(current)


def _broken(release: Release) -> str:
    try:
        try_out(release.zejzl, str(release.facts["version"]))
    except Failed as exc:
        return str(exc)
    return ""


def _damage(place: Environment, release: Release) -> str:
    problems = store_state(release.zejzl, place.home)["problems"]
    return str(problems[0]) if problems else ""

"""deploy-staging, deploy-production and recovery.

    commit ──build once──▶ wheel ──▶ staging ──(the same wheel, asked)──▶ production ──▶ recovery

Each environment gets a release folder with its own venv, is tried out before the link leads there
and once more through the link, and goes back by itself if that fails. Whatever moment this is
killed at, the next run of any of the three finishes or takes back what was begun.
"""

import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflows.deployment import Deployment
from workflows.recovery import Plan, planned, recover
from workflows.release_folders import Environment, Release, deploying
from workflows.steps import Failed, Workflow
from workflows.wheels import Commit, build, digest, head

STAGING, PRODUCTION = "staging", "production"
USAGE = 2


def deploy_staging(flow: Workflow, options: Namespace) -> int:
    """Build a wheel from HEAD, and make it staging's current release."""
    with _alone(flow) as alone:
        if not alone:
            return flow.ended()
        deployment = Deployment(flow, Environment(STAGING, flow.root), options)
        commit: list[Commit] = []

        def look() -> str:
            commit.append(head(flow.root))
            differ = commit[0].uncommitted
            said = f"; NOT part of it: what is uncommitted ({differ})" if differ else ""
            return f"HEAD, {commit[0].id[:7]}{said}"

        def built(folder: Path) -> Path:
            return build(flow, commit[0], folder)

        if flow.step("source", look, changes=False):
            deployment.run(commit[0].id, built)
        return flow.ended()


def deploy_production(flow: Workflow, options: Namespace) -> int:
    """Make the wheel that staging has passed production's current release."""
    with _alone(flow) as alone:
        if not alone:
            return flow.ended()
        deployment = Deployment(flow, Environment(PRODUCTION, flow.root), options)
        found: list[Release] = []

        def look() -> str:
            found.append(_passed(Environment(STAGING, flow.root)))
            facts = found[0].facts
            return f"{found[0].path.name}, SHA-256 {facts['sha256'][:12]}…"

        if not deployment.tidy() or not flow.step("what staging passed", look, changes=False):
            return flow.ended()
        release = found[0]
        current = deployment.place.current
        same = current is not None and current.facts["sha256"] == release.facts["sha256"]
        if current is not None and same and deployment.tried(current):
            flow.skip(
                "deploy", f"production runs this wheel already, and well: {current.path.name}"
            )
            return flow.ended()
        if (refused := _asked(flow, options, f"Make {release.path.name} production?")) is not None:
            return refused

        def taken(folder: Path) -> Path:
            for name in (release.wheel, release.path / "constraints.txt"):
                if name.exists():
                    shutil.copy2(name, folder)
            wheel = folder / release.wheel.name
            if digest(wheel) != release.facts["sha256"]:
                raise Failed(f"{release.wheel} is not the wheel that staging passed")
            return wheel

        deployment.run(str(release.facts["commit"]), taken)
        return flow.ended()


def recovery(flow: Workflow, options: Namespace) -> int:
    """Go back to the last good release and, where the store needs it, its last good backup."""
    with _alone(flow) as alone:
        if not alone:
            return flow.ended()
        name = STAGING if getattr(options, "staging", False) else PRODUCTION
        deployment = Deployment(flow, Environment(name, flow.root), options)
        plans: list[Plan] = []

        def look() -> str:
            plans.append(planned(deployment))
            return plans[0].why

        was = deployment.place.current
        if not deployment.tidy():
            return flow.ended()
        now = deployment.place.current
        if now is not None and now != was:  # that was what was wrong, maybe: no step too far
            flow.step("smoke test, linked", lambda: deployment.smoke(now, deployment.place.link))
            return flow.ended()
        if not flow.step("what is wrong", look, changes=False):
            return flow.ended()
        plan = plans[0]
        if (refused := _asked(flow, options, f"{plan.said}?")) is not None:
            return refused
        recover(deployment, plan)
        return flow.ended()


def _passed(staging: Environment) -> Release:
    """Return the release whose wheel production may take."""
    release = staging.current
    if release is None or not release.proven:
        raise Failed("staging has passed nothing yet: ./orchestrate.sh deploy-staging first")
    if not release.wheel.exists() or digest(release.wheel) != release.facts["sha256"]:
        raise Failed(
            f"{release.wheel} is not the wheel that staging passed; deploy to staging again"
        )
    return release


def _asked(flow: Workflow, options: Namespace, question: str) -> int | None:
    """Ask; return None if it may go on, else the exit code."""
    if flow.dry_run or options.yes:
        return None
    if not sys.stdin.isatty():
        print(
            f"orchestrate.sh: {flow.name} asks ({question}), and here is nobody to answer; "
            "--yes says yes",
            file=sys.stderr,
        )
        return USAGE
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return None
    flow.skip(flow.name, "you did not say yes: nothing was changed")
    flow.ended()
    return 1


@contextmanager
def _alone(flow: Workflow) -> Iterator[bool]:
    """Yield whether this process is the only one that deploys; where not, that is told."""
    lock = deploying(flow.root, dry_run=flow.dry_run)
    if flow.step("lock", lambda: lock.__enter__(), changes=False):
        try:
            yield True
        finally:
            lock.__exit__(None, None, None)
    else:
        yield False

"""One environment's change from one release to the next, and what takes it back.

    wheel, install, imports, smoke test     nothing depends on the release yet
    back up store ─▶ STORE.json             how to take back what comes now
    migrate store                           and look at it
    RELEASE.json ─▶ switch                  whole, and current
    smoke test through the link             proven; STORE.json goes

A step that fails takes all of it back. After a kill the next run does so, or finishes it.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from workflows.release_folders import FACTS, STORE, Environment, Release, remove_old
from workflows.steps import Failed, Skipped, Workflow
from workflows.wheels import (
    asked,
    digest,
    install,
    look_into,
    migrate,
    store_done,
    store_state,
    try_out,
)


@dataclass(slots=True)
class Deployment:
    """One environment's change from one release to the next."""

    flow: Workflow
    place: Environment
    options: Namespace
    release: Release = field(init=False)
    version: str = field(init=False, default="")

    def run(self, commit: str, source: Callable[[Path], Path]) -> bool:
        """Do all of it; `source` puts the wheel into a folder. What fails is taken back."""
        if not self.tidy():
            return False
        previous = self.place.current

        def begin() -> str:
            return self.begin(commit, source)

        steps: list[tuple[str, Callable[[], str | None]]] = [
            ("wheel", told("begin a release with the wheel in it, and look into that", begin)),
            ("install", self.install),
            ("imports", self.imports),
            ("smoke test", self.smoke_alone),
            ("back up store", told("back up the store", lambda: self.back_up(previous))),
            ("migrate store", self.migrate),
            (
                "switch",
                told("write RELEASE.json and switch the link", lambda: self.record(commit)),
            ),
            ("smoke test, linked", told("try the link", lambda: self.prove(self.release))),
        ]
        for name, work in steps:
            if self.flow.step(name, work):
                continue
            if hasattr(self, "release") and self.release.path.exists():
                self.flow.step("back to what was", lambda: self.undo(self.release))
            return False
        self.flow.step("old releases", self.prune)
        return True

    def tidy(self) -> bool:
        """Finish or take back what an interrupted deployment left; say whether that went well."""
        left = [release for release in self.place.all() if not release.proven]
        # More than once: what was killed may have a process of its own that still writes there.
        return all(
            [
                self.flow.step("interrupted deployment", self._ending(each), attempts=3)
                for each in left
            ]
        )

    def _ending(self, release: Release) -> Callable[[], str | None]:
        def end() -> str | None:
            """Finish or take back what was begun."""
            if release == self.place.current:
                try:
                    return f"{release.path.name} was not tried yet; {self.prove(release)}"
                except Failed as exc:
                    self.flow.note(str(exc))
            return self.undo(release)

        return end

    def begin(self, commit: str, source: Callable[[Path], Path]) -> str:
        """Begin a release folder with the wheel in it, and look into that."""
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        self.release = self.place.begun(f"unbuilt+{commit[:7]}-{stamp}")
        wheel = source(self.release.path)
        self.version = look_into(wheel)
        named = self.release.path.with_name(f"{self.version}+{commit[:7]}-{stamp}")
        self.release = Release(self.release.path.rename(named))
        return f"{wheel.name}, {self.wheel.stat().st_size:,} bytes, whole"

    @property
    def wheel(self) -> Path:
        """The wheel of the release that is being made."""
        return next(self.release.path.glob("*.whl"))

    def install(self) -> str:
        """Make the release's venv and install the wheel in it."""
        links = getattr(self.options, "find_links", None)
        install(
            self.flow,
            self.wheel,
            self.release.path / "venv",
            reuse=getattr(self.options, "reuse_environment", False),
            find_links=Path(links) if links else None,
        )
        return self.release.path.name

    def imports(self) -> str:
        """Import the release where it is installed."""
        code = "import zejzl, ai_framework; print(zejzl.__version__, zejzl.__file__)"
        python = self.release.zejzl.with_name("python")
        said = asked(python, "-c", code, home=self.release.path)
        version, _, file = said.stdout.strip().partition(" ")
        inside = Path(file).is_relative_to(self.release.path)
        if version != self.version or not inside:
            raise Failed(f"what is imported is zejzl {version} of {file}")
        return f"zejzl {version}"

    @property
    def remedy(self) -> str:
        """The command that brings this environment back."""
        return f"./orchestrate.sh recovery{' --staging' if self.place.name == 'staging' else ''}"

    def smoke_alone(self) -> str:
        """Have the release answer, before anything depends on it."""
        try_out(self.release.zejzl, self.version)
        return "answers"

    def back_up(self, previous: Release | None) -> str:
        """Back up the environment's store, and note how to take back what comes."""
        state = store_state(self.release.zejzl, self.place.home)
        if state["problems"]:
            raise Failed(f"the store is not well: {state['problems'][0]}; {self.remedy}")
        name = previous.path.name if previous else None
        if not state["exists"]:
            self.release.keep(STORE, {"previous": name, "backup": None, "schema": None})
            raise Skipped("there is no store yet")
        if state["open_stores"] and state["schema"] != state["known_schema"]:
            raise Failed(
                f"the store has schema {state['schema']} and the release needs "
                f"{state['known_schema']}, but a bus runs on it: stop that, and deploy again"
            )
        made = store_done(
            self.release.zejzl, self.place.home, "backup", f"--folder={self.place.backups}"
        )
        undo = {"previous": name, "backup": made["path"], "schema": state["schema"]}
        self.release.keep(STORE, undo)
        return f"{made['path']}, {made['bytes']:,} bytes, verified"

    def migrate(self) -> str:
        """Bring the environment's store up to date."""
        was = self.release.store["schema"]
        if was is None:
            raise Skipped("there is no store yet")
        migrate(self.release.zejzl, self.place.database)
        state = store_state(self.release.zejzl, self.place.home)
        if state["problems"]:
            raise Failed(f"it left the store unwell: {state['problems'][0]}")
        now = state["schema"]
        return f"schema {was}, as it was" if was == now else f"from schema {was} to {now}"

    def record(self, commit: str) -> str:
        """Write RELEASE.json, and let the link lead to the release."""
        self.release.keep(
            FACTS,
            {
                "v": 1,
                "version": self.version,
                "commit": commit,
                "environment": self.place.name,
                "wheel": self.wheel.name,
                "sha256": digest(self.wheel),
                "at": datetime.now(UTC).isoformat(timespec="microseconds"),
                "proven": False,
            },
        )
        return self.switched(self.release)

    def switched(self, release: Release) -> str:
        """Let the link lead to a release, in one step."""
        self.place.switch(release)
        return f"{self.place.link} leads to {release.path.name}"

    def smoke(self, release: Release, path: Path) -> str:
        """Have a release answer and look at the store, through the link."""
        zejzl = path / "venv" / "bin" / "zejzl"
        try_out(zejzl, str(release.facts["version"]))
        return f"answers; {self._store_is_well(zejzl)}"

    def prove(self, release: Release) -> str:
        """Try the release through the link; from then on it can be gone back to."""
        said = self.smoke(release, self.place.link)
        release.keep(FACTS, {**release.facts, "proven": True})
        (release.path / STORE).unlink(missing_ok=True)  # from here on nothing is taken back
        return said

    def tried(self, release: Release) -> bool:
        """Say whether a release that was proven is still well."""
        try:
            self.smoke(release, self.place.link)
        except Failed as exc:
            self.flow.say(f"           {release.path.name} is not well: {exc}")
            return False
        return release.proven

    def undo(self, release: Release) -> str:
        """Lead the link back, take back what was done to the store, delete the release."""
        done = []
        begun = release.store
        if release == self.place.current:
            previous = next(
                (one for one in self.place.proven() if one.path.name == begun.get("previous")), None
            )
            self.place.switch(previous)
            done.append(f"back to {previous.path.name}" if previous else "no release is current")
        if begun.get("backup") and self._schema(release) != begun["schema"]:
            store_done(release.zejzl, self.place.home, "restore", begun["backup"])
            done.append(f"the store is again as in {Path(begun['backup']).name}")
        release.remove()
        return "; ".join([*done, f"{release.path.name} deleted"])

    def _schema(self, release: Release) -> int | None:
        schema: int | None = store_state(release.zejzl, self.place.home).get("schema")
        return schema

    def prune(self) -> str:
        """Delete old releases."""
        gone = remove_old(self.flow.root)
        return f"deleted: {', '.join(gone)}" if gone else "none to delete"

    def _store_is_well(self, zejzl: Path) -> str:
        state = store_state(zejzl, self.place.home)
        if state["problems"]:
            raise Failed(f"the store is not well: {state['problems'][0]}")
        return "the store is whole" if state["exists"] else "there is no store yet"


def told(what: str, work: Callable[[], str | None]) -> Callable[[], str | None]:
    """Give a step the words in which a dry run tells it."""

    def step() -> str | None:
        return work()

    step.__doc__ = what
    return step

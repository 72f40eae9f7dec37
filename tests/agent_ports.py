"""The ports of the update machine as fakes on disk: a runtime, downloads, an outbox.

Each keeps everything in one folder, as the real ones do, so that a process that is killed can be
followed by another one.
"""

# ruff: noqa: D102 - the ports say what each of these does

import json
import shutil
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.errors import AgentError, RuntimeAwayError, RuntimeRefusedError
from agent.messages import JobStatus
from agent.records.updates import Update
from agent.update.ports import LostError, StoppedError
from agent.update.standing import Passage, Standing

PHASES: Final = ("self-testing", "canary", "committed")
MODEL: Final = "digits"


class Runtime:
    """The daemon as the machine sees it; ``state.json`` is its disk.

    Attributes:
        is_away: Whether it answers nobody.
        refuses: Status and sentence for the next orders to stage; ``None``: it takes them.
        verdicts: How releases end, by version, where it is not with a commit: state and cause.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.json"
        self.is_away = False
        self.refuses: tuple[int, str] | None = None
        self.verdicts: dict[int, tuple[str, str]] = {}
        if not self._path.exists():
            self._save({"active": 1, "previous": None, "releases": [], "orders": [], "bad": []})

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path.read_text())
        return found

    def _save(self, state: dict[str, Any]) -> None:
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(state))
        aside.replace(self._path)

    def _answer(self) -> dict[str, Any]:
        if self.is_away:
            raise RuntimeAwayError("nobody answers")
        return self.state()

    def standing(self, model: str) -> Standing:
        state = self._answer()
        if model != MODEL:
            return Standing()
        return Standing(
            active=state["active"],
            running_digest="" if state["active"] is None else f"digest-{state['active']}",
            previous=state["previous"],
            override=state.get("override", ""),
            bad=frozenset(state["bad"]),
            releases=tuple(Passage(**each) for each in reversed(state["releases"])),
        )

    def stage(self, update: Update, folder: Path) -> None:
        state = self._answer()
        if self.refuses is not None:
            self._save(state | {"orders": [*state["orders"], f"refused {update.version}"]})
            raise RuntimeRefusedError(*self.refuses)
        state["orders"].append(f"stage {update.version}")
        assert (folder / "manifest.json").read_text() == update.manifest_sha256
        for each in state["releases"]:
            if each["state"] not in {"committed", "rolled-back", "failed"}:
                each |= {"state": "rolled-back", "cause": "superseded"}
        state["releases"].append(
            {
                "id": len(state["releases"]) + 1,
                "version": update.version,
                "state": "installed",
                "rollout": update.rollout,
                "manifest_sha256": update.manifest_sha256,
                "digest": f"digest-{update.version}",
                "numbers": {"blocks": 16},
            }
        )
        self._save(state)

    def revert(self, update: Update) -> None:
        state = self._answer()
        state["orders"].append(f"revert to {update.back_to}")
        if state["previous"] != update.back_to or state["active"] != update.version:
            self._save(state)
            raise RuntimeRefusedError(409, "that is not the previous version")
        state |= {"active": state["previous"], "previous": None}
        for each in state["releases"]:
            if each["version"] == update.version:
                each |= {"state": "rolled-back", "cause": "operator", "reason": "fleet"}
        self._save(state)

    def abort(self, update: Update, reason: str) -> None:
        state = self._answer()
        state["orders"].append(f"abort {update.version}")
        newest = state["releases"][-1] if state["releases"] else None
        if (
            newest is None
            or newest["rollout"] != update.rollout
            or newest["state"]
            in {
                "committed",
                "rolled-back",
            }
        ):
            self._save(state)
            raise RuntimeRefusedError(409, "nothing of that rollout is under way")
        newest |= {"state": "rolled-back", "cause": "aborted", "reason": reason}
        self._save(state)

    def progress(self) -> None:
        """Go one step further with the release under way."""
        state = self.state()
        newest = state["releases"][-1] if state["releases"] else None
        if newest is None or newest["state"] in {"committed", "rolled-back", "failed"}:
            return
        now = PHASES.index(newest["state"]) if newest["state"] in PHASES else -1
        newest["state"] = PHASES[now + 1]
        if newest["state"] == "committed":
            if newest["version"] in self.verdicts:
                ended, cause = self.verdicts[newest["version"]]
                newest |= {"state": ended, "cause": cause, "reason": "it disagrees"}
                if cause == "verdict":
                    state["bad"].append(newest["manifest_sha256"])
            else:
                state |= {"previous": state["active"], "active": newest["version"]}
        self._save(state)

    def change(self, **changes: object) -> None:
        """Let somebody else do something."""
        self._save(self.state() | changes)

    def end(self, state: str, cause: str, *, active: int | None) -> None:
        """Let the newest release end, whatever it was."""
        now = self.state()
        now["releases"][-1] |= {"state": state, "cause": cause, "reason": f"by {cause}"}
        self._save(now | {"active": active})


class Files:
    """Downloads into a folder.

    Attributes:
        raises: Errors of the next downloads, in their order.
        fetched: How often everything was fetched.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "blobs"
        self._folder.mkdir(exist_ok=True)
        self.raises: list[AgentError] = []
        self.fetched = 0
        self.waits = False
        self.begun = threading.Event()

    def _of(self, update: Update) -> Path:
        return self._folder / f"{update.version}"

    def fetch(self, update: Update, cancelled: threading.Event) -> None:
        self.begun.set()
        if self.waits:
            assert cancelled.wait(60.0)
        if cancelled.is_set():
            raise StoppedError("it was asked to")
        if self.raises:
            raise self.raises.pop(0)
        self.fetched += 1
        self._of(update).mkdir(exist_ok=True)
        (self._of(update) / "manifest.json").write_text(update.manifest_sha256)

    def is_whole(self, update: Update) -> bool:
        return (self._of(update) / "manifest.json").exists()

    def bundle(self, update: Update) -> Path:
        if not self.is_whole(update):
            raise LostError("manifest.json is not there any more")
        return self._of(update)

    def forget(self, update: Update) -> None:
        shutil.rmtree(self._of(update), ignore_errors=True)

    def lose(self) -> None:
        shutil.rmtree(self._folder)
        self._folder.mkdir()


class Outbox:
    """Job statuses, one a line, each with what really ran when it was stored.

    Attributes:
        raises: Errors of the next ones.
    """

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._path = folder / "outbox"
        self._path.touch()
        self._runtime = runtime
        self.raises: list[AgentError] = []

    def job(self, status: JobStatus) -> None:
        if self.raises:
            raise self.raises.pop(0)
        active = self._runtime.state()["active"]
        with self._path.open("a") as file:
            file.write(json.dumps([active, msgspec.to_builtins(status)]) + "\n")

    def statuses(self) -> list[tuple[int | None, dict[str, Any]]]:
        return [tuple(json.loads(line)) for line in self._path.read_text().splitlines()]

"""Who is suspected when the daemon dies under committed versions, and when it is enough."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_runtime.release.crash_loop import DIED, end_crash_loop
from edge_runtime.release.journal import Journal
from edge_runtime.release.records import Release, Slots
from edge_runtime.release.recovery import Crash
from edge_runtime.settings import Release as Settings
from edge_runtime.store.store import Store
from tests.release_records import release, transition

SETTINGS = Settings(committed_crashes_max=2, crash_window_s=100.0, crash_suspect_s=1000.0)


class Device:
    """A journal with what was committed, and daemons that die.

    Args:
        folder: For its files.
    """

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "runtime.db").open()
        self.folder = folder / "store"
        self.store = Store(self.folder, reserve_bytes=0, bundle_bytes=1)
        self.loaded: set[tuple[str, int]] = set()
        self.awake_s = 10.0

    def commit(self, model: str, version: int) -> Release:
        """Commit a version that is active from now on, and in memory."""
        sha = f"{model}{version}".encode().hex().rjust(64, "0")
        begun = release(model, version, manifest_sha256=sha, state="probation")
        before = self.journal.insert(begun)
        after = msgspec.structs.replace(before, state="committed", digest="e" * 64)
        row = msgspec.structs.replace(transition(before, after), awake_s=self.awake_s)
        slots = self.journal.slots(model).committed(version, "store", after.digest)
        self.journal.move(after, row, slots=slots)
        self.loaded.add((model, version))
        return after

    def dies(self, after_s: float = 1.0, settings: Settings = SETTINGS, **crash: Any) -> bool:  # noqa: ANN401 - of ``Crash``
        """Say that a daemon died so long after its start; tell whether somebody is suspected."""
        how = Crash(**{"loaded": frozenset(self.loaded), "ran_s": after_s, **crash})
        return end_crash_loop(
            self.journal, self.store, settings, how, awake_s=self.awake_s, boot_id="boot"
        )

    def slots(self, model: str = "digits") -> Slots:
        """Say what is active."""
        return self.journal.slots(model)

    def crashes(self, model: str = "digits") -> int:
        """Count the deaths in a row of the newest release."""
        return self.journal.releases(model, limit=1)[0].crashes


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.journal.close()


def test_as_many_deaths_in_a_row_as_are_too_many_take_the_version_back(device: Device) -> None:
    bad = device.commit("digits", 2)
    assert device.dies()
    assert (device.slots().active, device.crashes()) == (2, 1)
    assert device.dies()
    assert device.slots().active is None
    assert "the daemon died 2 times in a row" in device.slots().disabled
    found = device.journal.releases("digits")[0]
    assert (found.state, found.cause, found.crashes) == ("rolling-back", "crashed", 2)
    assert device.journal.bad(bad.manifest_sha256) is not None
    rows = device.journal.history("digits")
    assert [(row.event, row.from_state, row.to_state) for row in rows[:2]] == [
        ("roll-back", "committed", "rolling-back"),
        (DIED, "committed", "committed"),
    ]
    assert rows[0].numbers["in_a_row"] == 2
    assert not device.dies(), "nothing is left to be suspected"


def test_of_several_the_one_committed_last_is_suspected_and_then_the_next(device: Device) -> None:
    for model in ("digits", "faces"):
        device.commit(model, 1)
    device.commit("digits", 2)
    device.dies()
    assert device.crashes("faces") == 0
    device.dies()
    assert device.slots("faces").active == 1
    back = device.slots("digits")
    assert (back.active, "is not in the store any more" in back.disabled) == (None, True)
    device.dies()
    assert device.crashes("faces") == 1


@pytest.mark.parametrize(
    "crash",
    [
        {"loaded": None},
        {"ran_s": None},
        {"loaded": frozenset({("digits", 1)})},
        {"ran_s": 101.0},
    ],
    ids=["nobody knows what was in memory", "or how long", "another version", "it ran for long"],
)
def test_who_can_not_be_told_is_not_blamed(device: Device, crash: dict[str, Any]) -> None:
    device.commit("digits", 2)
    for _ in range(3):
        assert not device.dies(**crash)
    assert (device.slots().active, device.crashes()) == (2, 0)


def test_what_was_committed_long_ago_is_not_suspected(device: Device) -> None:
    device.commit("digits", 2)
    device.awake_s += 1001.0
    assert not device.dies()


def test_deaths_that_lie_far_apart_are_not_in_a_row(device: Device) -> None:
    device.commit("digits", 2)
    for _ in range(5):
        assert device.dies()
        assert device.crashes() == 1
        device.awake_s += 101.0  # it ran well and stopped in order
    device.dies()
    assert not device.dies(after_s=500.0), "one that lived long ends the row"
    assert device.crashes() == 0
    device.dies()
    assert (device.slots().active, device.crashes()) == (2, 1)


def test_nothing_is_counted_where_the_owner_says_never(device: Device) -> None:
    device.commit("digits", 2)
    assert not device.dies(settings=Settings(committed_crashes_max=0))
    assert device.crashes() == 0


def test_while_a_candidate_may_have_done_it_no_committed_version_is_suspected(
    device: Device,
) -> None:
    device.commit("digits", 2)
    device.journal.insert(release("digits", 3, state="canary"))
    assert device.dies(), "it was not in memory"
    device.loaded.add(("digits", 3))
    assert not device.dies()
    assert device.slots().active == 2


def test_deaths_before_its_commit_are_not_its_own(device: Device) -> None:
    device.commit("digits", 2)
    device.dies()
    device.commit("digits", 3)
    device.dies()
    assert (device.slots().active, device.crashes()) == (3, 1)


def loop(device: Device) -> None:
    """Let the daemon die as often as is too many."""
    for _ in range(SETTINGS.committed_crashes_max):
        device.dies()


def installed(device: Device, model: str, version: int) -> None:
    """Put a version into the store, as far as anybody looks at it here."""
    place = device.folder / "models" / model / str(version)
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    device.folder.chmod(0o700)


def test_what_answers_since_a_crash_loop_is_not_taken_back_by_one(device: Device) -> None:
    first = device.commit("digits", 1)
    installed(device, "digits", 1)
    device.commit("digits", 2)
    device.loaded = {("digits", 2)}
    loop(device)
    assert (device.slots().active, device.slots().previous) == (1, None)
    device.loaded = {("digits", 1)}
    for _ in range(4):
        loop(device)
    assert (device.slots().active, device.slots().disabled) == (1, "")
    assert device.journal.bad(first.manifest_sha256) is None
    kept = device.journal.releases("digits")[1]
    assert (kept.version, kept.state, kept.cause) == (1, "committed", "crashed")
    assert "it dies of something else, so this version stays" in kept.reason
    rows = [row for row in device.journal.history("digits") if row.event == DIED]
    assert [row.version for row in rows] == [1, 1, 2], "and no more rows for ever"
    assert rows[0].reason == kept.reason
    device.dies(after_s=500.0)
    kept = device.journal.releases("digits")[1]
    assert (kept.crashes, kept.cause, kept.reason) == (0, first.cause, first.reason)


def test_nothing_is_disabled_once_taking_a_version_back_did_not_help(device: Device) -> None:
    device.commit("faces", 1)
    device.commit("digits", 1)
    installed(device, "digits", 1)
    device.commit("digits", 2)
    for _ in range(5):
        loop(device)
    assert (device.slots().active, device.slots("faces").active) == (1, 1)
    assert "this version stays" in device.journal.releases("faces")[0].reason


def test_with_others_in_memory_nothing_is_remembered_as_bad(device: Device) -> None:
    device.commit("faces", 1)
    bad = device.commit("digits", 2)
    loop(device)
    assert device.slots().active is None
    assert device.journal.bad(bad.manifest_sha256) is None
    reason = device.journal.releases("digits")[0].reason
    assert reason.endswith("it may have been faces version 1, which was in memory as well")

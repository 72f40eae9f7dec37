"""Keeping a repository: refreshed, given new keys, and its damage found."""

import contextlib
import json
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tuf.api.metadata import TargetFile

from edge_runtime.manifest import MANIFEST_FILE
from fleet.documents.paths import artifact_file_path
from fleet.documents.release import GuardRails
from fleet.errors import BadInputError, RepositoryError
from fleet.repository import draft
from fleet.repository.disk import write_new
from fleet.repository.key_files import Keys
from fleet.repository.refreshing import refresh
from fleet.repository.roles import RULES
from fleet.repository.rotation import rotate
from fleet.repository.settings import read_settings
from fleet.repository.state import State, now, read_state
from fleet.repository.verification import verify
from tests.repositories import (
    TestRepository,
    new_repository,
    problems,
    refused,
    tree,
)
from tests.store_bundles import EXTERNAL

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LARGE = bytes(range(256)) * 6000


@pytest.fixture
def repository(tmp_path: Path) -> TestRepository:
    return new_repository(tmp_path)


def test_refresh_signs_what_is_half_through_its_time(tmp_path: Path) -> None:
    repository = new_repository(tmp_path, at=BEGIN)
    repository.add_bundle(at=BEGIN)
    repository.set_plan(at=BEGIN)
    layout, keys = repository.layout, Keys([repository.keys_folder / "online"])
    before = tree(repository.folder)
    done = refresh(layout, keys, older_than=None, now=BEGIN + timedelta(days=3))
    assert (done.signed.versions, done.warnings) == ({}, ())
    assert tree(repository.folder) == before
    done = refresh(layout, keys, older_than=None, now=BEGIN + timedelta(days=4))
    assert list(done.signed.versions) == ["timestamp"]
    later = BEGIN + timedelta(days=19)
    done = refresh(layout, keys, older_than=None, now=later)
    assert list(done.signed.versions) == ["rollouts", "snapshot", "timestamp"]
    assert repository.plans().issued_s == later.timestamp()
    assert repository.plans().plans[0].sequence == 1
    assert repository.state().rollouts.signed.expires == later + timedelta(days=30)


def test_refresh_issues_plans_anew_before_devices_hold_for_their_age(tmp_path: Path) -> None:
    repository = new_repository(tmp_path, at=BEGIN)
    repository.add_bundle(at=BEGIN, guard_rails=GuardRails(plan_age_s_max=86_400.0))
    repository.set_plan(at=BEGIN)
    layout, keys = repository.layout, Keys([repository.keys_folder / "online"])
    early, late = BEGIN + timedelta(hours=11), BEGIN + timedelta(hours=12)
    assert refresh(layout, keys, older_than=None, now=early).signed.versions == {}
    done = refresh(layout, keys, older_than=None, now=late)
    assert list(done.signed.versions) == ["rollouts", "snapshot", "timestamp"]
    assert repository.plans().issued_s == late.timestamp()


def test_refresh_issues_plans_anew_that_are_dated_after_now(tmp_path: Path) -> None:
    repository = new_repository(tmp_path, at=BEGIN)
    repository.add_bundle(at=BEGIN)
    repository.set_plan(at=BEGIN + timedelta(days=20))
    at = BEGIN + timedelta(hours=1)
    done = refresh(repository.layout, repository.keys, older_than=None, now=at)
    assert list(done.signed.versions) == ["rollouts", "snapshot", "timestamp"]
    assert repository.plans().issued_s == at.timestamp()
    again = refresh(repository.layout, repository.keys, older_than=None, now=at)
    assert again.signed.versions == {}


@pytest.mark.parametrize("role", ["rollouts", "snapshot", "timestamp"])
def test_new_online_keys_issue_plans_anew_that_are_dated_after_now(
    tmp_path: Path, role: str
) -> None:
    repository = new_repository(tmp_path, at=BEGIN)
    repository.add_bundle(at=BEGIN)
    repository.set_plan(at=BEGIN + timedelta(days=20))
    at = BEGIN + timedelta(hours=1)
    layout, keys = repository.layout, repository.keys
    rotate(layout, role, keys, tmp_path / "new", passphrase=None, now=at)
    assert repository.plans().issued_s == at.timestamp()
    assert repository.plans().plans[0].sequence == 1


def test_new_online_keys_need_no_key_of_plans_that_are_dated_after_now(tmp_path: Path) -> None:
    repository = new_repository(tmp_path, at=BEGIN)
    repository.add_bundle(at=BEGIN)
    ahead = BEGIN + timedelta(days=20)
    repository.set_plan(at=ahead)
    for path in repository.keys_folder.rglob("*rollouts*"):
        path.unlink()
    at = BEGIN + timedelta(hours=1)
    rotate(
        repository.layout, "timestamp", repository.keys, tmp_path / "new", passphrase=None, now=at
    )
    assert repository.plans().issued_s == ahead.timestamp()


def test_refresh_warns_of_what_needs_an_offline_key_and_uses_it_if_it_is_there(
    tmp_path: Path,
) -> None:
    repository = new_repository(tmp_path, at=BEGIN)
    later = BEGIN + timedelta(days=200)
    online = Keys([repository.keys_folder / "online"])
    done = refresh(repository.layout, online, older_than=None, now=later)
    assert len(done.warnings) == 1
    assert done.warnings[0].startswith("releases expires in 165 days")
    every = refresh(repository.layout, repository.keys, older_than=None, now=later)
    assert "releases" in every.signed.versions
    much_later = BEGIN + timedelta(days=1000)
    done = refresh(repository.layout, online, older_than=None, now=much_later)
    assert [warning.split()[0] for warning in done.warnings] == ["root", "targets", "releases"]
    assert "has expired" in done.warnings[0]


@pytest.mark.parametrize("role", RULES)
def test_a_role_gets_new_keys_and_clients_follow(
    repository: TestRepository, tmp_path: Path, role: str
) -> None:
    repository.add_bundle()
    repository.set_plan()
    old = set(repository.state().authority(role).get_delegated_role(role).keyids)
    done = rotate(
        repository.layout, role, repository.keys, tmp_path / "new", passphrase=None, now=now()
    )
    assert set(done.gone) == old
    assert problems(repository) == ()  # from the first root on
    state = repository.state()
    named = set(state.authority(role).get_delegated_role(role).keyids)
    assert named == {key.public.keyid for key in done.made}
    assert not named & old
    assert repository.root.read_bytes() == (
        repository.layout.metadata_file("root", state.root.signed.version).read_bytes()
    )
    keys = Keys([tmp_path / "new", repository.keys_folder])
    both = refresh(repository.layout, keys, older_than=timedelta(), now=now())
    assert list(both.signed.versions) == ["rollouts", "snapshot", "timestamp"]
    assert problems(repository) == ()
    if role in {"rollouts", "snapshot", "timestamp"}:
        before = tree(repository.folder)
        with pytest.raises(BadInputError, match=f"{role} is signed"):
            refresh(repository.layout, repository.keys, older_than=timedelta(), now=now())
        assert tree(repository.folder) == before


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_rotation_that_was_stopped_before_its_last_step_is_ended_by_refresh(
    repository: TestRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    def full(path: Path, data: bytes) -> None:
        del data
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(draft, "replace", full)  # the timestamp, and the root for new devices
    new = tmp_path / "new"
    with pytest.raises(OSError, match="No space left"):
        rotate(repository.layout, role, repository.keys, new, passphrase=None, now=now())
    assert problems(repository)
    monkeypatch.undo()
    keys = Keys([repository.keys_folder, new])
    refresh(repository.layout, keys, older_than=None, now=now())
    assert problems(repository) == ()
    assert verify(repository.layout, now=now()).warnings == ()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_a_root_is_written_waits_until_clients_see_all_of_it(
    repository: TestRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    def interrupted(path: Path, data: bytes) -> None:
        signal.raise_signal(number)
        write_new(path, data)

    monkeypatch.setattr(draft, "write_new", interrupted)
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            rotate(
                repository.layout,
                "timestamp",
                repository.keys,
                tmp_path / "new",
                passphrase=None,
                now=now(),
            )
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    monkeypatch.undo()
    assert repository.state().root.signed.version == 2
    assert problems(repository) == ()
    keys = Keys([tmp_path / "new", repository.keys_folder])
    refresh(repository.layout, keys, older_than=timedelta(), now=now())
    assert problems(repository) == ()


def test_a_rotation_that_cannot_be_leaves_no_trace(
    repository: TestRepository, tmp_path: Path
) -> None:
    def rotated(role: str, folder: Path, keys: Keys) -> Callable[[], object]:
        return lambda: rotate(repository.layout, role, keys, folder, passphrase=None, now=now())

    new, keys = tmp_path / "new", repository.keys
    refused(repository, BadInputError, "there is no role 'roof'", rotated("roof", new, keys))
    inside = repository.folder / "keys"
    refused(repository, BadInputError, "everybody may read", rotated("root", inside, keys))
    offline = Keys([repository.keys_folder / "offline"])
    refused(repository, BadInputError, "snapshot is signed", rotated("targets", new, offline))
    key = repository.keys_folder / "online" / "timestamp.pem"
    refused(repository, BadInputError, "is no folder", rotated("rollouts", key, keys))


def test_every_kind_of_damage_is_found(repository: TestRepository) -> None:
    repository.add_bundle({"a/model.onnx": EXTERNAL, "a/weights.bin": LARGE})
    repository.set_plan()
    layout = repository.layout
    plans = next((layout.artifacts / "rollouts").iterdir())
    newest = layout.versions("releases")[-1]
    for path, words in (
        (repository.artifact("a/weights.bin"), "was changed"),
        (repository.artifact("a/weights.bin.chunks"), "was changed"),
        (repository.artifact(MANIFEST_FILE), "was changed"),
        (plans, "was changed"),
        (layout.metadata_file("releases", newest), "restore it from a copy"),
        (layout.metadata_file("timestamp", 0), "restore it from a copy"),
        (layout.metadata_file("root", 1), "restore it from a copy"),
        (layout.root, "is not the newest root"),
    ):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"1", b"2", 1)[:-1] + b" ")
        assert any(words in problem for problem in problems(repository)), (path, words)
        path.unlink()
        with contextlib.suppress(OSError):
            assert problems(repository), path
        path.write_bytes(data)
    assert problems(repository) == ()


def test_metadata_that_somebody_else_signed_are_not_built_upon(
    repository: TestRepository,
) -> None:
    path = repository.layout.metadata_file("releases", 1)
    forged = json.loads(path.read_bytes())
    forged["signed"]["version"] = 7
    repository.layout.metadata_file("releases", 7).write_text(json.dumps(forged), "utf-8")
    assert repository.state().releases.signed.version == 1
    assert repository.add_bundle().signed.versions["releases"] == 8  # no name is used twice


def test_nothing_is_built_upon_an_older_state_than_clients_see(
    repository: TestRepository,
) -> None:
    repository.add_bundle()
    path = repository.layout.metadata_file("releases", 2)
    path.write_bytes(path.read_bytes().replace(b'"counter":1', b'"counter":2'))
    with pytest.raises(RepositoryError, match="no version 2 or later of releases"):
        read_state(repository.layout)


def test_an_expired_repository_is_reported(tmp_path: Path) -> None:
    repository = new_repository(tmp_path, at=now() - timedelta(days=8))
    assert "a client refuses it" in problems(repository)[0]
    repository.refresh()
    assert problems(repository) == ()
    found = verify(repository.layout, now=now() + timedelta(days=6))
    assert any(warning.startswith("timestamp expires in 24 h") for warning in found.warnings)


def _tampered(repository: TestRepository, change: Callable[[State], None]) -> tuple[str, ...]:
    """Sign a mistake with the right keys, as another program might, and walk the result."""
    state, settings = read_state(repository.layout), read_settings(repository.layout)
    change(state)
    wrong = draft.Draft(repository.layout, state, settings, repository.keys, now())
    wrong.renew("releases")
    wrong.renew("rollouts")
    wrong.write(publish=True)
    return problems(repository)


def test_what_is_signed_and_still_wrong_is_found(repository: TestRepository) -> None:
    large = {"a/model.onnx": EXTERNAL, "a/weights.bin": LARGE}
    repository.add_bundle(large)
    repository.add_bundle({**large, "a/weights.bin": LARGE[::-1]}, version=2)
    repository.set_plan(version=2)
    good = dict(repository.state().releases.signed.targets)

    def targets(state: State) -> dict[str, Any]:
        state.releases.signed.targets = dict(good)
        return state.releases.signed.targets

    def other_file(state: State) -> None:
        targets(state)["models/m/1/a/weights.bin"] = _copy(repository, good, "a/weights.bin")

    def other_index(state: State) -> None:
        targets(state)["models/m/1/a/weights.bin.chunks"] = _copy(
            repository, good, "a/weights.bin.chunks"
        )

    def no_file(state: State) -> None:
        del targets(state)["models/m/1/a/model.onnx"]

    def no_release(state: State) -> None:
        every = targets(state)
        for path in [path for path in every if path.startswith("models/m/2/")]:
            del every[path]

    def outside(state: State) -> None:
        target = good["models/m/1/a/model.onnx"]
        targets(state)["elsewhere/x"] = TargetFile(target.length, target.hashes, "elsewhere/x")

    for words, change in (
        ("is not the file that the manifest names", other_file),
        ("is the index of another file", other_index),
        ("is in the manifest, and not an artifact", no_file),
        ("wants m version 2, which is not released", no_release),
        ("clients do not believe it there", outside),
    ):
        assert any(words in each for each in _tampered(repository, change)), words
    assert _tampered(repository, lambda state: targets(state).clear()) != ()


def _copy(repository: TestRepository, good: dict[str, TargetFile], file: str) -> TargetFile:
    """Put a file of version 2 under the name that it has in version 1."""
    source = good[f"models/m/2/{file}"]
    target = TargetFile(source.length, source.hashes, f"models/m/1/{file}")
    place = repository.layout.artifacts / artifact_file_path(target.path, source.hashes["sha256"])
    shutil.copyfile(repository.artifact(file, version=2), place)
    return target

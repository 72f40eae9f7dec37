"""A new repository: its keys, its roles, and what may sign what."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_runtime.trust.signatures import SigningKey
from fleet.errors import BadInputError
from fleet.repository import creation
from fleet.repository.creation import NewRepository, create
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.overview import overview
from fleet.repository.refreshing import publish, refresh
from fleet.repository.state import now
from tests.repositories import (
    TestRepository,
    new_repository,
    problems,
    refused,
    tree,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path: Path) -> TestRepository:
    return new_repository(tmp_path)


def test_a_new_repository_is_whole_and_only_its_owner_can_read_the_keys(
    repository: TestRepository,
) -> None:
    assert problems(repository) == ()
    names = sorted(
        path.relative_to(repository.keys_folder).as_posix() for path in _keys(repository)
    )
    assert names == [
        "offline/releases.pem",
        "offline/root-1.pem",
        "offline/root-2.pem",
        "offline/root-3.pem",
        "offline/targets.pem",
        "online/rollouts.pem",
        "online/snapshot.pem",
        "online/timestamp.pem",
    ]
    for path in _keys(repository):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.with_suffix(".pub").is_file()
    assert repository.root.read_bytes() == (repository.layout.metadata / "1.root.json").read_bytes()


def _keys(repository: TestRepository) -> list[Path]:
    return list(repository.keys_folder.rglob("*.pem"))


def test_a_key_of_the_repository_is_a_key_of_the_other_programs(
    repository: TestRepository,
) -> None:
    for path in _keys(repository):
        assert SigningKey.read(path.read_bytes(), path.name).public_key


def test_root_is_signed_by_all_and_needs_its_threshold(repository: TestRepository) -> None:
    root = repository.state().root
    assert len(root.signatures) == 3
    assert root.signed.roles["root"].threshold == 2
    assert root.signed.consistent_snapshot


def test_each_role_may_sign_its_paths_and_no_others(repository: TestRepository) -> None:
    delegations = repository.state().targets.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    releases, rollouts = delegations.roles["releases"], delegations.roles["rollouts"]
    assert releases.terminating
    assert rollouts.terminating
    assert releases.is_delegated_path("models/m/1/manifest.json")
    assert releases.is_delegated_path("models/m/1/a/b/c/d/e/f/g/weights.bin")
    assert not releases.is_delegated_path("rollouts/stable.json")
    assert rollouts.is_delegated_path("rollouts/stable.json")
    assert not rollouts.is_delegated_path("models/m/1/manifest.json")
    assert not rollouts.is_delegated_path("rollouts/deep/stable.json")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (NewRepository(fleet="Fleet"), "small letters"),
        (NewRepository(fleet="f", root_keys=1), "2 of 1 keys"),
        (NewRepository(fleet="f", root_threshold=0), "0 of 3 keys"),
        (NewRepository(fleet="f", root_keys=33), "at least 1 of at most 32"),
        (NewRepository(fleet="f", expires_days={"roof": 3}), "there is no role 'roof'"),
        (NewRepository(fleet="f", expires_days={"root": 0}), "root cannot last 0 days; write 1 to"),
    ],
)
def test_a_repository_that_cannot_be_is_not_begun(
    tmp_path: Path, wanted: NewRepository, words: str
) -> None:
    with pytest.raises(BadInputError, match=words):
        create(Layout(tmp_path / "r"), tmp_path / "k", wanted, passphrase=None, now=BEGIN)
    assert not tree(tmp_path)


def test_a_repository_is_made_where_nothing_is(repository: TestRepository, tmp_path: Path) -> None:
    wanted = NewRepository(fleet="f")

    def make(folder: Path, keys: Path) -> Callable[[], object]:
        return lambda: create(Layout(folder), keys, wanted, passphrase=None, now=BEGIN)

    new = tmp_path / "new"
    refused(repository, BadInputError, "not empty", make(repository.folder, tmp_path / "k"))
    refused(repository, BadInputError, "is there already", make(new, repository.keys_folder))
    refused(repository, BadInputError, "which everybody may read", make(new, new / "keys"))
    refused(repository, BadInputError, "make it first", make(tmp_path / "a" / "b", tmp_path / "k"))
    refused(repository, BadInputError, "is no folder", make(new, repository.root / "k"))


def test_keys_may_be_encrypted_and_are_asked_for_once_each(tmp_path: Path) -> None:
    layout, folder = Layout(tmp_path / "r"), tmp_path / "k"
    create(layout, folder, NewRepository(fleet="f"), passphrase=b"word", now=now())
    asked: list[Path] = []

    def ask(file: Path) -> bytes:
        asked.append(file)
        return b"word"

    refresh(layout, Keys([folder], ask), older_than=timedelta(), now=now())
    assert sorted(path.stem for path in asked) == ["rollouts", "snapshot", "timestamp"]
    with pytest.raises(BadInputError, match=r"is encrypted; set EDGE_FLEET_PASSPHRASE"):
        refresh(layout, Keys([folder]), older_than=timedelta(), now=now())
    wrong = Keys([folder], lambda _: b"wrong")
    with pytest.raises(BadInputError, match="cannot be opened with this passphrase"):
        refresh(layout, wrong, older_than=timedelta(), now=now())


def test_a_folder_that_is_no_repository_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is not a repository; `edge-fleet repo init`"):
        overview(Layout(tmp_path))
    with pytest.raises(BadInputError, match="is not a repository"):
        publish(Layout(tmp_path), Keys([]), now=now())
    assert not tree(tmp_path)


def test_a_disk_that_is_full_leaves_neither_a_repository_nor_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        del data
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(creation, "write_new", full)
    with pytest.raises(OSError, match="No space left"):
        new_repository(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    new_repository(tmp_path)

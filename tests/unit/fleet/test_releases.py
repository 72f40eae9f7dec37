"""Releases: added whole or not at all, and never changed afterwards."""

import fcntl
import shutil
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import ArtifactError
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge_runtime.trust.signatures import read_signatures, signers
from fleet.documents.errors import DocumentError
from fleet.documents.release import GuardRails, Requires
from fleet.errors import BadInputError, RefusedError
from fleet.repository import draft
from fleet.repository.addition import NewRelease, add_release
from fleet.repository.key_files import Keys
from fleet.repository.plans import set_plan
from fleet.repository.refreshing import publish, refresh
from fleet.repository.rotation import rotate
from fleet.repository.state import now
from fleet.repository.verification import verify
from tests.repositories import (
    CHANNEL,
    MODEL,
    SIGNER,
    TestRepository,
    new_repository,
    problems,
    refused,
    tree,
    write_bundle,
)
from tests.signing import signing_key
from tests.store_bundles import EXTERNAL, ONNX, WEIGHTS, contents

LARGE = bytes(range(256)) * 6000


@pytest.fixture
def repository(tmp_path: Path) -> TestRepository:
    return new_repository(tmp_path)


def test_a_release_is_files_facts_and_chunk_indexes(repository: TestRepository) -> None:
    files = {**contents(), "a/weights.bin": LARGE}
    added = repository.add_bundle(files, requires=Requires(arch=("aarch64",)))
    assert added.is_new
    assert added.files == len(files) + 3
    assert problems(repository) == ()
    for file, data in files.items():
        assert repository.artifact(file).read_bytes() == data
    facts = repository.facts()
    assert (facts.counter, facts.min_counter, facts.requires.arch) == (1, 0, ("aarch64",))
    index = repository.chunks("a/weights.bin")
    assert b"".join(LARGE[c.offset : c.offset + c.size] for c in index.chunks) == LARGE
    assert not list(repository.folder.glob(".staging-*"))


def test_a_file_without_chunks_is_told_to_have_none(repository: TestRepository) -> None:
    files = {"a/model.onnx": EXTERNAL, "a/weights.bin": LARGE}
    assert repository.add_bundle(files, chunks=False).files == 4


def test_the_manifest_is_signed_by_the_publisher_if_nobody_has(
    repository: TestRepository,
) -> None:
    repository.add_bundle()
    key = signing_key(SIGNER)
    signatures = read_signatures(repository.artifact(SIGNATURE_FILE).read_bytes(), "sig")
    message = repository.artifact(MANIFEST_FILE).read_bytes()
    assert signers(message, signatures, {key.key_id: key.public_key}) == {key.key_id}


def test_an_unsigned_manifest_is_refused_unless_that_is_meant(
    repository: TestRepository,
) -> None:
    bundle = write_bundle(repository.folder.parent / "b", {"model.onnx": ONNX})
    words = r"has no manifest\.sig"
    refused(repository, RefusedError, words, lambda: repository.add(bundle, sign=None))
    assert repository.add_bundle(sign=None, allow_unsigned=True).files == 2


def test_the_same_bundle_may_be_added_again(repository: TestRepository) -> None:
    repository.add_bundle(min_counter=1)
    before = tree(repository.folder)
    assert not repository.add_bundle().is_new
    assert tree(repository.folder) == before


def test_what_is_released_never_changes(repository: TestRepository, tmp_path: Path) -> None:
    repository.add_bundle()
    other = write_bundle(tmp_path / "other", {"a/model.onnx": EXTERNAL, "a/weights.bin": WEIGHTS})
    same = tmp_path / "bundle-m-1"
    for words, act in (
        (r"with another manifest\.json", lambda: repository.add(other)),
        (
            r"with another manifest\.sig",
            lambda: repository.add(same, sign=signing_key("somebody")),
        ),
        ("with other counters", lambda: repository.add(same, counter=5)),
        (
            "or guard-rails",
            lambda: repository.add(same, guard_rails=GuardRails(channels=("x",))),
        ),
    ):
        refused(repository, RefusedError, words, act)


def test_versions_and_counters_do_not_go_back(repository: TestRepository, tmp_path: Path) -> None:
    repository.add_bundle(version=3, counter=9, min_counter=9)
    assert repository.add_bundle(model="other").facts.counter == 1
    two = write_bundle(tmp_path / "two", {"x.onnx": ONNX}, version=2)
    four = write_bundle(tmp_path / "four", {"x.onnx": ONNX}, version=4)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (RefusedError, "comes before version 3", {"bundle": two}),
        (RefusedError, "does not rise above 9", {"bundle": four, "counter": 9}),
        (RefusedError, "goes below 9", {"bundle": four, "min_counter": 8}),
        (DocumentError, "above its own counter", {"bundle": four, "min_counter": 12}),
    ]
    for error, words, wanted in cases:
        refused(repository, error, words, partial(repository.add, **wanted))
    facts = repository.add(four).facts
    assert (facts.counter, facts.min_counter) == (10, 9)


def test_a_bundle_that_is_not_good_leaves_no_trace(
    repository: TestRepository, tmp_path: Path
) -> None:
    broken = write_bundle(tmp_path / "broken", contents())
    (broken / "a" / "weights.bin").write_bytes(WEIGHTS[:-1] + b"x")
    longer = write_bundle(tmp_path / "longer", contents())
    (longer / "b.onnx").write_bytes(ONNX * 2)
    missing = write_bundle(tmp_path / "missing", contents())
    (missing / "b.onnx").unlink()
    unnamed = write_bundle(tmp_path / "unnamed", {"model.onnx": EXTERNAL})
    deep = write_bundle(tmp_path / "deep", {"1/2/3/4/5/6/7/8/model.onnx": ONNX})
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    for error, words, bundle in (
        (ArtifactError, "weights.bin has SHA-256", broken),
        (ArtifactError, "b.onnx has", longer),
        (ArtifactError, "b.onnx", missing),
        (ArtifactError, "weights.bin", unnamed),
        (RefusedError, "folders deep", deep),
        (ArtifactError, "manifest.json", nothing),
        (BadInputError, "is not there", tmp_path / "void"),
    ):
        refused(repository, error, words, partial(repository.add, bundle))


def test_without_its_key_nothing_is_signed(repository: TestRepository, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", {"model.onnx": ONNX})
    online = Keys([repository.keys_folder / "online"])
    offline = Keys([repository.keys_folder / "offline"])
    repository.add_bundle()
    plan = {"rollout": "r", "model": MODEL, "version": 1, "stages": [{"permyriad": 1}]}
    root = [repository.keys_folder / "offline" / "root-1.pem"]
    layout, folder = repository.layout, tmp_path / "new"

    def rotated() -> object:
        return rotate(layout, "root", Keys(root), folder, passphrase=None, now=now())

    write_bundle(tmp_path / "two", {"model.onnx": ONNX}, version=2)
    with_online = TestRepository(layout, repository.keys_folder / "online", "")
    refused(
        repository,
        BadInputError,
        "releases is signed by 1 of 1 keys, and 0 of them are in",
        lambda: with_online.add(tmp_path / "two"),
    )
    refused(
        repository,
        BadInputError,
        "rollouts is signed by 1 of 1",
        lambda: set_plan(layout, CHANNEL, plan, offline, now=now()),
    )
    refused(repository, BadInputError, "root is signed by 2 of 3 keys, and 1 of them", rotated)
    refused(
        repository,
        BadInputError,
        "snapshot is signed",
        lambda: refresh(layout, offline, older_than=timedelta(), now=now()),
    )
    refused(
        repository, BadInputError, "is not there; name the folder", lambda: Keys([tmp_path / "no"])
    )
    assert bundle.exists()
    assert online.shown.endswith("online")


def test_a_release_that_was_signed_offline_waits_until_it_is_published(
    repository: TestRepository, tmp_path: Path
) -> None:
    timestamp = repository.timestamp()
    offline = TestRepository(repository.layout, repository.keys_folder / "offline", "")
    added = offline.add_bundle()
    assert added.signed.pending == ("releases",)
    assert offline.add_bundle(version=2).signed.pending == ("releases",)
    assert repository.timestamp() == timestamp
    found = verify(repository.layout, now=now())
    assert found.problems == ()
    assert found.artifacts == 0
    assert "releases is signed and not published" in found.warnings[0]
    done = publish(repository.layout, Keys([repository.keys_folder / "online"]), now=now())
    assert list(done.signed.versions) == ["snapshot", "timestamp"]
    assert verify(repository.layout, now=now()).artifacts == 6
    assert publish(repository.layout, Keys([tmp_path / "keys"]), now=now()).signed.versions == {}


def test_versions_of_metadata_are_never_written_twice(
    repository: TestRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add_bundle()
    written = tree(repository.layout.metadata)

    def full(path: Path, data: bytes) -> None:
        del data
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(draft, "replace", full)  # the timestamp; what is before it is there
    with pytest.raises(OSError, match="No space left"):
        repository.add_bundle(version=2)
    monkeypatch.undo()
    assert problems(repository) == ()
    assert verify(repository.layout, now=now()).artifacts == 3
    repository.add_bundle(version=2)
    repository.set_plan(version=2)
    assert problems(repository) == ()
    assert verify(repository.layout, now=now()).artifacts == 7
    after = tree(repository.layout.metadata)
    assert {name: after[name] for name in written if name != "timestamp.json"} == {
        name: digest for name, digest in written.items() if name != "timestamp.json"
    }


def test_one_command_at_a_time_changes_a_repository(repository: TestRepository) -> None:
    repository.add_bundle()
    with repository.layout.lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused(repository, RefusedError, "another command changes", repository.set_plan)
    repository.set_plan()


def test_the_machine_with_the_releases_key_needs_no_artifacts_of_others(
    repository: TestRepository,
) -> None:
    repository.add_bundle({**contents(), "a/weights.bin": LARGE})
    repository.set_plan()
    shutil.rmtree(repository.layout.artifacts)
    offline = TestRepository(repository.layout, repository.keys_folder / "offline", "")
    assert offline.add_bundle(version=2).signed.pending == ("releases",)
    assert repository.add_bundle(version=2).signed.versions.keys() == {"snapshot", "timestamp"}


def test_an_interrupted_release_leaves_no_trace(repository: TestRepository) -> None:
    bundle = write_bundle(repository.folder.parent / "b", contents())

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt(done)

    def add() -> None:
        wanted = NewRelease(allow_unsigned=True)
        add_release(
            repository.layout, bundle, wanted, repository.keys, now=now(), progress=interrupt
        )

    before = tree(repository.folder)
    with pytest.raises(KeyboardInterrupt):
        add()
    assert tree(repository.folder) == before

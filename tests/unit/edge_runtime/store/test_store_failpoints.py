"""Real processes that die, fail or hang at each failpoint of the store; a disk that is full."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.errors import StorageError
from edge_runtime.failpoints import NAMES, VARIABLE
from edge_runtime.store.durable import Disk
from edge_runtime.store.store import Store
from tests.store_bundles import ONNX, contents, everything, folder, install, published, without

# Installs a bundle, or removes everything, as a daemon does.
CODE = """
import sys
from pathlib import Path
from edge_runtime.errors import ArtifactError
from edge_runtime.store.reading import SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store
store = Store(Path(sys.argv[1]), reserve_bytes=0, bundle_bytes=10**8)
try:
    if len(sys.argv) > 2:
        with source_of(Path(sys.argv[2]), SourceLimits(10**8)) as source:
            print(store.install(source, check=lambda *_: None).version)
    else:
        print(store.collect([("m", 1)]))
except ArtifactError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
NOT_INSTALLING = {"store.collect", "store.filled"}
INSTALLING = [name for name in NAMES if name.startswith("store.") and name not in NOT_INSTALLING]
FILLING = [*(name for name in INSTALLING if name != "store.renamed"), "store.filled"]
POINTS = [(name, 1) for name in INSTALLING] + [
    ("store.blob.written", 3),
    ("store.blob.synced", 3),
]
SECOND = {**contents(b"second"), "c/d/e.bin": b"third", "c/f.bin": b"fourth"}


def make(base: Path) -> Store:
    return Store(base / "store", reserve_bytes=0, bundle_bytes=10**8)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A store with version 1 of a model, and beside it a bundle of version 2."""
    install(make(tmp_path), folder(tmp_path / "first", published()))
    folder(tmp_path / "second", published(version=2, files=SECOND))
    return tmp_path


def start(base: Path, points: str, *bundle: str, before: str = "") -> subprocess.Popen[str]:
    paths = [str(base / each) for each in ("store", *bundle)]
    return subprocess.Popen(
        [sys.executable, "-c", before + CODE, *paths],
        env={**os.environ, VARIABLE: points},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(base: Path, points: str, *bundle: str) -> tuple[int, str, str]:
    with start(base, points, *bundle) as child:
        output, errors = child.communicate(timeout=60)
    return child.returncode, output, errors


@pytest.fixture
def hanging() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended after the test, whatever becomes of it."""
    children: list[subprocess.Popen[str]] = []
    yield children
    for child in children:
        with child:
            child.kill()


def check(base: Path, *perhaps: int) -> None:
    """Look as a daemon that starts: what is there is whole, and installing goes on."""
    store = make(base)
    assert set(store.versions("m")) - set(perhaps) == {1}
    for version in store.versions("m"):
        store.verify("m", version)
    store.recover()
    assert set(store.versions("m")) - set(perhaps) == {1}
    assert not [*(base / "store" / "incoming").iterdir()]
    assert all(path.lstat().st_nlink > 1 for path in (base / "store" / "blobs").iterdir())
    install(store, base / "second")
    for version in (1, 2):
        store.verify("m", version)


def test_without_failpoints_it_installs(base: Path) -> None:
    assert run(base, "", "second") == (0, "2\n", "")
    check(base, 2)


@pytest.mark.parametrize(("name", "time"), POINTS)
def test_killed_while_installing_it_is_whole_or_not_there(name: str, time: int, base: Path) -> None:
    code, output, _ = run(base, f"{name}=kill@{time}", "second")
    assert (code, output) == (-signal.SIGKILL, "")
    placed = name in {"store.renamed", "store.installed"}
    assert make(base).versions("m") == ([1, 2] if placed else [1])
    check(base, 2)


@pytest.mark.parametrize(("action", "said"), [("error", "Input/output"), ("full", "No space left")])
@pytest.mark.parametrize(("name", "time"), POINTS)
def test_a_disk_that_fails_while_installing_changes_nothing(
    name: str, time: int, action: str, said: str, base: Path
) -> None:
    code, output, errors = run(base, f"{name}={action}@{time}", "second")
    assert (code, output) == (1, "")
    assert f"StorageError: cannot install m version 2: {said}" in errors
    assert "nothing changed" in errors
    assert make(base).versions("m") == [1]
    assert not [*(base / "store" / "incoming").iterdir()]
    assert len([*(base / "store" / "blobs").iterdir()]) == len(contents())
    check(base)


@pytest.mark.parametrize(("name", "time"), POINTS)
def test_an_installation_that_hangs_holds_up_no_other_process(
    name: str, time: int, base: Path, hanging: list[subprocess.Popen[str]]
) -> None:
    child = start(base, f"{name}=hang@{time}", "second")
    hanging.append(child)
    assert child.stderr is not None
    assert any(f"failpoint {name}: hang" in line for line in child.stderr)
    store = make(base)
    store.recover()  # does not take away what somebody works at
    install(store, folder(base / "third", published(version=3, files={"x.bin": b"x", **SECOND})))
    store.verify("m", 3)
    store.remove("m", 3)
    assert child.poll() is None
    child.kill()
    child.wait()
    check(base, 2)


@pytest.mark.parametrize("action", ["kill", "error", "full", "hang"])
@pytest.mark.parametrize("name", FILLING)
def test_a_version_that_is_being_filled_up_is_whole_all_the_time(
    name: str, action: str, base: Path, hanging: list[subprocess.Popen[str]]
) -> None:
    others = {"b.onnx": ONNX * 2, "c/d.onnx": ONNX * 3}
    mixed = published(version=2, files={**contents(b"third"), **others})
    install(make(base), folder(base / "partial", without(mixed, *others)), {"v0"})
    folder(base / "whole", mixed)
    child = start(base, f"{name}={action}", "whole")
    hanging.append(child)
    assert child.stderr is not None
    assert any(f"failpoint {name}: {action}" in line for line in child.stderr)
    store = make(base)
    # It may have been filled up to the last: only its being durable is not known then.
    whole = [variant.name for variant in store.bundle("m", 2).manifest.variants]
    assert whole == (["v0", "v1", "v2"] if name == "store.installed" else ["v0"])
    store.verify("m", 2)
    if action == "hang":
        child.kill()
    child.wait(60.0)
    store.recover()
    store.verify("m", 2)
    assert not [*(base / "store" / "incoming").iterdir()]
    done = install(store, base / "whole")
    assert done.was_there
    assert len(store.verify("m", 2)) == 5
    for path in done.directory.rglob("*"):
        assert path.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("action", ["kill", "error", "full", "hang"])
def test_interrupted_removal_is_finished_at_the_next_start(
    action: str, base: Path, hanging: list[subprocess.Popen[str]]
) -> None:
    install(make(base), base / "second")
    child = start(base, f"store.collect={action}")
    hanging.append(child)
    assert child.stderr is not None
    assert any(f"failpoint store.collect: {action}" in line for line in child.stderr)
    if action == "hang":
        child.kill()
    child.wait(60.0)
    assert make(base).versions("m") == [1]
    assert len([*(base / "store" / "incoming").iterdir()]) == 1
    assert make(base).recover() > 0
    check(base)


@pytest.mark.parametrize("limit_bytes", [0, 1, 100, 2000, 5000])
def test_a_file_that_the_system_does_not_let_grow_changes_nothing(
    limit_bytes: int, base: Path
) -> None:
    limit = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
    )
    folder(base / "second", published(version=2, files={**SECOND, "large": bytes(6000)}))
    with start(base, "", "second", before=limit) as child:
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "StorageError: cannot install m version 2: File too large" in errors
    check(base)


class Optimist(Disk):
    """A disk that says that there is room, and then has none."""

    def free_bytes(self, path: Path) -> int:
        """Give more than there is."""
        return super().free_bytes(path) + 10**9


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    path = tmp_path / "disk"
    path.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root, and not in every sandbox, may mount a small file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_really_full_changes_nothing(small_disk: Path, tmp_path: Path) -> None:
    root = small_disk / "store"
    store = Store(root, reserve_bytes=0, bundle_bytes=10**8, layer=Optimist())
    install(store, folder(tmp_path / "first", published()))
    before = everything(root)
    large = {**SECOND, "large.bin": bytes(600_000), "last.bin": b"x"}
    second = folder(tmp_path / "second", published(version=2, files=large))
    (small_disk / "ballast").write_bytes(bytes(500_000))
    with pytest.raises(StorageError, match="No space left on device; nothing changed; free space"):
        install(store, second)
    assert everything(root) == before
    careful = Store(root, reserve_bytes=0, bundle_bytes=10**8)
    with pytest.raises(StorageError, match=r"m version 2 needs .* bytes on the disk"):
        install(careful, second)
    assert everything(root) == before
    # A disk that is full to the last byte serves, and lets go of what is not needed.
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "more").write_bytes(bytes(10**6))
    store.verify("m", 1)
    assert store.recover() == 0
    assert store.collect(()) > 0
    (small_disk / "ballast").unlink()
    (small_disk / "more").unlink()
    install(careful, second)
    store.verify("m", 2)


def test_a_disk_that_became_read_only_serves_and_changes_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    root = small_disk / "store"
    install(make(small_disk), folder(tmp_path / "first", published()))
    (root / "incoming" / "new-left").mkdir()
    second = folder(tmp_path / "second", published(version=2))
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    store = make(small_disk)  # a daemon that starts now
    assert store.recover() == 0
    assert store.versions("m") == [1]
    store.verify("m", 1)
    for act in (
        lambda: install(store, second),
        lambda: store.collect(()),
        lambda: store.remove("m", 1),
    ):
        with pytest.raises(StorageError, match="Read-only file system; nothing changed"):
            act()
    assert store.versions("m") == [1]
    subprocess.run([*remount[:2], "remount,rw", remount[3]], check=True)
    assert store.recover() == 0
    assert not [*(root / "incoming").iterdir()]
    install(store, second)
    assert store.versions("m") == [1, 2]

"""A cleaning that lasts long removes nothing that came, or came back, since it began."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.errors import StorageError
from edge_runtime.store.arrivals import Arrivals
from edge_runtime.store.durable import Disk
from edge_runtime.store.store import Store
from tests.store_bundles import contents, folder, install, published


class SlowDisk(Disk):
    """A disk that takes so long for a rename that other things happen first.

    Attributes:
        meanwhile: What happens at the next rename; then it is forgotten.
    """

    meanwhile: Callable[[], None] | None = None

    def rename(self, source: Path, target: Path) -> None:
        """Rename, after what happens meanwhile."""
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        super().rename(source, target)


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def store(tmp_path: Path, disk: SlowDisk) -> Store:
    """A store with versions 1 to 3."""
    made = Store(tmp_path / "store", reserve_bytes=0, bundle_bytes=10**6, layer=disk)
    for version in (1, 2, 3):
        install(made, bundle(tmp_path, version))
    return made


def bundle(tmp_path: Path, version: int) -> Path:
    files = contents(f"golden {version}".encode())
    return folder(tmp_path / f"in-{version}", published(version=version, files=files))


def test_a_version_that_is_staged_again_while_older_ones_go_stays(
    store: Store, disk: SlowDisk, tmp_path: Path
) -> None:
    again = folder(tmp_path / "again", published(version=2, files=contents(b"golden 2")))

    def staged_again() -> None:
        assert install(store, again).version == 2

    disk.meanwhile = staged_again  # while version 1 goes
    store.collect([("m", 3)])
    assert store.versions("m") == [2, 3]
    store.verify("m", 2)
    store.collect([("m", 3)])
    assert store.versions("m") == [3], "the next cleaning knows nothing of it"


def test_a_version_that_comes_in_for_the_first_time_meanwhile_stays(
    store: Store, disk: SlowDisk, tmp_path: Path
) -> None:
    new = bundle(tmp_path, 4)

    def installed() -> None:
        assert not install(store, new).was_there

    disk.meanwhile = installed
    store.collect([("m", 3)])
    assert store.versions("m") == [3, 4]
    store.verify("m", 4)


def test_a_version_that_is_just_being_removed_is_not_promised_to_anybody(
    store: Store, disk: SlowDisk, tmp_path: Path
) -> None:
    again = folder(tmp_path / "again", published(version=1, files=contents(b"golden 1")))

    def staged_too_late() -> None:
        with pytest.raises(StorageError, match="being removed from the store at this moment"):
            install(store, again)

    disk.meanwhile = staged_too_late
    store.collect([("m", 2), ("m", 3)])
    assert store.versions("m") == [2, 3]
    install(store, again)
    store.verify("m", 1)


def test_cleanings_do_not_know_each_other() -> None:
    arrivals = Arrivals()
    with arrivals.cleaning() as first, arrivals.cleaning() as second:
        assert first is not second
        arrivals.came(("m", 1))
        for arrived in (first, second):
            with arrivals.removing(("m", 1), arrived) as may_go:
                assert not may_go
    with arrivals.cleaning() as third, arrivals.removing(("m", 1), third) as may_go:
        assert may_go

"""A folder that is ours alone, or is not used; and whose failures fail nothing else."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_runtime.private_folder import GONE, PrivateFolder

NOBODY = 65534


def make(path: Path | None) -> PrivateFolder:
    return PrivateFolder(path, "nothing is kept")


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Own a folder, and be somebody who may not do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, NOBODY, -1)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "state" / "mine")
    assert folder.is_safe()
    assert folder.is_writable()
    for path in (folder.path, folder.path.parent):
        assert path.stat().st_mode & 0o777 == 0o700


def test_without_a_folder_nothing_is_kept_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make(None)
    folder.write("a", b"x")
    assert folder.read("a") == b""
    assert not folder.is_safe()
    assert not [*tmp_path.iterdir()]
    assert not caplog.records


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_folder_that_others_may_write_to_is_not_used(
    mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "planted").write_bytes(b"x")
    path.chmod(mode)
    folder = make(path)
    assert folder.read("planted") == b""
    folder.write("a", b"x")
    assert [each.name for each in path.iterdir()] == ["planted"]
    (record,) = caplog.records  # said once
    assert "others may write to" in record.getMessage()
    assert f"{mode:04o}" in record.getMessage()


def test_folder_in_one_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "state" / "mine").mkdir(parents=True)
    (tmp_path / "state").chmod(0o777)
    assert not make(tmp_path / "state" / "mine").is_safe()
    (tmp_path / "state").chmod(0o1777)  # as /tmp: they cannot take ours away there
    assert make(tmp_path / "state" / "mine").is_safe()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else's")
def test_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    os.chown(tmp_path / "mine", NOBODY, -1)
    assert not make(tmp_path / "mine").is_safe()


def test_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "mine").symlink_to(tmp_path / "elsewhere")
    assert not make(tmp_path / "mine").is_safe()


def test_state_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "private")
    assert make(tmp_path / "state" / "mine").is_safe()


def test_file_in_place_of_the_folder_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine").write_bytes(b"")
    folder = make(tmp_path / "mine")
    for _ in range(3):
        assert not folder.is_writable()
        folder.write("a", b"x")
    assert len(caplog.records) == 1
    assert "nothing is kept until the daemon is started again" in caplog.records[0].getMessage()


def test_what_is_written_is_read_and_replaced_whole(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine")
    folder.write("below/a", b"first")
    folder.write("below/a", b"second")
    assert folder.read("below/a") == b"second"
    assert [path.name for path in (tmp_path / "mine" / "below").iterdir()] == ["a"]
    assert folder.read("below/b") == b""


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    folder, over = make(tmp_path / "mine"), threading.Event()
    sizes = (1, 100_000)
    folder.write("a", b"x" * sizes[0])

    def write() -> None:
        while not over.is_set():
            for size in sizes:
                folder.write("a", b"x" * size)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {len(folder.read("a")) for _ in range(500)}
    finally:
        over.set()
        writer.join()
    assert seen <= set(sizes)


def test_folder_that_cannot_be_written_to_is_still_read_and_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.chmod(0o755)
    (folder / "mine").mkdir()
    (folder / "mine" / "a").write_bytes(b"kept")
    (folder / "mine").chmod(0o500)
    with unprivileged(folder / "mine"):
        kept = make(folder / "mine")
        kept.write("a", b"new")
        kept.write("b", b"new")
        kept.remove("a")
        assert kept.read("a") == b"kept"
        assert kept.is_safe()
        assert not kept.is_writable()
    (folder / "mine").chmod(0o700)
    assert [each.name for each in (folder / "mine").iterdir()] == ["a"]
    assert len(caplog.records) == 1
    assert "Permission denied" in caplog.records[0].getMessage()


def test_removed_folder_is_gone_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine")
    folder.write("below/a", b"x")
    folder.remove("below")
    folder.remove("below")  # already gone
    assert not [*folder.path.iterdir()]
    assert not [*folder.path.glob(f"{GONE}*")]

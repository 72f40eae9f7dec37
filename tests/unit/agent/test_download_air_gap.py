"""A repository in a tar file: laid out whole in a folder of its own, or not at all."""

import io
import os
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.download import air_gap
from agent.download.air_gap import Imported, ImportLimits, import_file
from agent.errors import CanceledError, ConfigError, DiskFullError, StateError
from tests.agent_downloads import Device, noise, publish, sha256

WEIGHTS = noise(3_000_000)
ARTIFACT = f"artifacts/models/m/1/{sha256(WEIGHTS)}.a rather long name of a model.onnx"
FILES = {
    "metadata/1.root.json": b"root",
    "metadata/timestamp.json": b"timestamp",
    ARTIFACT: WEIGHTS,
}
FREE = ImportLimits(reserve_bytes=1)


def _tar(path: Path, files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _with(path: Path, change: Callable[[tarfile.TarInfo], None]) -> Path:
    """Make an archive with one more entry, of some other kind."""
    with tarfile.open(path, "w") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        odd = tarfile.TarInfo("metadata/odd")
        change(odd)
        archive.addfile(odd)
    return path


def _import(archive: Path, into: Path, limits: ImportLimits = FREE) -> Imported:
    return import_file(archive, into, limits, lambda *_: None, threading.Event())


def _found(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """The place of an import, where another one was ended."""
    folder = tmp_path / "state" / "import"
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "old.json").write_bytes(b"old")
    return folder


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_lays_out_every_file_and_none_of_one_that_was_ended(
    tmp_path: Path, into: Path, form: int
) -> None:
    told: list[tuple[int, int]] = []
    archive = _tar(tmp_path / "x.tar", {**FILES, "README": b"not ours"}, form)
    came = import_file(archive, into, FREE, lambda *said: told.append(said), threading.Event())
    assert _found(into) == FILES
    assert came == Imported(into, 3, sum(map(len, FILES.values())))
    assert told[-1] == (archive.stat().st_size,) * 2
    assert sorted(path.name for path in into.parent.iterdir()) == ["import"]


def test_artifacts_are_taken_from_it_like_from_a_server(tmp_path: Path) -> None:
    data = noise(200_000)
    file = publish(tmp_path / "web", data)
    archive = _tar(
        tmp_path / "x.tar", {"metadata/root.json": b"r", f"artifacts/{file.url_path}": data}
    )
    came = _import(archive, tmp_path / "import")
    device = Device(tmp_path / "device", [came.artifacts_url])
    assert device.fetch(file) == data
    assert device.budget.spent() == 0
    assert came.metadata_url.startswith("file:///")
    assert file.sha256 == sha256(data)
    device.close()


def _set(**fields: object) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        for name, value in fields.items():
            setattr(info, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        _set(type=tarfile.LNKTYPE, linkname="metadata/timestamp.json"),
        _set(type=tarfile.FIFOTYPE),
        _set(type=tarfile.CHRTYPE),
        _set(name="metadata/../../escaped"),
        _set(name="/metadata/absolute"),
        _set(name="metadata//x"),
        _set(name="metadata/.hidden"),
        _set(name="metadata/new\nline"),
        _set(name="metadata/" + "d/" * 20 + "deep"),
        _set(name="metadata/timestamp.json"),
        _set(name="metadata/timestamp.json/below"),
        _set(name="artifacts/models"),
        _set(size=1 << 40),
    ],
    ids=lambda change: str(change.__closure__[0].cell_contents)[:40],
)
def test_what_no_repository_holds_is_refused_and_nothing_changes(
    tmp_path: Path, into: Path, change: Callable[[tarfile.TarInfo], None]
) -> None:
    archive = _with(tmp_path / "x.tar", change)
    with pytest.raises(ConfigError, match=r"x\.tar"):
        _import(archive, into)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["state", "x.tar"]


@pytest.mark.parametrize("kept", [0, 100, 512, 1500, 2_000_000])
def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path, into: Path, kept: int) -> None:
    archive = _tar(tmp_path / "x.tar", FILES)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(ConfigError):
        _import(archive, into)
    assert not into.exists()


@given(data=st.binary(max_size=3000))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.tar").write_bytes(data)
    with pytest.raises(ConfigError):
        _import(folder / "x.tar", folder / "import")
    assert not (folder / "import").exists()


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (ImportLimits(archive_bytes=1000, reserve_bytes=1), ConfigError),
        (ImportLimits(entries=2, reserve_bytes=1), ConfigError),
        (ImportLimits(reserve_bytes=1 << 60), DiskFullError),
    ],
)
def test_limits_are_kept(
    tmp_path: Path, into: Path, limits: ImportLimits, error: type[Exception]
) -> None:
    with pytest.raises(error):
        _import(_tar(tmp_path / "x.tar", FILES), into, limits)
    assert not (into / "metadata" / "timestamp.json").exists()


def test_huge_metadata_are_refused(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(air_gap, "METADATA_BYTES_MAX", 8)
    with pytest.raises(ConfigError, match=r"timestamp\.json' has over 8 bytes"):
        _import(_tar(tmp_path / "x.tar", FILES), into)


def test_an_archive_without_metadata_is_none(tmp_path: Path, into: Path) -> None:
    with pytest.raises(ConfigError, match="edge-fleet repo export"):
        _import(_tar(tmp_path / "x.tar", {"artifacts/x": b"x"}), into)


def test_a_missing_archive_is_told(tmp_path: Path, into: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        _import(tmp_path / "none.tar", into)
    with pytest.raises(ConfigError, match="cannot read"):
        _import(tmp_path, into)


def test_a_pipe_without_a_writer_holds_nobody_up(tmp_path: Path, into: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is no file"):
        _import(tmp_path / "pipe", into)


def test_it_can_be_called_off(tmp_path: Path, into: Path) -> None:
    cancelled = threading.Event()
    archive = _tar(tmp_path / "x.tar", FILES)
    with pytest.raises(CanceledError):
        import_file(archive, into, FREE, lambda *_: cancelled.set(), cancelled)
    assert not into.exists()


@pytest.mark.parametrize("at", [0, 1_500_000, 2_999_999])
def test_an_artifact_that_rotted_on_the_way_is_refused_at_once(tmp_path: Path, at: int) -> None:
    damaged = bytearray(WEIGHTS)
    damaged[at] ^= 1
    archive = _tar(tmp_path / "x.tar", {**FILES, ARTIFACT: bytes(damaged)})
    with pytest.raises(ConfigError, match="is damaged"):
        _import(archive, tmp_path / "import")
    assert not (tmp_path / "import").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StateError):
        _import(_tar(tmp_path / "x.tar", FILES), tmp_path / "file" / "import")

"""Wherever the power is cut, the process dies or the disk fails: whole or not there."""

import errno
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_runtime.errors import StorageError
from edge_runtime.store.durable import Disk
from edge_runtime.store.store import Store
from tests.every_row import every
from tests.lossy_disk import Choice, LossyDisk, PowerCutError, Trouble, cut_before, fail
from tests.store_bundles import EXTERNAL, ONNX, everything, folder, install, published, without

SHARED = {"a/model.onnx": EXTERNAL, "a/weights.bin": b"weights"}
FIRST = {**SHARED, "golden.pb": b"golden"}
SECOND = {**SHARED, "golden.pb": b"second"}
MIXED = published(version=3, files={**FIRST, "b/c.onnx": ONNX, "b/weights.bin": b"others"})
NEEDED = {"v0"}
NEWER = b"signed with newer keys"
BUNDLES = {
    "first": published(files=FIRST),
    "second": published(version=2, files=SECOND),
    "resigned": published(files=FIRST, signature=NEWER),
    "mixed": MIXED,
    "partial": without(MIXED, "b/c.onnx", "b/weights.bin"),
}


@dataclass
class World:
    """A store on a disk that may lose what is not durable, and what must be in it."""

    base: Path
    disk: LossyDisk

    def store(self) -> Store:
        """Open the store, as a daemon that starts does."""
        return Store(
            self.base / "state" / "store", reserve_bytes=0, bundle_bytes=10**6, layer=self.disk
        )

    def install(self, name: str) -> None:
        """Install one of the bundles."""
        install(self.store(), self.base / name, NEEDED if name == "partial" else None)

    def whole(self) -> list[int]:
        """Give the versions that are there, all of which must be whole."""
        store = self.store()
        found = store.versions("m")
        for version in found:
            store.verify("m", version)
            assert store.head("m", version)[1] in {None, NEWER}
        return found

    def variants(self) -> list[str]:
        """Give the variants that are there of version 3."""
        return [variant.name for variant in self.store().bundle("m", 3).manifest.variants]

    def left(self) -> tuple[list[str], int]:
        """Give what lies in the incoming folder, and how many blobs nobody has."""
        root = self.base / "state" / "store"
        return (
            sorted(path.name for path in root.glob("incoming/*")),
            sum(path.lstat().st_nlink < 2 for path in root.glob("blobs/*")),
        )


def made(path: Path) -> Path:
    """Make a folder."""
    path.mkdir(parents=True)
    return path


def begin(base: Path, *installed: str) -> World:
    (base / "state").mkdir(mode=0o700)
    for name, bundle in BUNDLES.items():
        folder(base / name, bundle)
    world = World(base, LossyDisk(base / "state"))
    for name in installed:
        world.install(name)
    return world


def damage(world: World) -> None:
    """Make a version's file another one, for good."""
    path = world.base / "state" / "store" / "models" / "m" / "1" / "golden.pb"
    node = world.disk._node(path)
    path.chmod(0o600)
    path.write_bytes(b"GOLDEN")
    path.chmod(0o444)
    node.content = node.durable = b"GOLDEN"  # type: ignore[union-attr]


@dataclass(frozen=True)
class Act:
    """Something that changes the store.

    Attributes:
        before: What is installed before it.
        do: The act.
        always: Versions that must be there after it, however it ended.
        perhaps: Those that may be.
        after: Those that are there once it is done.
    """

    before: tuple[str, ...]
    do: Callable[[World], object]
    always: frozenset[int]
    perhaps: frozenset[int]
    after: frozenset[int]
    is_damaged: bool = False

    def begin(self, base: Path) -> World:
        """Make a world in which it is to be done."""
        world = begin(base, *self.before)
        if self.is_damaged:
            damage(world)
        world.disk.operations.clear()
        return world


def _act(before: str, do: Callable[[World], object], always: str, perhaps: str, after: str) -> Act:
    versions = [frozenset(map(int, each.split())) for each in (always, perhaps, after)]
    return Act(tuple(before.split()), do, versions[0], versions[1], versions[2])


ACTS = {
    "first": _act("", lambda world: world.install("first"), "", "1", "1"),
    "next": _act("first", lambda world: world.install("second"), "1", "2", "1 2"),
    "again": _act("first", lambda world: world.install("first"), "1", "", "1"),
    "signed": _act("first", lambda world: world.install("resigned"), "1", "", "1"),
    "mended": Act(
        ("first", "second"),
        lambda world: world.install("first"),
        frozenset({2}),
        frozenset({1}),
        frozenset({1, 2}),
        is_damaged=True,
    ),
    "partial": _act("first", lambda world: world.install("partial"), "1", "3", "1 3"),
    "filled": _act("first partial", lambda world: world.install("mixed"), "1 3", "", "1 3"),
    "left": _act("mixed", lambda world: world.install("partial"), "3", "", "3"),
    "dropped": _act("first partial", lambda world: world.store().remove("m", 3), "1", "3", "1"),
    "removed": _act("first second", lambda world: world.store().remove("m", 1), "2", "1", "2"),
    "collected": _act("first second", lambda world: world.store().collect(()), "", "1 2", ""),
    "recovered": _act("first second", lambda world: world.store().recover(), "1 2", "", "1 2"),
}


def _count(act: Act) -> int:
    """Count the operations of an act."""
    with tempfile.TemporaryDirectory() as base:
        world = act.begin(Path(base))
        act.do(world)
        return len(world.disk.operations)


COUNTS = {name: _count(act) for name, act in ACTS.items()}
POINTS = [(name, number) for name, count in COUNTS.items() for number in range(1, count + 2)][
    :: every(3)
]


def survivors(seed: int) -> list[Choice]:
    """Give ways in which a disk may have written, or not, what was not made durable."""
    generator = random.Random(seed)  # noqa: S311 - a test's dice
    return [
        lambda _: False,
        lambda what: what == "name",
        lambda _: generator.random() < 0.6,
    ]


def interrupted(act: Act, world: World, trouble: Trouble) -> bool:
    """Do something until the power is cut; tell whether it came to its end."""
    world.disk.trouble = trouble
    try:
        act.do(world)
    except PowerCutError:
        return False
    finally:
        world.disk.trouble = None
    return True


def check(act: Act, world: World, *, is_done: bool) -> None:
    """Start again, as the daemon does, and look for what was promised."""
    if not act.is_damaged:
        world.whole()  # before anything is cleaned up
    world.store().recover()
    versions = set(world.store().versions("m"))
    assert act.always <= versions <= act.always | act.perhaps
    if is_done:
        assert versions == act.after
    if not (act.is_damaged and not is_done):
        world.whole()
    assert world.left() == ([], 0)
    for path in (world.base / "state" / "store" / "models").rglob("*"):
        if path.parent.name != "models":
            assert path.lstat().st_mode & 0o222 == 0
    if 3 in versions:
        there = world.variants()
        assert there[:1] == ["v0"]
        assert (there == ["v0", "v1"]) or act is not ACTS["left"]
        assert (there == ["v0", "v1"]) or not (is_done and act is ACTS["filled"])
    world.install("first")
    world.install("second")
    assert world.whole() == sorted({1, 2} | versions)
    world.install("mixed")
    assert world.whole() == [1, 2, 3]
    assert world.variants() == ["v0", "v1"]


@pytest.mark.parametrize(("name", "number"), POINTS)
def test_after_a_power_cut_each_version_is_whole_or_not_there(
    name: str, number: int, tmp_path: Path
) -> None:
    act = ACTS[name]
    for place, survives in enumerate(survivors(number)):
        world = act.begin(made(tmp_path / str(place)))
        is_done = interrupted(act, world, cut_before(number))
        assert is_done == (number > COUNTS[name])
        world.disk.lose(survives)
        check(act, world, is_done=is_done)


@pytest.mark.parametrize(("name", "number"), POINTS)
def test_after_the_process_was_killed_each_version_is_whole_or_not_there(
    name: str, number: int, tmp_path: Path
) -> None:
    act = ACTS[name]
    world = act.begin(tmp_path)
    is_done = interrupted(act, world, cut_before(number))
    check(act, world, is_done=is_done)


@pytest.mark.parametrize(
    ("name", "number"),
    [point for point in POINTS if point[0] in {"first", "next", "removed", "partial", "filled"}],
)
def test_what_is_there_after_a_kill_and_a_start_outlives_a_power_cut(
    name: str, number: int, tmp_path: Path
) -> None:
    act = ACTS[name]
    for place, survives in enumerate(survivors(number)):
        world = act.begin(made(tmp_path / str(place)))
        interrupted(act, world, cut_before(number))
        world.store().recover()
        before = world.whole()
        world.disk.lose(survives)
        assert world.whole() == before


@pytest.mark.parametrize("number", range(1, COUNTS["next"] + 2))
def test_installing_again_what_a_killed_process_installed_makes_it_durable(
    number: int, tmp_path: Path
) -> None:
    act = ACTS["next"]
    for place, survives in enumerate(survivors(number)):
        world = act.begin(made(tmp_path / str(place)))
        interrupted(act, world, cut_before(number))
        world.install("second")
        world.disk.lose(survives)
        assert world.whole() == [1, 2]


@pytest.mark.parametrize(
    ("code", "for_ever"),
    [(errno.EIO, False), (errno.ENOSPC, True)],
    ids=["fails once", "full for ever"],
)
@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, number in POINTS if number <= COUNTS[name]]
)
def test_when_the_disk_fails_each_version_is_whole_or_not_there(
    name: str,
    number: int,
    code: int,
    for_ever: bool,  # noqa: FBT001 - a parameter of the table
    tmp_path: Path,
) -> None:
    act = ACTS[name]
    world = act.begin(tmp_path)
    before = set(world.store().versions("m"))
    trouble = fail(code, number, for_ever=for_ever)
    is_done, refused = False, None
    try:
        is_done = interrupted(act, world, trouble)
    except StorageError as error:
        refused = error
    if refused is not None:
        assert "nothing changed" in refused.message
        if name in {"first", "next", "again", "signed", "partial"} and not for_ever:
            # What was said to have changed nothing has left nothing.
            assert set(world.store().versions("m")) == before
            assert world.left() == ([], 0)
    check(act, world, is_done=False if name != "recovered" else is_done)


def test_a_newer_signature_outlives_a_power_cut(tmp_path: Path) -> None:
    world = begin(tmp_path, "first", "resigned")
    world.disk.lose(lambda _: False)
    assert world.store().head("m", 1)[1] == NEWER


def test_what_versions_share_is_still_shared_after_a_power_cut(tmp_path: Path) -> None:
    world = begin(tmp_path, "first")
    world.disk.lose(lambda _: False)
    world.install("second")
    blobs = tmp_path / "state" / "store" / "blobs"
    # A blob and a file of each version; the goldens differ.
    assert sorted(path.lstat().st_nlink for path in blobs.iterdir()) == [2, 2, 3, 3]


def test_a_disk_that_only_says_that_it_wrote_is_found_out_and_mended(tmp_path: Path) -> None:
    """No order of writing helps there: digests find it out, and installing again mends it."""
    for place, survives in enumerate(survivors(1)):
        world = begin(made(tmp_path / str(place)), "first")
        world.disk.lies = True
        world.install("second")
        world.disk.lies = False
        world.disk.lose(survives)
        world.store().recover()
        world.store().verify("m", 1)
        world.install("second")
        assert world.whole() == [1, 2]


def test_the_lossy_disk_does_what_a_disk_does(tmp_path: Path) -> None:
    """The same acts leave the same files, as long as no power is cut."""
    for name, act in ACTS.items():
        found = []
        for kind in ("real", "lossy"):
            base = made(tmp_path / name / kind)
            world = act.begin(base)
            if kind == "real":
                world.disk = Disk()  # type: ignore[assignment]
            act.do(world)
            found.append(everything(base / "state"))
        assert found[0] == found[1]


def test_the_lossy_disk_keeps_what_is_synced_and_nothing_else(tmp_path: Path) -> None:
    disk = LossyDisk(tmp_path)
    disk.make_folder(tmp_path / "kept", 0o700)
    disk.sync(tmp_path)
    disk.make_folder(tmp_path / "lost", 0o700)
    for name in ("both", "name", "content"):
        disk.write(tmp_path / "kept" / name, [b"12", b"34"], 0o444)
    disk.sync(tmp_path / "kept" / "both")
    disk.sync(tmp_path / "kept")
    disk.link(tmp_path / "kept" / "both", tmp_path / "kept" / "second")
    disk.write(tmp_path / "lost" / "file", [b"1234"], 0o444)
    disk.sync(tmp_path / "lost" / "file")
    disk.sync(tmp_path / "lost")
    disk.unlink(tmp_path / "kept" / "content")
    disk.lose(lambda _: False)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"kept", "kept/both", "kept/name", "kept/content"}
    assert (tmp_path / "kept" / "both").read_bytes() == b"1234"
    assert (tmp_path / "kept" / "name").read_bytes() == b"\0\0"
    disk.rename(tmp_path / "kept" / "both", tmp_path / "both")
    disk.sync(tmp_path)
    disk.lose(lambda _: False)
    assert not (tmp_path / "kept" / "both").exists()
    assert (tmp_path / "both").read_bytes() == b"1234"

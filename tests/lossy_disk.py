"""A disk that loses what is not durable, as a power cut does.

The operations happen on real files. Beside them stands a model of what would be found after a
power cut: bytes of a file once it was synced, names in a folder once the folder was. ``lose``
makes the real files what that model says. Whoever cuts the power decides about each unsynced
change whether it survives: a real disk may have written any of them.

Renaming survives as one change or not at all, and is durable once the folder it goes to is
synced; syncing the one it comes from makes only the old name go. No change survives without the
earlier ones of the same name.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.store.durable import Disk

Choice = Callable[[str], bool]
"""Asked with ``name`` or ``content`` whether an unsynced change survives."""
Trouble = Callable[[int, str], None]
"""Told the number (from 1) and the name of each operation before it happens; may raise."""


class PowerCutError(BaseException):
    """The power is gone: nothing is cleaned up, and no operation works any more."""


@dataclass(eq=False)
class _File:
    content: bytes
    durable: bytes | None = None


@dataclass(eq=False)
class _Folder:
    names: dict[str, "_Node"] = field(default_factory=dict)
    durable: dict[str, "_Node"] = field(default_factory=dict)


_Node = _File | _Folder


@dataclass(eq=False)
class _Change:
    """Names that change together, the new one first; ``None``: the name goes."""

    names: list[tuple[_Folder, str, _Node | None]]

    def parted(self, folder: _Folder) -> "_Change | None":
        """Give what becomes durable with a folder."""
        if self.names[0][0] is folder:
            return self
        old = [each for each in self.names if each[0] is folder]
        return _Change(old) if old else None

    def keys(self) -> set[tuple[int, str]]:
        return {(id(folder), name) for folder, name, _ in self.names}


class LossyDisk:
    """See ``edge_runtime.store.durable.FileLayer``.

    Args:
        base: A folder that is there; what is in it is durable.
        trouble: Called before each operation.
        free: Bytes that are free.

    Attributes:
        operations: Names of all operations that were tried.
        lies: Whether it says that it synced and has not.
    """

    def __init__(self, base: Path, trouble: Trouble | None = None, free: int = 10**9) -> None:
        self._base = base
        self._disk = Disk()
        self._free = free
        self._pending: list[_Change] = []
        self._root = _adopted(base)
        self.trouble = trouble
        self.operations: list[str] = []
        self.lies = False

    def make_folder(self, path: Path, mode: int) -> None:
        """See ``FileLayer``."""
        self._begin("make_folder")
        self._disk.make_folder(path, mode)
        self._change([(self._folder(path.parent), path.name, _Folder())])

    def write(self, path: Path, chunks: Iterable[bytes], mode: int) -> None:
        """See ``FileLayer``."""
        self._begin("write")
        parent = self._folder(path.parent)

        def seen() -> Iterable[bytes]:
            if path.name not in parent.names:
                self._change([(parent, path.name, _File(b""))])
            file = parent.names[path.name]
            assert isinstance(file, _File)
            for chunk in chunks:
                yield chunk
                file.content += chunk

        self._disk.write(path, seen(), mode)

    def sync(self, path: Path) -> None:
        """See ``FileLayer``."""
        self._begin("sync")
        path.lstat()
        node = self._node(path)
        if self.lies:
            return
        if isinstance(node, _File):
            node.durable = node.content
            return
        for change in [*self._pending]:
            part = change.parted(node) if change in self._pending else None
            if part is not None and part is not change:
                change.names = [each for each in change.names if each not in part.names]
                self._pending.insert(self._pending.index(change), part)
            if part is not None:
                self._commit(part)

    def link(self, source: Path, target: Path) -> None:
        """See ``FileLayer``."""
        self._begin("link")
        self._disk.link(source, target)
        self._change([(self._folder(target.parent), target.name, self._node(source))])

    def rename(self, source: Path, target: Path) -> None:
        """See ``FileLayer``."""
        self._begin("rename")
        self._disk.rename(source, target)
        self._change(
            [
                (self._folder(target.parent), target.name, self._node(source)),
                (self._folder(source.parent), source.name, None),
            ]
        )

    def change_mode(self, path: Path, mode: int) -> None:
        """See ``FileLayer``; a power cut loses it."""
        self._begin("change_mode")
        self._disk.change_mode(path, mode)

    def unlink(self, path: Path) -> None:
        """See ``FileLayer``."""
        self._begin("unlink")
        self._disk.unlink(path)
        self._change([(self._folder(path.parent), path.name, None)])

    def remove_folder(self, path: Path) -> None:
        """See ``FileLayer``."""
        self._begin("remove_folder")
        self._disk.remove_folder(path)
        self._change([(self._folder(path.parent), path.name, None)])

    def free_bytes(self, path: Path) -> int:
        """See ``FileLayer``."""
        self._begin("free_bytes")
        assert self._disk.free_bytes(path) > 0
        return self._free

    def lose(self, survives: Choice) -> None:
        """Make the files what is found after a power cut.

        Args:
            survives: Decides about each change that was not made durable.
        """
        for change in [*self._pending]:
            if change in self._pending and survives("name"):
                self._commit(change)
        self._pending.clear()
        for path in self._base.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._rebuild(self._root, self._base, {}, survives)
        self.trouble = None

    def _begin(self, operation: str) -> None:
        self.operations.append(operation)
        if self.trouble is not None:
            self.trouble(len(self.operations), operation)

    def _change(self, names: list[tuple[_Folder, str, _Node | None]]) -> None:
        for folder, name, node in names:
            _set(folder.names, name, node)
        self._pending.append(_Change(names))

    def _commit(self, change: _Change) -> None:
        """Make a change durable, after those before it that it rests on."""
        self._pending, later = (
            self._pending[: self._pending.index(change)],
            self._pending[self._pending.index(change) + 1 :],
        )
        for earlier in [*self._pending]:
            if earlier in self._pending and earlier.keys() & change.keys():
                self._commit(earlier)
        self._pending += later
        for folder, name, node in change.names:
            _set(folder.durable, name, node)

    def _rebuild(
        self, folder: _Folder, path: Path, written: dict[_File, Path], survives: Choice
    ) -> None:
        for name, node in folder.durable.items():
            place = path / name
            if isinstance(node, _Folder):
                place.mkdir(mode=0o700)
                self._rebuild(node, place, written, survives)
                continue
            if node in written:
                place.hardlink_to(written[node])
                continue
            if node.durable is None:
                # Of the right length without its bytes: what file systems are known to leave.
                kept = node.content if survives("content") else bytes(len(node.content))
                node.durable = kept if survives("content") else kept[: len(kept) // 2]
            node.content = node.durable
            place.write_bytes(node.durable)
            place.chmod(0o600)
            written[node] = place
        folder.names = dict(folder.durable)

    def _node(self, path: Path) -> _Node:
        node: _Node = self._root
        for part in path.relative_to(self._base).parts:
            assert isinstance(node, _Folder)
            if part not in node.names:  # made by somebody who does not ask us
                found = _adopted(path)
                node.names[part] = node.durable[part] = found
            node = node.names[part]
        return node

    def _folder(self, path: Path) -> _Folder:
        node = self._node(path)
        assert isinstance(node, _Folder)
        return node


def _adopted(path: Path) -> _Folder:
    """Take a folder that is there for durable; it has no files."""
    assert not any(each.is_file() for each in path.rglob("*"))
    assert path.is_dir()
    return _Folder()


def _set(names: dict[str, _Node], name: str, node: _Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def cut_before(number: int) -> Trouble:
    """Cut the power before an operation."""

    def trouble(count: int, _operation: str) -> None:
        if count >= number:
            raise PowerCutError

    return trouble


def fail(code: int, number: int, *, for_ever: bool = False) -> Trouble:
    """Let an operation fail, or all from there on."""

    def trouble(count: int, _operation: str) -> None:
        if count == number or (for_ever and count > number):
            raise OSError(code, os.strerror(code))

    return trouble

"""Changes the repository on disk: whole files or none, durable before anything names them."""

import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from edge_runtime.private_folder import sync
from fleet.errors import BadInputError, RefusedError
from fleet.repository.layout import Layout

FILE_MODE: Final = 0o644
_STAGING: Final = ".staging-"


def write_new(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Write a file that must not be there yet.

    Args:
        path: The file; its folder is there.
        data: Its content.
        mode: Its permissions.

    Raises:
        FileExistsError: It is there already.
        OSError: It cannot be written.
    """
    if path.exists():
        raise FileExistsError(17, "is there already, and is never overwritten", str(path))
    replace(path, data, mode)


def replace(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Write a small file, in place of the one that is there.

    Args:
        path: The file; its folder is there.
        data: Its content.
        mode: Its permissions.

    Raises:
        OSError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{token_hex(4)}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(partial, flags, mode), "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def put(staged: Path, target: Path) -> None:
    """Move a file from the staging folder to its place, durable.

    Args:
        staged: On the same file system.
        target: Its place; folders are made, and the same file may be there already.

    Raises:
        OSError: It cannot be put there.
    """
    sync(staged)
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(FILE_MODE)
    staged.replace(target)
    sync(target.parent)
    for folder in made:
        sync(folder.parent)


@contextmanager
def staging(layout: Layout) -> Iterator[Path]:
    """Give an empty folder on the repository's file system; it goes away at the end."""
    folder = layout.folder / f"{_STAGING}{token_hex(4)}"
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Be the only command that changes the repository, and remove what a killed one left.

    Raises:
        BadInputError: There is no repository.
        RefusedError: Another command changes it now.
    """
    layout.check()
    with layout.lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"another command changes {layout.folder} now; wait for its end"
            ) from error
        for left in layout.folder.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in layout.metadata.glob(".*.new"):
            left.unlink(missing_ok=True)
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until some small files that belong together are written.

    Outside the main thread, where no signal is handled, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # Not masked: another thread, such as a progress bar's, would take it.
    before = {
        number: signal.signal(number, lambda number, _: came.append(number)) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def check_outside(inner: Path, outer: Path) -> None:
    """Refuse a place for private keys that a web server would show.

    Args:
        inner: Folder of keys.
        outer: Folder of the repository.

    Raises:
        BadInputError: The keys would lie in the repository.
    """
    if inner.resolve().is_relative_to(outer.resolve()):
        raise BadInputError(
            f"{inner} lies in the repository, which everybody may read; keep keys elsewhere"
        )

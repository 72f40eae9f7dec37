"""``edge-runtime cache``: look into the prediction cache, clear it, export what it keeps."""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Final

import msgspec

from edge_runtime.cache.folder import Folder, InUseError
from edge_runtime.cache.inspection import Inspection, KeptVersion
from edge_runtime.cache.schema import DIRECTORY
from edge_runtime.cache.status import ClearRequest, Status, Version
from edge_runtime.cli.cache_export import export
from edge_runtime.cli.terminal import print_json, say, table
from edge_runtime.client import Client, Endpoint
from edge_runtime.client.blocking import TIMEOUT_DEFAULT_S
from edge_runtime.client.calls import change, document
from edge_runtime.errors import (
    ArtifactError,
    ConfigError,
    ForbiddenError,
    ModelNotFoundError,
    TransportError,
)
from edge_runtime.exit_codes import ExitCode
from edge_runtime.locations import ADMIN_SOCKET_NAME, state_directory

_MIB: Final = 1 << 20
_TITLES: Final = (
    "MODEL",
    "VERSION",
    "ON DISK",
    "MIB",
    "OLDEST",
    "IN MEMORY",
    "HITS",
    "MISSES",
    "STALE",
    "BY-PASSED",
    "VERDICT",
)


class Report(msgspec.Struct, kw_only=True):
    """What ``stats`` tells.

    Attributes:
        path: The cache's folder; empty: nobody knows of one.
        kept: What is on disk, by version.
        daemon: What the daemon that uses it says; ``None``: none does, or it cannot be asked.
    """

    path: str
    kept: list[KeptVersion]
    daemon: Status | None


class _Daemon(Client):
    """Asks a daemon about its cache, on its admin socket."""

    def status(self) -> Status:
        """Ask how the cache does."""
        return self._perform(document("/v2/cache/stats", Status), None)

    def clear(self, model: str) -> None:
        """Have it cleared."""
        body = msgspec.json.encode(ClearRequest(model=model))
        self._perform(change("/v2/cache/clear", body), None)


def run(options: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        EdgeRuntimeError: The file or the daemon did not let it.
    """
    _check(options)
    with _daemon(options) as daemon:
        status = _ask(daemon, options)
        if options.state_dir or status is None or status.file is None:
            folder = Folder(state_directory(options.state_dir or "", os.environ) / DIRECTORY)
        else:
            folder = Folder(Path(status.file.path))
        if status is not None and status.file is not None:
            is_its = folder.path.resolve() == Path(status.file.path).resolve()
            status = status if is_its else None
        elif options.state_dir:
            status = None  # what that daemon says is of no other folder
        if options.action == "stats":
            return _stats(folder, status, options)
        if options.action == "clear":
            return _clear(folder, daemon, status, options)
        with _inspection(folder) as inspection:
            return export(inspection, folder.path, options)


def _check(options: argparse.Namespace) -> None:
    exports = options.csv or options.with_outputs or options.output
    if options.action != "export" and exports:
        raise ConfigError("--csv, --with-outputs and --output are for export")
    if options.action != "stats" and options.json:
        raise ConfigError("--json is for stats; export writes JSON unless --csv is given")


def _daemon(options: argparse.Namespace) -> _Daemon:
    address = options.socket or Endpoint.default_admin()
    return _Daemon(address, timeout_s=options.timeout or TIMEOUT_DEFAULT_S)


def _ask(daemon: _Daemon, options: argparse.Namespace) -> Status | None:
    """Ask the daemon, if there is one; one that was named must be there."""
    try:
        return daemon.status()
    except ModelNotFoundError as error:
        if options.socket:
            raise ConfigError(
                f"{options.socket} answers predictions and does not know its cache; --socket takes "
                f"the daemon's admin socket (as a rule {ADMIN_SOCKET_NAME})"
            ) from error
        return None
    except (TransportError, ForbiddenError):
        if options.socket:
            raise
        return None


def _is_there(folder: Folder) -> bool:
    try:
        return folder.database.exists()
    except OSError as error:
        raise ArtifactError(
            f"cannot look into {folder.path}: {error.strerror}; run this as the daemon's user"
        ) from error


def _inspection(folder: Folder) -> Inspection:
    if not _is_there(folder):
        raise ArtifactError(
            f"there is no cache in {folder.path}; --state-dir says where the daemon keeps its state"
        )
    return Inspection(folder.database)


# -- stats ---------------------------------------------------------------------------------------


def _stats(folder: Folder, status: Status | None, options: argparse.Namespace) -> int:
    report = Report(path=str(folder.path), kept=[], daemon=status)
    if status is not None:
        status.versions = [it for it in status.versions if options.model in {"", it.name}]
    try:
        with _inspection(folder) as inspection:
            report.kept = inspection.versions(options.model, time())
    except ArtifactError:
        if status is None:
            raise  # else what the daemon says will do: who may ask it may not read its files
    if options.json:
        print_json(report)
    else:
        _print(report)
    return ExitCode.DONE


def _print(report: Report) -> None:
    status = report.daemon
    entries = sum(kept.entries for kept in report.kept)
    size_bytes = sum(kept.size_bytes for kept in report.kept)
    if status is not None and status.file is not None and not report.kept:
        entries, size_bytes = status.file.entries, status.file.used_bytes
    print(f"{report.path}: {entries} answers, {_mib(size_bytes)} MiB")
    if status is None:
        print("no daemon uses it, or it cannot be asked: see --socket")
    else:
        memory = status.memory
        print(
            f"in memory: {memory.entries} answers, {_mib(memory.size_bytes)} of "
            f"{_mib(memory.limit_bytes)} MiB"
        )
        if status.file is not None and status.file.problem:
            print(f"problem: {status.file.problem}")
    kept = {(each.model, each.version): each for each in report.kept if not each.retired}
    live = {(each.name, each.version): each for each in (status.versions if status else ())}
    rows = [
        _row(name, version, kept.get((name, version)), live.get((name, version)))
        for name, version in sorted(kept.keys() | live.keys())
    ]
    if rows:
        print(table(_TITLES, rows))


def _row(
    name: str, version: str, kept: KeptVersion | None, live: Version | None
) -> tuple[str, ...]:
    disk: tuple[str, ...] = ("",) * 3
    if kept:
        disk = (str(kept.entries), _mib(kept.size_bytes), _when(kept.oldest_s))
    elif live:
        disk = (str(live.disk_entries), _mib(live.disk_bytes), "")
    counts: tuple[str, ...] = ("",) * 6
    if live:
        hits = live.hits + live.joined
        numbers = (live.memory_entries, hits, live.misses, live.stale, live.bypassed)
        counts = (*map(str, numbers), live.verdict)
    return (name, version, *disk, *counts)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.1f}"


def _when(seconds: float) -> str:
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")


# -- clear ---------------------------------------------------------------------------------------


def _clear(
    folder: Folder, daemon: _Daemon, status: Status | None, options: argparse.Namespace
) -> int:
    what = f"every answer of {options.model}" if options.model else "every answer"
    if status is not None:
        is_known = _is_known(folder, status, options.model)
        daemon.clear(options.model)
        if is_known:
            say(f"cleared {what} (the daemon did)")
        else:
            say(f"nothing of {options.model} is kept: nothing to clear")
        return ExitCode.DONE
    if not folder.path.exists():
        say(f"there is no cache in {folder.path}: nothing to clear")
        return ExitCode.DONE
    try:
        folder.take()
    except InUseError as error:
        raise ArtifactError(
            f"a daemon uses {folder.path}, and cannot be asked to clear it; say with --socket "
            "where its admin socket is"
        ) from error
    except OSError as error:
        raise ArtifactError(
            f"cannot clear {folder.path}: {error}; run this as its owner"
        ) from error
    is_known = not options.model
    try:
        if options.model and folder.database.stat().st_size:
            with Inspection(folder.database) as inspection:
                is_known = bool(inspection.forget(options.model))
        elif not options.model:
            folder.remove()
    except OSError as error:
        raise ArtifactError(f"cannot clear {folder.path}: {error}") from error
    finally:
        folder.release()
    if is_known:
        say(f"cleared {what} in {folder.path}")
    else:
        say(f"nothing of {options.model} is kept in {folder.path}: nothing to clear")
    return ExitCode.DONE


def _is_known(folder: Folder, status: Status, model: str) -> bool:
    """Say whether there may be an answer of a model; of all there may be some, always."""
    if not model or any(each.name == model for each in status.versions):
        return True
    try:
        if not _is_there(folder):
            return False
        with Inspection(folder.database) as inspection:
            return bool(inspection.versions(model, time()))
    except ArtifactError:
        return True  # who may ask the daemon may not read its files

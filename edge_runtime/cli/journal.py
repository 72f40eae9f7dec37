"""``edge-runtime journal``: look at the predictions that were kept, and remove them."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import msgspec

from edge_runtime.cli.terminal import printable, say, table
from edge_runtime.errors import ArtifactError, ConfigError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.locations import PREDICTIONS_NAME, state_directory
from edge_runtime.observation.journal_file import JournalFile, Row
from edge_runtime.observation.journal_record import decode, decrypt
from edge_runtime.observation.prediction_journal import read_key
from edge_runtime.settings import Journal
from edge_runtime.tensors import Array

_MIB: Final = 1 << 20
_MS: Final = 1000
_TITLES: Final = ("NUMBER", "MODEL", "VERSION", "WHEN (UTC)", "WHY", "TENSORS")


def run(options: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        ArtifactError: There is no journal, or it cannot be read.
        StorageError: The disk refused.
        ConfigError: The arguments contradict each other, or the key is none.
    """
    _check(options)
    path = state_directory(options.state_dir or "", os.environ) / PREDICTIONS_NAME
    try:
        is_there = path.exists()
    except OSError as error:
        raise ArtifactError(
            f"cannot look into {path.parent}: {error.strerror}; run this as the daemon's user"
        ) from error
    if not is_there:
        raise ArtifactError(
            f"there is no journal in {path.parent}: a model has one when models.NAME.journal says "
            "so; --state-dir says where the daemon keeps its state"
        )
    file = JournalFile.open(path)
    try:
        return _purge(file, options) if options.action == "purge" else _show(file, options)
    finally:
        file.close()


def _check(options: argparse.Namespace) -> None:
    if options.action == "show" and (options.yes or options.through is not None):
        raise ConfigError("--yes and --through are for purge")
    if options.action == "purge" and (options.json or options.tensors or options.key_file):
        raise ConfigError("--json, --tensors and --key-file are for show")
    if options.tensors and not options.json:
        raise ConfigError("--tensors prints whole tensors: give --json, too")


# -- show ----------------------------------------------------------------------------------------


def _show(file: JournalFile, options: argparse.Namespace) -> int:
    key = read_key(Journal(key_file=options.key_file or ""))
    found = file.rows(model=options.model, newest=True)
    rows = list(islice(found, options.limit))
    if options.json:
        for row in rows:
            print(msgspec.json.encode(_told(row, key, with_tensors=options.tensors)).decode())
        return ExitCode.DONE
    for held in file.held():
        oldest = _when(held.oldest_ms)
        print(
            f"{printable(held.model)}: {held.rows} predictions, {held.size_bytes / _MIB:.1f} MiB, "
            f"since {oldest}"
        )
    if rows:
        print()
        print(table(_TITLES, [_line(row, key) for row in rows]))
    else:
        print("nothing is kept")
    return ExitCode.DONE


def _line(row: Row, key: bytes | None) -> list[str]:
    facts = row.facts
    if row.is_encrypted and key is None:
        tensors = f"encrypted, {len(row.record)} bytes; --key-file reads it"
    else:
        inputs, outputs = _tensors(row, key)
        tensors = " -> ".join(part for part in (_shapes(inputs), _shapes(outputs)) if part)
    when = _when(facts.at_ms)
    return [str(row.number), printable(facts.model), facts.version, when, facts.reason, tensors]


def _told(row: Row, key: bytes | None, *, with_tensors: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"number": row.number, **row.facts._asdict()}
    if row.is_encrypted and key is None:
        return {**told, "is_encrypted": True}
    inputs, outputs = _tensors(row, key)
    for name, tensors in (("inputs", inputs), ("outputs", outputs)):
        told[name] = [
            {
                "name": each,
                "shape": array.shape,
                **({"data": array.reshape(-1).tolist()} if with_tensors else {}),
            }
            for each, array in tensors.items()
        ]
    return told


def _tensors(row: Row, key: bytes | None) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    record = row.record
    if row.is_encrypted:
        assert key is not None  # noqa: S101 - asked before
        record = decrypt(record, key, row.facts)
    return decode(record)


def _shapes(tensors: Mapping[str, Array]) -> str:
    def each() -> Iterator[str]:
        for name, array in tensors.items():
            yield f"{printable(name)}{list(array.shape)}"

    return " ".join(each())


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / _MS, UTC).strftime("%Y-%m-%d %H:%M:%S")


# -- purge ---------------------------------------------------------------------------------------


def _purge(file: JournalFile, options: argparse.Namespace) -> int:
    rows = sum(held.rows for held in file.held() if options.model in {"", held.model})
    what = f"of {options.model!r}" if options.model else "of every model"
    if not options.yes:
        if not sys.stdin.isatty():
            raise ConfigError("this removes predictions for good: give --yes to say that it may")
        say(f"{rows} predictions {what} are kept; remove them for good? Type yes: ")
        if sys.stdin.readline().strip() != "yes":
            say("nothing was removed")
            return ExitCode.FAILED
    removed = file.remove(through=options.through, model=options.model)
    file.shrink()
    say(f"removed {removed} predictions {what}")
    return ExitCode.DONE

"""Writes what the cache keeps, one answer a line."""

import argparse
import base64
import csv
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
import numpy as np

from edge_runtime.cache.inspection import Inspection, KeptAnswer
from edge_runtime.cli.terminal import say
from edge_runtime.datatypes import BYTES
from edge_runtime.errors import ConfigError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.tensors import Tensor, to_buffer

_encoder: Final = msgspec.json.Encoder()


def export(inspection: Inspection, folder: Path, options: argparse.Namespace) -> int:
    """Write every answer that is kept.

    Args:
        inspection: The open file.
        folder: Where it is; nothing is written there.
        options: With ``model``, ``csv``, ``with_outputs`` and ``output``.

    Raises:
        ArtifactError: The file cannot be read.
        ConfigError: The output cannot be written there.
    """
    damaged = found = 0
    with _writer(options.output, folder) as stream:
        rows: Any = None
        for answer, outputs in inspection.answers(options.model, with_outputs=options.with_outputs):
            found += 1
            line = _line(answer)
            if options.with_outputs:
                if outputs is None:
                    damaged += 1
                    continue
                line["outputs"] = {name: _tensor(tensor) for name, tensor in outputs.items()}
            if not options.csv:
                stream.write(_encoder.encode(line).decode() + "\n")
                continue
            if rows is None:
                rows = csv.DictWriter(stream, list(line))
                rows.writeheader()
            if options.with_outputs:
                line["outputs"] = _encoder.encode(line["outputs"]).decode()
            rows.writerow(line)
    if options.model and not found:
        say(f"no answer of {options.model} is kept: there is nothing to export")
    if damaged:
        say(f"{damaged} answers are damaged and were left out; the daemon would not give them")
    return ExitCode.FAILED if damaged else ExitCode.DONE


@contextmanager
def _writer(output: str, cache: Path) -> Iterator[TextIO]:
    """Give standard output, or a new file for its owner only that takes its name when complete."""
    if not output:
        yield sys.stdout
        return
    path = Path(output)
    _check(path, cache)
    try:
        file, name = tempfile.mkstemp(prefix=".export-", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    new = Path(name)
    try:
        with os.fdopen(file, "w", encoding="utf-8", newline="") as stream:
            yield stream
        try:
            new.replace(path)  # a name that became a link meanwhile is replaced, not followed
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)


def _check(path: Path, cache: Path) -> None:
    """Refuse a name that is the cache's, or that is there and no plain file."""
    try:
        if path.parent.resolve().is_relative_to(cache.resolve()):
            raise ConfigError(
                f"cannot write {path}: it is in the cache's own folder; choose another"
            )
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ConfigError(
                f"cannot write {path}: a link or no plain file is there; choose another name"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _line(answer: KeptAnswer) -> dict[str, Any]:
    return {
        "model": answer.model,
        "version": answer.version,
        "digest": answer.digest,
        "engine": answer.engine,
        "key": answer.key,
        "created": _when(answer.created_s),
        "dead": _when(answer.dead_s),
        "run_ms": answer.run_ms,
        "size_bytes": answer.size_bytes,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    """Describe an output: its elements as JSON where JSON has them, else in base64."""
    datatype, array = tensor
    described: dict[str, Any] = {"datatype": datatype.name, "shape": list(array.shape)}
    finite = datatype.json != "float" or bool(np.isfinite(array).all())
    if datatype is BYTES or (datatype.json != "none" and finite):
        described["data"] = array.reshape(-1).tolist()
    else:
        data = bytes(to_buffer(datatype, array))
        described["base64"] = base64.b64encode(data).decode()
    return described


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

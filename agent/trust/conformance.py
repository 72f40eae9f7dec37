"""Lets tuf-conformance, the TUF project's own test suite of clients, drive this client.

The suite (``theupdateframework/tuf-conformance``, a GitHub action) is no package that could be
installed here; this is its command line, so that it can be pointed at ``python -m
agent.trust.conformance``::

    --metadata-dir DIR init ROOT
    --metadata-dir DIR --metadata-url URL refresh
    --metadata-dir DIR --metadata-url URL --target-name PATH --target-base-url URL
        --target-dir DIR download

Exit status 0 is success, 1 is anything else. What runs is the device's own: its repository, fetcher
and resumable downloads. Three things differ: what was verified before a failure is kept step by
step, as the suite looks for it in the folder; the clock is the system's, which the suite moves; and
what does not come within a minute is given up.
"""

import argparse
import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from agent.clock import Clock, NoFloor
from agent.download.downloads import Downloads, Order
from agent.errors import AgentError
from agent.records import budget, floors
from agent.records.file import RecordsFile
from agent.settings.device import Downloads as DownloadSettings
from agent.settings.device import Repository as RepositorySettings
from agent.trust.http import Http, open_http
from agent.trust.places import Places
from agent.trust.repository import Following, Repository
from agent.trust.verified import Artifact

PATIENCE_S: Final = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the suite.

    Args:
        arguments: Of the command line; ``None``: the process's.

    Returns:
        The exit status.
    """
    options = _parser().parse_intermixed_args(arguments)
    try:
        if options.command == "init":
            _init(options.metadata_dir, options.trusted_root)
        elif options.command == "refresh":
            with _client(options, ()) as (repository, _, _):
                repository.refresh()
        else:
            _download(options)
    except (AgentError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agent.trust.conformance")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", default="")
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path, default=Path())
    parser.add_argument("command", choices=("init", "refresh", "download"))
    parser.add_argument("trusted_root", type=Path, nargs="?", default=Path())
    return parser


def _init(folder: Path, root: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root, _beside(folder, "first-root.json"))
    link = folder / "root.json"
    link.unlink(missing_ok=True)
    shutil.copyfile(root, link)


@contextlib.contextmanager
def _client(
    options: argparse.Namespace, more: tuple[str, ...]
) -> Iterator[tuple[Repository, Http, RecordsFile]]:
    folder: Path = options.metadata_dir
    settings = RepositorySettings(root=str(_beside(folder, "first-root.json")))
    clock = Clock(NoFloor(), "yes", built_s=0.0)
    http = open_http(settings, clock)
    file = RecordsFile(_beside(folder, "agent.db"), [floors.SCHEMA, budget.SCHEMA])
    try:
        repository = Repository(
            folder,
            settings,
            floors.Floors(file),
            clock,
            lambda _bytes: None,
            following=Following("", more=more, keeps_steps=True),
            places=Places(options.metadata_url.rstrip("/") + "/", options.target_base_url),
            http=http,
        )
        yield repository, http, file
    finally:
        http.close()
        file.close()


def _download(options: argparse.Namespace) -> None:
    with _client(options, (options.target_name,)) as (repository, http, file):
        repository.refresh()
        artifact = repository.artifact(options.target_name)
        if artifact is None:
            raise AgentError(f"nobody who may signed a file {options.target_name}")
        path: Path = options.target_dir / quote(artifact.path, safe="")
        if path.is_file() and sha256(path.read_bytes()).hexdigest() == artifact.sha256:
            return
        blob = _fetched(artifact, options, http, file)
        shutil.move(blob, path)


def _fetched(
    artifact: Artifact, options: argparse.Namespace, http: Http, file: RecordsFile
) -> Path:
    downloads = Downloads(
        _beside(options.metadata_dir, "blobs"),
        http,
        [options.target_base_url],
        settings=DownloadSettings(reserve_bytes=0),
        budget=budget.Budget(file, lambda: 0.0, lambda: "unmetered", {}),
        have=lambda _digest: None,
    )
    cancelled = threading.Event()
    timer = threading.Timer(PATIENCE_S, cancelled.set)
    timer.daemon = True
    timer.start()
    try:
        order = Order("", 0, lambda _progress: None, lambda _notice: None, cancelled)
        return downloads.fetch(artifact, order)
    finally:
        timer.cancel()


def _beside(folder: Path, name: str) -> Path:
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 - a link stays what it is
    return whole.with_name(f"{whole.name}.{name}")


if __name__ == "__main__":
    sys.exit(main())

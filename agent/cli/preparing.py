"""``edge-agent prepare-image``: removes identity before a disk is copied."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from agent import locations
from agent.cli.options import config_of
from agent.clone_condition import FILE as CLONE
from agent.device.known_models import FILE as MODELS
from agent.device.remarks import FILE as REMARKS
from agent.download.disk import translated
from agent.durable_file import aside_of
from agent.enrolment.membership import CA, CERTIFICATE, FILE, ROOT
from agent.errors import ConfigError
from agent.identity import NAME as KEY
from agent.locations import DATABASE
from agent.messaging import MARK
from agent.pause import FILE as PAUSE
from agent.records.guards import ENDING as GUARDS
from agent.state_lock import LOCK, lock_state
from edge_runtime.exit_codes import ExitCode
from edge_runtime.private_folder import sync

#: What makes this device this one, the key first: without it the rest is nobody's.
IDENTITY: Final = (
    KEY,
    f"{KEY}.part",
    FILE,
    CERTIFICATE,
    CA,
    ROOT,
    DATABASE,
    f"{DATABASE}-wal",
    f"{DATABASE}-shm",
    f"{DATABASE}.damaged",
    f"{DATABASE}{GUARDS}",
    MARK,
    PAUSE,
    REMARKS,
    MODELS,
    CLONE,
)
FOLDERS: Final = ("updates",)


def run(options: argparse.Namespace) -> int:
    """Remove the identity; what was downloaded, and what is known of the repository, stays.

    Raises:
        ConfigError: An agent is running, or nobody said yes.
        StateError: The disk refused.
    """
    config = config_of(options)
    state = locations.state_directory(config.state_dir)
    if not state.exists():
        print(f"there is nothing to remove: {state} is not there")
        return ExitCode.DONE
    lock = lock_state(state)
    try:
        if not options.yes:
            _ask(state)
        with translated(state):
            for name in IDENTITY:
                (state / name).unlink(missing_ok=True)
                aside_of(state / name).unlink(missing_ok=True)
            for name in FOLDERS:
                shutil.rmtree(state / name, ignore_errors=True)
            sync(state)
    finally:
        os.close(lock)
    (state / LOCK).unlink(missing_ok=True)
    print(f"removed: the key, the enrolment and the records in {state}; copy the disk now")
    if config.device.id:
        print(
            f"note: the configuration names the device {config.device.id!r}; every copy would be "
            "called so: remove device.id",
            file=sys.stderr,
        )
    return ExitCode.DONE


def _ask(state: Path) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("this removes the device's key for good: give --yes to say that it may")
    print(
        f"The key and the enrolment in {state} are removed for good: the device must be enrolled "
        "again. Type yes: ",
        file=sys.stderr,
        end="",
        flush=True,
    )
    if sys.stdin.readline().strip() != "yes":
        raise ConfigError("nothing was removed")

"""``edge-agent import``: releases and plans from a file."""

import argparse
import threading
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agent import locations
from agent.assembly import Bells, assemble
from agent.cli.options import check_own, config_of, print_json
from agent.control import Question, ask
from agent.download.air_gap import ImportLimits, import_file
from agent.errors import RuntimeAwayError
from agent.explaining import explained_if_known
from agent.member import member
from edge_runtime.exit_codes import ExitCode

ASK_S = 330.0


def run(options: argparse.Namespace) -> int:
    """Unpack an export, believe what of it can be believed, and say what follows.

    Raises:
        ConfigError: The file is no export, or the device has no root to judge it by.
        TrustError: What is in it cannot be believed; what was known stays.
        StateError: The disk refused.
    """
    config = config_of(options)
    check_own(locations.state_directory(config.state_dir))
    who = member(config)
    limits = ImportLimits(reserve_bytes=config.downloads.reserve_bytes)
    with tqdm(unit="B", unit_scale=True, desc="reading", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        into = who.state / locations.IMPORTED
        found = import_file(Path(options.file), into, limits, progress, threading.Event())
    told: dict[str, Any] = {"files": found.files, "bytes": found.size_bytes}
    try:
        told["explanation"] = ask(locations.running_socket(who.state), Question("import"), ASK_S)
    except RuntimeAwayError:
        parts = assemble(who, Bells())
        try:
            told["changed"] = parts.imported().refresh().changed
            told["explanation"] = explained_if_known(parts)
        finally:
            parts.messaging.stop()
            parts.close()
    if options.json:
        print_json(told)
    else:
        print(f"{told['files']} files, {told['bytes']} bytes, and every signature was right")
        print("\n".join(told["explanation"]))
    return ExitCode.DONE

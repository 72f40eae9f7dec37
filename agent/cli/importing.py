"""``edge-agent import``: releases and plans from a file."""

import argparse
import contextlib
import threading
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from agent import locations
from agent.cli.options import check_own, config_of, print_json
from agent.cli.running_agent import ask_running
from agent.control import Question
from agent.device.importing import TAKEN
from agent.download.air_gap import Imported, ImportLimits, import_file
from agent.download.import_folder import ImportFolder
from agent.errors import AgentError, ConfigError, RuntimeAwayError
from agent.member import Member, member
from edge_runtime.exit_codes import ExitCode

ASK_S: Final = 330.0


def run(options: argparse.Namespace) -> int:
    """Lay an export out, believe it if it can be believed, and say what follows.

    What is refused changes nothing: it never takes the place of the last import.

    Raises:
        ConfigError: The file is no export, or the device has no root to judge it by.
        AgentError: What is in it cannot be believed, or the disk refused.
    """
    config = config_of(options)
    check_own(locations.state_directory(config.state_dir))
    who = member(config)
    folder = ImportFolder(who.state / locations.IMPORTED)
    with folder.alone():
        found = _laid_out(Path(options.file), folder, config.downloads.reserve_bytes)
    try:
        believed = _believed(options, who, folder)
    finally:
        with contextlib.suppress(AgentError), folder.alone():  # else the next import does it
            folder.clear()
    told = {"files": found.files, "bytes": found.size_bytes, **believed}
    if options.json:
        print_json(told)
    else:
        print(f"{told['files']} files, {told['bytes']} bytes, and every signature was right")
        print("\n".join(told["explanation"]))
    return ExitCode.DONE


def _laid_out(archive: Path, folder: ImportFolder, reserve_bytes: int) -> Imported:
    with tqdm(unit="B", unit_scale=True, desc="reading", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        limits = ImportLimits(reserve_bytes=reserve_bytes)
        return import_file(archive, folder.spare, limits, progress, threading.Event())


def _believed(options: argparse.Namespace, who: Member, folder: ImportFolder) -> dict[str, Any]:
    """Have the running agent judge it, or judge it here; say what follows."""
    try:
        found = ask_running(options, who.config, Question("import"), ASK_S)
    except RuntimeAwayError:
        with folder.alone():
            return _believed_here(who, options.file)
    except AgentError as error:
        raise AgentError(_refused(options.file, error)) from error
    return {"explanation": found}


def _believed_here(who: Member, file: str) -> dict[str, Any]:
    from agent.assembly import Bells, assemble  # noqa: PLC0415 - only where no agent runs
    from agent.explaining import explained_if_known  # noqa: PLC0415

    parts = assemble(who, Bells())
    try:
        changed = parts.importing.take().changed
        return {"changed": changed, "explanation": explained_if_known(parts)}
    except ConfigError:
        raise
    except AgentError as error:
        raise AgentError(_refused(file, error)) from error
    finally:
        parts.messaging.stop()
        parts.close()


def _refused(file: str, error: AgentError) -> str:
    if error.message.startswith(TAKEN):
        return error.message
    return f"nothing of {file} was taken, all is as it was: {error.message}"

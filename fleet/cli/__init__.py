"""The command ``edge-fleet``: arguments in, exit code out. Libraries are imported when used."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from edge_runtime.errors import ConfigError, EdgeRuntimeError
from edge_runtime.exit_codes import ExitCode
from fleet.documents.errors import DocumentError
from fleet.errors import BadInputError, FleetError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code, see ``edge_runtime.exit_codes``.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _run(argv)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    if code == ExitCode.INTERRUPTED:
        _say("interrupted; what clients see is whole: as before, or with all of the change")
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        return _command(argv)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in {"fleet", "edge_runtime"}:
            raise
        _say(f"needs the package {error.name}: pip install 'edge-runtime[fleet]'")
        return ExitCode.FAILED


def _command(argv: Sequence[str] | None) -> int:
    import typer  # noqa: PLC0415 - the extra may be missing

    from fleet.cli.app import run  # noqa: PLC0415

    try:
        code = run(argv)
        sys.stdout.flush()  # what cannot be written is found out here, not after the end
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        if show is None:
            _say(error.message)
        else:
            show()
        return ExitCode.USAGE
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read it has gone (``| head``): let the interpreter's last flush go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return ExitCode.FAILED
    except (FleetError, DocumentError, EdgeRuntimeError) as error:
        _say(error.message)
        is_usage = isinstance(error, BadInputError | DocumentError | ConfigError)
        return ExitCode.USAGE if is_usage else ExitCode.FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}; mend it, then run the same command again")
        return ExitCode.FAILED
    return code


def _say(message: str) -> None:
    # A name in it could hold control codes.
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in message)
    print(f"edge-fleet: {shown}", file=sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Let SIGTERM end the program as Ctrl-C does: with everything whole."""
    del number, frame
    raise KeyboardInterrupt

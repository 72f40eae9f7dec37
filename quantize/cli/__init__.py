"""The command ``edge-quantize``: arguments in, exit code out. Commands are imported when used."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.exit_codes import ExitCode
from quantize.cli.arguments import parser, with_command
from quantize.errors import BadInputError, QuantizeError, VerificationError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code, see ``edge_runtime.exit_codes``.
    """
    options = parser().parse_args(with_command(sys.argv[1:] if argv is None else argv))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(options)
    except KeyboardInterrupt:
        _say("interrupted")
        return ExitCode.INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    try:
        command = import_module(f"quantize.cli.{options.command}_command")
        code: int = command.run(options)
        sys.stdout.flush()  # what cannot be written is found out here, not after the end
    except BrokenPipeError:
        # Whoever read it has gone (``| head``): let the interpreter's last flush go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return ExitCode.FAILED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in {"quantize", "edge_runtime"}:
            raise
        extra = "prune" if error.name == "onnxsim" else "quantize"
        _say(f"needs the package {error.name}: pip install 'edge-runtime[{extra}]'")
        return ExitCode.FAILED
    except VerificationError as error:
        _say(error.message)
        return ExitCode.ANSWER_2
    except (QuantizeError, EdgeRuntimeError) as error:
        _say(error.message)
        return ExitCode.USAGE if _is_bad_input(error) else ExitCode.FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}; mend it, then the same command goes on")
        return ExitCode.FAILED
    return code


def _is_bad_input(error: QuantizeError | EdgeRuntimeError) -> bool:
    return isinstance(error, BadInputError | EdgeRuntimeError)


def _say(message: str) -> None:
    print(f"edge-quantize: {message}", file=sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Let SIGTERM end the program as Ctrl-C does: with everything kept that is known."""
    del number, frame
    raise KeyboardInterrupt

"""The command ``edge-runtime``: arguments in, exit code out. Commands are imported when used."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from edge_runtime import __version__
from edge_runtime.cli import arguments
from edge_runtime.errors import (
    ConfigError,
    ConflictError,
    EdgeRuntimeError,
    ForbiddenError,
    ModelNotFoundError,
    RequestError,
)
from edge_runtime.exit_codes import ExitCode
from edge_runtime.usage import Parser

_ORDERS = frozenset({"release", "traffic", "keyring"})
"""Commands that look at what they are given themselves: what is refused, the daemon refused."""


def parser() -> argparse.ArgumentParser:
    """Build the whole command line."""
    root = Parser(
        prog="edge-runtime",
        description="Run ONNX models for the programs on this device.",
        epilog="examples:\n"
        "  edge-runtime serve digits=examples/digits/digits-int8.onnx\n"
        "  edge-runtime models\n"
        "  edge-runtime predict digits --input image=@image.npy\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"edge-runtime {__version__}")
    commands = root.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    arguments.add_all(commands)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code, see ``exit_codes``.
    """
    try:
        return _run(parser().parse_args(argv))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    try:
        command = import_module(f"edge_runtime.cli.{options.command}")
        code: int = command.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is found out here, not after the end
    except BrokenPipeError:
        _give_up_output()  # whoever read it has gone (``| head``); there is nobody to tell
        return ExitCode.FAILED
    except EdgeRuntimeError as error:
        # The daemon answers programs, and so with a path of its API.
        message = error.message.replace("POST /v2/repository/index", "`edge-runtime models`")
        _say(options, message)
        return _code(options.command, error)
    except OSError as error:
        if options.command == "serve":
            raise  # it prints nothing: this is a defect, and the traceback says where
        _give_up_output()
        _say(options, f"cannot write the output: {error.strerror or error}")
        return ExitCode.FAILED
    return code


def _code(command: str, error: EdgeRuntimeError) -> ExitCode:
    """Tell what was given wrongly from what the daemon will not do, however it is asked."""
    is_given_wrongly = isinstance(error, ModelNotFoundError | ConfigError)
    if isinstance(error, RequestError) and command not in _ORDERS:
        is_given_wrongly = not isinstance(error, ForbiddenError | ConflictError)
    return ExitCode.USAGE if is_given_wrongly else ExitCode.FAILED


def _say(options: argparse.Namespace, message: str) -> None:
    print(f"edge-runtime {options.command}: {message}", file=sys.stderr)


def _give_up_output() -> None:
    """Let the interpreter's last flush of standard output go nowhere instead of failing again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

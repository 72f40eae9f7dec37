"""The command ``edge-agent``: arguments in, exit code out. Commands are imported when used."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from agent.cli.arguments import parser
from agent.errors import AgentError, ConfigError
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.exit_codes import ExitCode


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code, see ``edge_runtime.exit_codes``.
    """
    options = parser().parse_args(argv)
    try:
        command = import_module(f"agent.cli.{options.module}")
        code: int = command.run(options)
        sys.stdout.flush()  # what cannot be written is found out here, not after the end
    except KeyboardInterrupt:
        _say("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read it has gone (``| head``): let the interpreter's last flush go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return ExitCode.FAILED
    except ConfigError as error:
        _say(error.message)
        return ExitCode.USAGE
    except (AgentError, EdgeRuntimeError) as error:
        _say(error.message)
        return ExitCode.FAILED
    return code


def _say(message: str) -> None:
    print(f"edge-agent: {message}", file=sys.stderr)

"""What the arguments of several commands share: how values are checked, how a command begins."""

import argparse
from typing import Any, Final

from edge_runtime.locations import ADMIN_SOCKET_NAME

SECONDS_MAX: Final = 86_400.0  # a day; larger numbers are slips


def command(commands: Any, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:  # noqa: ANN401 - argparse keeps the type of its subparsers to itself
    """Add a command.

    Args:
        commands: The subparsers to add it to.
        name: Its name.
        summary: One sentence.
        epilog: Examples and more, printed as it is.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def not_empty(text: str) -> str:
    """Take any text but an empty one.

    Raises:
        ArgumentTypeError: It is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a value, or leave the option out")
    return text


def positive(text: str) -> int:
    """Read a whole number from 1 on.

    Raises:
        ArgumentTypeError: It is none.
    """
    number = not_negative(text)
    if not number:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return number


def not_negative(text: str) -> int:
    """Read a whole number from 0 on.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def positive_seconds(text: str) -> float:
    """Read a duration of at most a day, in seconds.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"it must be above 0 and at most {SECONDS_MAX:g} seconds")
    return seconds


def admin_options(parser: argparse.ArgumentParser, timeouts: str) -> None:
    """Add where the daemon's admin socket is, and how long it may take.

    Args:
        parser: Of a command.
        timeouts: The defaults, in words.
    """
    parser.add_argument(
        "--socket",
        metavar="P",
        type=not_empty,
        help="the daemon's admin socket (default: $EDGE_RUNTIME_ADMIN_SOCKET, else this user's "
        f"{ADMIN_SOCKET_NAME})",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        help=f"seconds until a request is given up (default: {timeouts})",
    )

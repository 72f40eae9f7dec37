"""The arguments of ``release`` and ``traffic``."""

import argparse
from typing import Any, Final

from edge_runtime.cli.argument_types import admin_options, command, not_empty, positive

PIPE: Final = "-"
"""Stands for standard input where a bundle is named."""
SENT_BYTES_MAX: Final = 67_108_864
"""Largest tar that is sent, unless the caller says otherwise: what the daemon takes by default."""

_Commands = Any  # argparse keeps the type of its subparsers to itself


def add(commands: _Commands) -> None:
    """Add ``release`` and ``traffic``."""
    parser = command(
        commands,
        "release",
        "Release a new version of a model on this device, and watch it, judge it or take it back.",
        "examples:\n"
        "  edge-runtime release stage ./digits-2 --wait\n"
        "  edge-runtime release stage digits-2.tar --manual\n"
        "  edge-runtime release status\n"
        "  edge-runtime release promote digits\n"
        "  edge-runtime release rollback digits --reason 'labels flicker at night'\n\n"
        "All of it is done by the daemon, on its admin socket: a release goes on when this\n"
        "program ends. docs/releases.md says what each step does.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    _add_stage(actions)
    _add_status(actions)
    _add_decisions(actions)
    _add_history(actions)
    _add_explain(actions)
    _add_traffic(commands)


def _add_stage(actions: _Commands) -> None:
    parser = command(
        actions,
        "stage",
        "Install a bundle and begin its release.",
        "examples:\n"
        "  edge-runtime release stage ./digits-2 --wait\n"
        "  edge-runtime release stage digits-2.tar --manual\n"
        "  tar -C ./digits-2 -c . | edge-runtime release stage -\n\n"
        "The daemon opens the path and copies what it reads, so it must be able to read it; with\n"
        "--send, or `-` for standard input, this program reads a tar instead. With --wait the\n"
        "exit code is 0 if the version was committed (with --manual: if it waits for `promote`),\n"
        "1 if it was rolled back or failed. Ctrl-C ends the waiting with 130, not the release.",
    )
    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        type=not_empty,
        help=f"its folder, or a tar; {PIPE}: a tar from standard input",
    )
    parser.add_argument(
        "--manual",
        action="store_true",
        help="after the self-test, wait for `release promote`",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="take it even if this very bundle was rolled back here before",
    )
    parser.add_argument(
        "--send",
        action="store_true",
        help="send the tar over the socket (up to limits.body_bytes), where the daemon may not "
        "read it",
    )
    parser.add_argument(
        "--max-bytes",
        metavar="N",
        type=positive,
        default=SENT_BYTES_MAX,
        help=f"largest tar that is read and sent (default: {SENT_BYTES_MAX}, as limits.body_bytes)",
    )
    _wait_option(parser)
    daemon_options(parser)


def _add_status(actions: _Commands) -> None:
    parser = command(
        actions,
        "status",
        "Tell which version answers, and how the releases under way do.",
        "examples:\n"
        "  edge-runtime release status\n"
        "  edge-runtime release status digits --json | jq '.releases[0].state'",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="this model only")
    daemon_options(parser)


def _add_decisions(actions: _Commands) -> None:
    _decision(
        actions,
        "promote",
        "Take the release under way to its next decision.",
        "Before probation: the candidate gets all the traffic and is still watched. In\n"
        "probation: it is committed.",
    )
    _decision(
        actions,
        "rollback",
        "Go back: from a release under way to the active version, else to the previous one.",
        "The next request is answered by what is left. Orders of the fleet are refused until\n"
        "`release clear`. Where no version is left to go back to, and the active one is not what\n"
        "was released last, it is refused: say --to or --disable.",
    )
    _decision(
        actions,
        "revert",
        "Go back from the active version to the previous one, as the fleet does it.",
        "Unlike `rollback` it keeps no orders out, touches no release under way, and is refused\n"
        "while a hold or a rollback stands. --to makes sure that it leads where you think.",
    )
    _decision(
        actions,
        "abort",
        "End the release under way; the active version answers.",
        "The fleet may order again at once; `rollback` and `hold` prevent that.",
    )
    _decision(
        actions,
        "hold",
        "Refuse the fleet's orders for a model until `release clear`.",
        "A release under way goes on: `release abort` ends it.",
    )
    _decision(
        actions,
        "clear",
        "Let the fleet's orders in again, after `hold` or `rollback`.",
        "What answers now goes on answering.",
    )


def _decision(actions: _Commands, verb: str, summary: str, epilog: str) -> None:
    parser = command(actions, verb, summary, epilog)
    parser.add_argument("name", metavar="NAME", type=not_empty, help="name of the model")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for the history")
    if verb == "promote":
        _wait_option(parser)
    if verb == "rollback":
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--to",
            metavar="VERSION",
            type=positive,
            help="version that is to answer: one that was committed here",
        )
        where.add_argument(
            "--disable", action="store_true", help="let nothing answer: the model answers 503"
        )
    if verb == "revert":
        parser.add_argument(
            "--to", metavar="VERSION", type=positive, help="version that must be the previous one"
        )
    daemon_options(parser)


def _add_history(actions: _Commands) -> None:
    parser = command(
        actions,
        "history",
        "Tell everything that happened, the newest first.",
        "examples:\n"
        "  edge-runtime release history digits\n"
        "  edge-runtime release history --json | jq -r '.[] | select(.cause != \"\") | .reason'\n\n"
        "DIGEST is of what really answered after the step.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="this model only")
    parser.add_argument(
        "-n",
        "--limit",
        type=positive,
        default=50,
        metavar="N",
        help="at most so many rows (default: 50)",
    )
    daemon_options(parser)


def _add_explain(actions: _Commands) -> None:
    parser = command(
        actions,
        "explain",
        "Say in sentences what answers for a model, why, and what comes next.",
        "examples:\n  edge-runtime release explain digits",
    )
    parser.add_argument("name", metavar="NAME", type=not_empty, help="name of the model")
    daemon_options(parser)


def _add_traffic(commands: _Commands) -> None:
    parser = command(
        commands,
        "traffic",
        "Split a model's traffic between versions, for as long as you like.",
        "examples:\n"
        "  edge-runtime traffic digits 1=80 2=20\n"
        "  edge-runtime traffic digits               # what is it now?\n"
        "  edge-runtime traffic digits --clear\n\n"
        "Weights are percent and 100 together. A connection, or a `routing_key`, stays with its\n"
        "version. Requests that name a version are not split. `edge-runtime top` and the\n"
        "statistics count each version by itself.",
    )
    parser.add_argument("name", metavar="NAME", type=not_empty, help="name of the model")
    parser.add_argument(
        "weights",
        nargs="*",
        metavar="VERSION=PERCENT",
        default=[],
        type=_weight,
        help="share of a version",
    )
    parser.add_argument(
        "--clear", action="store_true", help="let the active version answer everything"
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for the history")
    daemon_options(parser)


def _wait_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="show the steps until the release has ended"
    )


def daemon_options(parser: argparse.ArgumentParser) -> None:
    """Add where the daemon is, how long it may take, and how to print."""
    admin_options(parser, "30; to stage or change: 3600")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")


def _weight(text: str) -> tuple[str, int]:
    version, equals, percent = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not VERSION=PERCENT, for example 2=20")
    return str(positive(version)), positive(percent)

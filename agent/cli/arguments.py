"""The arguments of every command, without importing what they do."""

import argparse
from typing import Any, Final

from agent import __version__
from edge_runtime.usage import Parser

_Commands = Any  # argparse keeps the type of its subparsers to itself

_CONFIG: Final = "$EDGE_AGENT_CONFIG, else /etc/edge-agent.toml if it is there"


def parser() -> argparse.ArgumentParser:
    """Build the whole command line."""
    root = Parser(
        prog="edge-agent",
        description="Tell the fleet about this device, and bring its signed model updates.",
        epilog="examples:\n"
        "  edge-agent enroll https://enroll.example TOKEN\n"
        "  edge-agent run --config /etc/edge-agent.toml\n"
        "  edge-agent explain digits\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    commands = root.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    _add_running(commands)
    _add_asking(commands)
    _add_identity(commands)
    return root


def _command(
    commands: _Commands, name: str, module: str, text: str, examples: str
) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(module=module)
    added.add_argument(
        "--config", metavar="F.toml", type=_not_empty, help=f"configuration ({_CONFIG})"
    )
    added.add_argument(
        "--state-dir", metavar="D", type=_not_empty, help="the agent's folder, instead of state_dir"
    )
    return added


def _add_socket(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--socket",
        metavar="P",
        type=_not_empty,
        help="the running agent's socket ($EDGE_AGENT_SOCKET, else agent.sock in "
        "$RUNTIME_DIRECTORY, in the agent's folder, or in /run/edge-agent)",
    )


def _add_running(commands: _Commands) -> None:
    run = _command(
        commands,
        "run",
        "running",
        "Run the agent until SIGTERM.",
        "  edge-agent run --config /etc/edge-agent.toml\n",
    )
    run.add_argument(
        "--log-format", choices=("text", "json"), help="format of the log (text on a terminal)"
    )
    config = _command(
        commands,
        "config",
        "configuration",
        "Print the resolved configuration.",
        "  edge-agent config --json\n",
    )
    config.add_argument("--json", action="store_true", help="print JSON instead of TOML")


def _add_asking(commands: _Commands) -> None:
    status = _command(
        commands,
        "status",
        "asking",
        "Say how the running agent does.",
        "  edge-agent status\n  edge-agent status --json | jq .broker\n"
        "  edge-agent status --state-dir /srv/agent-2\n",
    )
    explain = _command(
        commands,
        "explain",
        "asking",
        "Say what this device does about the fleet's plans, and why.",
        "  edge-agent explain\n  edge-agent explain digits\n\n"
        "It works with the agent running or not: then it decides by what is kept here.",
    )
    explain.add_argument("model", nargs="?", default="", metavar="MODEL", help="this model only")
    check = _command(
        commands,
        "check-now",
        "asking",
        "Have the running agent look at the repository now, and wait for what that brings.",
        "  edge-agent check-now\n",
    )
    for each in (status, explain, check):
        _add_socket(each)
        each.add_argument("--json", action="store_true", help="print JSON")
    outbox = _command(
        commands,
        "outbox",
        "outbox",
        "List what waits for the broker.",
        "  edge-agent outbox\n  edge-agent outbox --limit 5 --json\n",
    )
    outbox.add_argument("--limit", metavar="N", type=_positive, default=20, help="so many (20)")
    outbox.add_argument("--json", action="store_true", help="print JSON")


def _add_identity(commands: _Commands) -> None:
    enroll = _command(
        commands,
        "enroll",
        "enrolling",
        "Join a fleet with a token that its operator made.",
        "  edge-agent enroll https://enroll.example edge-enroll-1.eyJ...\n"
        "  edge-agent enroll https://enroll.example @token.txt --device till-7 --label site=oslo\n",
    )
    enroll.add_argument("url", metavar="URL", help="the enrolment server: https://HOST[:PORT]")
    enroll.add_argument("token", metavar="TOKEN", help="the token; @FILE reads it, - reads stdin")
    enroll.add_argument("--device", metavar="NAME", default="", help="name that it would like")
    enroll.add_argument(
        "--label",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_label,
        help="a fact by which plans choose devices; may be repeated",
    )
    enroll.add_argument("--again", action="store_true", help="replace an enrolment that is there")
    enroll.add_argument("--json", action="store_true", help="print JSON")
    prepare = _command(
        commands,
        "prepare-image",
        "preparing",
        "Remove this device's identity, before its disk is copied to other devices.",
        "  edge-agent prepare-image --yes\n",
    )
    prepare.add_argument("--yes", action="store_true", help="do not ask")
    clear = _command(
        commands,
        "clear-clone",
        "clearing",
        "Say that the copy of this device is gone, so that updates begin again.",
        "  edge-agent clear-clone\n\n"
        "For a device whose status says CLONE. It works with the agent running or not. Should the\n"
        "copy still be there, the running agent notices it again, and says so.",
    )
    _add_socket(clear)
    clear.add_argument("--json", action="store_true", help="print JSON")
    imported = _command(
        commands,
        "import",
        "importing",
        "Take releases and plans from a file, where there is no network.",
        "  edge-agent import /media/usb/export.tar\n\n"
        "The file is made by `edge-fleet repo export`. Trust is in its signatures, as ever: it is\n"
        "verified before it takes the place of the last one, and what is refused changes nothing.",
    )
    imported.add_argument("file", metavar="FILE", help="the export, a tar")
    _add_socket(imported)
    imported.add_argument("--json", action="store_true", help="print JSON")


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value

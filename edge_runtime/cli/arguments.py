"""The arguments of every command, in one place and without importing what they do."""

import argparse
from typing import Any

from edge_runtime.locations import ADMIN_SOCKET_NAME, RUNTIME_SOCKET_NAME

_Commands = Any  # argparse keeps the type of its subparsers to itself


def add_all(commands: _Commands) -> None:
    """Add every command to the parser."""
    _add_serve(commands)
    _add_config(commands)


def _command(commands: _Commands, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_serve(commands: _Commands) -> None:
    parser = _command(
        commands,
        "serve",
        "Serve models until SIGTERM.",
        "examples:\n"
        "  edge-runtime serve digits=digits-int8.onnx\n"
        "  edge-runtime serve ./models --http 127.0.0.1:8000\n"
        "  edge-runtime serve --config /etc/edge-runtime.toml --log-format json\n\n"
        "A MODEL is a model file, a bundle directory (manifest.json), or a model repository\n"
        "(<name>/<version>/model.onnx). SIGHUP reads the configuration and the folders again.",
    )
    parser.add_argument("models", nargs="*", metavar="[NAME=]MODEL", help="what to serve")
    parser.add_argument(
        "--socket", metavar="P", help=f"data socket (default: {RUNTIME_SOCKET_NAME})"
    )
    parser.add_argument(
        "--admin-socket", metavar="P", help=f"admin socket (default: {ADMIN_SOCKET_NAME} beside it)"
    )
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help="also listen on loopback TCP, for example 127.0.0.1:8000",
    )
    parser.add_argument("--state-dir", metavar="D", help="state directory")
    parser.add_argument("--config", metavar="F.toml", help="configuration file")
    parser.add_argument("--log-format", choices=("text", "json"), help="format of the log")


def _add_config(commands: _Commands) -> None:
    parser = _command(
        commands,
        "config",
        "Print the resolved configuration.",
        "examples:\n"
        "  edge-runtime config --config /etc/edge-runtime.toml\n"
        "  EDGE_RUNTIME__LIMITS__BODY_BYTES=1000000 edge-runtime config --json",
    )
    parser.add_argument("--config", metavar="F.toml", help="configuration file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of TOML")

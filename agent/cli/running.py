"""``edge-agent run``."""

import argparse
import logging
import sys
from pathlib import Path

from agent.cli.options import config_of
from agent.config import Config
from agent.daemon import Agent
from agent.errors import ConfigError
from agent.member import Member, member
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.logs import formatter, is_journal
from edge_runtime.settings import Log
from edge_runtime.trust.signatures import key_id, read_public_key


def run(options: argparse.Namespace) -> int:
    """Run until SIGTERM.

    Raises:
        AgentError: It cannot be started.
    """
    config = config_of(options)
    _log_to_stderr(config, options.log_format)
    who = member(config)
    Agent(who, _command_keys(who)).run()
    return ExitCode.DONE


def _log_to_stderr(config: Config, given: str | None) -> None:
    wanted = given or config.telemetry.log_format
    if wanted == "auto":
        wanted = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler()
    settings = Log(format="json" if wanted == "json" else "text")
    handler.setFormatter(formatter(settings, in_journal=is_journal(sys.stderr.fileno())))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    # python-tuf tells every step of every refresh.
    logging.getLogger("tuf").setLevel(logging.WARNING)


def _command_keys(who: Member) -> dict[str, bytes]:
    """Give the public keys that may command."""
    path = who.config.mqtt.command_key
    text = b"" if who.membership is None else who.membership.enrolment.command_key.encode()
    origin = "the enrolment's command key"
    if path:
        origin = f"mqtt.command_key {path}"
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{origin}: {error.strerror}") from error
    if not text:
        return {}
    try:
        key = read_public_key(text, origin)
    except EdgeRuntimeError as error:
        raise ConfigError(error.message) from error
    return {key_id(key): key}

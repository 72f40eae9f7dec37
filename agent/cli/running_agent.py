"""Asks the running agent, wherever it listens; says where it was looked for if nobody answers."""

import argparse
from typing import Any

from agent import locations
from agent.config import Config
from agent.control import Question, ask
from agent.errors import RuntimeAwayError

_NOBODY = (FileNotFoundError, ConnectionRefusedError, PermissionError, NotADirectoryError)


def ask_running(
    options: argparse.Namespace, config: Config, question: Question, timeout_s: float
) -> Any:  # noqa: ANN401 - any JSON
    """Ask the running agent.

    Args:
        options: With ``socket`` and ``state_dir``.
        config: That the options ask for.
        question: What to ask.
        timeout_s: How long to wait for the answer.

    Raises:
        RuntimeAwayError: Nobody answers; says where it was looked.
        AgentError: The agent cannot answer.
    """
    state = locations.state_directory(config.state_dir)
    given = options.socket or ""
    if options.state_dir and not given:
        places = locations.control_sockets(state, is_named=True, environment={})
    else:
        places = locations.control_sockets(state, given, is_named=bool(config.state_dir))
    looked = []
    for place in places:
        try:
            return ask(place, question, timeout_s)
        except RuntimeAwayError as error:
            if not isinstance(error.__cause__, _NOBODY):
                raise
            looked.append(f"{place} ({error.__cause__.strerror})")
    raise RuntimeAwayError(_nobody(looked))


def _nobody(looked: list[str]) -> str:
    return (
        f"no agent answers: looked at {', '.join(looked)}. Start `edge-agent run`; if it "
        "runs, be its user or root, and say where it is: --config F.toml or --state-dir D as it "
        f"was started with, --socket P, or ${locations.SOCKET_VARIABLE}"
    )

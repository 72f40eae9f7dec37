"""``edge-agent clear-clone``: a person's word that the copy of this device is gone."""

import argparse
import os
from pathlib import Path
from typing import Final

from agent import locations
from agent.cli.options import check_has_run, config_of, print_json
from agent.cli.running_agent import ask_running
from agent.clone_condition import CloneCondition
from agent.control import Question
from agent.errors import RuntimeAwayError
from agent.state_lock import lock_state
from edge_runtime.exit_codes import ExitCode

ASK_S: Final = 30.0
_NONE: Final = "none"
_CLONED: Final = "cloned"


def run(options: argparse.Namespace) -> int:
    """Let updates begin again after a clone was seen; where none was, nothing changes.

    Raises:
        ConfigError: No agent has run here, or the folder is another user's.
        StateError: The disk refused; the condition still stands.
    """
    config = config_of(options)
    state = locations.state_directory(config.state_dir)
    try:
        was: str = ask_running(options, config, Question("clear-clone"), ASK_S)["was"]
    except RuntimeAwayError:
        was = _cleared_here(state)
    if options.json:
        print_json({"was": was, "is": _NONE})
    elif was == _CLONED:
        print("cleared: updates may begin again; should the copy still be there, it is noticed")
    else:
        print("there is nothing to clear: no clone was seen")
    return ExitCode.DONE


def _cleared_here(state: Path) -> str:
    """Clear it where no agent is running; one that starts meanwhile is kept out."""
    check_has_run(state)
    lock = lock_state(state)
    try:
        condition = CloneCondition(state)
        was = _CLONED if condition.stands() else _NONE
        condition.clear()
    finally:
        os.close(lock)
    return was

"""``edge-agent config``."""

import argparse

import msgspec

from agent.cli.options import config_of, print_json
from agent.enrolment.membership import CA, CERTIFICATE, ROOT, read_membership
from agent.errors import AgentError
from agent.locations import state_directory
from agent.member_settings import completed, machine_id, named
from edge_runtime.exit_codes import ExitCode
from edge_runtime.toml_text import toml_text


def run(options: argparse.Namespace) -> int:
    """Print what the agent would use; nothing is written."""
    config = config_of(options)
    state = state_directory(config.state_dir)
    membership = read_membership(state)
    paths = (str(state / CA), str(state / CERTIFICATE), str(state / ROOT))
    config = completed(config, membership, paths)
    try:
        config = named(config, machine_id())
    except AgentError as error:
        print(f"# {error.message}")
    config = msgspec.structs.replace(config, state_dir=str(state))
    if options.json:
        print_json(config)
    else:
        print(toml_text(msgspec.to_builtins(config)))
    return ExitCode.DONE

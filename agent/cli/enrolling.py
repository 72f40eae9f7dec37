"""``edge-agent enroll``: joins a fleet."""

import argparse
import os
import sys
from pathlib import Path

from agent import locations
from agent.assembly import SCHEMAS
from agent.cli.options import check_own, config_of, print_json
from agent.clock import Clock
from agent.clone_condition import FILE as CLONE
from agent.enrolment.joining import join
from agent.enrolment.membership import read_membership, unpack, write_membership
from agent.enrolment.token import read_token
from agent.errors import ConfigError
from agent.identity import device_key
from agent.locations import DATABASE
from agent.member_settings import machine_id, machine_name
from agent.records.file import RecordsFile
from agent.records.floors import Floors
from agent.state_lock import lock_state
from edge_runtime.exit_codes import ExitCode


def run(options: argparse.Namespace) -> int:
    """Enrol this device.

    Raises:
        ConfigError: The token or the URL is none, or the device is enrolled already.
        AgentError: The server cannot be believed or reached, refuses, or the disk does.
    """
    config = config_of(options)
    token = read_token(_token_text(options.token))
    state = locations.state_directory(config.state_dir)
    check_own(state)
    locations.make_state_directory(state)
    if read_membership(state) is not None and not options.again:
        raise ConfigError(
            f"this device is enrolled already ({state}); --again replaces that, and keeps its key"
        )
    device = options.device or config.device.id or machine_name(machine_id())
    if not device:
        raise ConfigError("the device has no name: give --device, since /etc/machine-id is empty")
    lock = lock_state(state)
    file = RecordsFile(state / DATABASE, SCHEMAS)
    try:
        membership = join(
            options.url,
            token,
            key=device_key(state).private_key,
            device=device,
            labels={**config.device.labels, **dict(options.label)},
            clock=Clock(Floors(file), config.device.clock_is_trusted),
        )
        write_membership(state, membership)
        unpack(state, membership)
        (state / CLONE).unlink(missing_ok=True)  # somebody has seen to it
    finally:
        file.close()
        os.close(lock)
    known = membership.enrolment
    told = {
        "fleet": known.fleet,
        "device": known.device,
        "repository": known.repository,
        "brokers": [f"{each.host}:{each.port}" for each in known.brokers],
        "certificate_ends_s": membership.not_after_s,
    }
    if options.json:
        print_json(told)
    else:
        print(f"{known.device} belongs to the fleet {known.fleet} now; start `edge-agent run`")
    return ExitCode.DONE


def _token_text(given: str) -> str:
    if given == "-":
        return sys.stdin.read(4096)
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token from {given[1:]}: {error}") from error

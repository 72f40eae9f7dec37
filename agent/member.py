"""Who this device is: its configuration, with what enrolment knows."""

from dataclasses import dataclass
from pathlib import Path

from agent import locations
from agent.config import Config
from agent.enrolment.membership import Membership, read_membership, unpack
from agent.member_settings import completed, machine_id, named


@dataclass(frozen=True)
class Member:
    """A device that knows who it is.

    Attributes:
        config: With what enrolment knows put in.
        state: Its folder.
        membership: What enrolment left; ``None``: nothing.
    """

    config: Config
    state: Path
    membership: Membership | None


def member(config: Config) -> Member:
    """Find out who this device is.

    Args:
        config: As the owner wrote it.

    Raises:
        ConfigError: It belongs to no fleet, or what enrolment left cannot be read.
        StateError: The disk refused.
    """
    state = locations.state_directory(config.state_dir)
    locations.make_state_directory(state)
    membership = read_membership(state)
    paths = ("", "", "")
    if membership is not None:
        ca, certificate, root = unpack(state, membership)
        paths = str(ca), str(certificate), str(root)
    return Member(named(completed(config, membership, paths), machine_id()), state, membership)

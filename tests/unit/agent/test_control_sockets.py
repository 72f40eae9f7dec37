"""Where commands look for the running agent, and how the state folder leads to its socket."""

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.control import Control
from agent.errors import StateError
from agent.locations import (
    SYSTEM_DIRECTORY,
    control_socket,
    control_sockets,
    leave_sign,
    remove_sign,
    runtime_directory,
)

STATE = Path("/var/lib/one")
SYSTEM = SYSTEM_DIRECTORY / "agent.sock"


@pytest.mark.parametrize(
    ("given", "is_named", "environment", "places"),
    [
        ("", False, {}, [STATE / "agent.sock", SYSTEM]),
        ("", True, {}, [STATE / "agent.sock"]),
        ("", True, {"RUNTIME_DIRECTORY": "/run/two:/run/x"}, ["/run/two/agent.sock", None]),
        ("", False, {"EDGE_AGENT_SOCKET": "/run/x.sock"}, ["/run/x.sock"]),
        ("/run/y.sock", False, {"EDGE_AGENT_SOCKET": "/run/x.sock"}, ["/run/y.sock"]),
        ("/run/y.sock", True, {"RUNTIME_DIRECTORY": "/run/two"}, ["/run/y.sock"]),
    ],
)
def test_what_is_named_is_looked_at_and_only_that(
    given: str, environment: Mapping[str, str], places: list[object], *, is_named: bool
) -> None:
    wanted = [STATE / "agent.sock" if place is None else Path(str(place)) for place in places]
    assert control_sockets(STATE, given, is_named=is_named, environment=environment) == wanted


def test_the_state_folder_leads_to_a_socket_that_is_elsewhere(tmp_path: Path) -> None:
    state, runtime = tmp_path / "s", tmp_path / "r"
    state.mkdir()
    runtime.mkdir()
    path = control_socket(state, {"RUNTIME_DIRECTORY": str(runtime)})
    control = Control(path, {})
    leave_sign(state, path)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(state / "agent.sock"))
    remove_sign(state)
    assert not list(state.iterdir())
    control.stop()


def test_the_agents_own_socket_is_no_sign(tmp_path: Path) -> None:
    path = control_socket(tmp_path, {})
    control = Control(path, {})
    leave_sign(tmp_path, path)
    remove_sign(tmp_path)
    assert path.is_socket()
    control.stop()


def test_what_a_dead_agent_left_makes_way_for_the_sign(tmp_path: Path) -> None:
    (tmp_path / "agent.sock").symlink_to("/nowhere")
    leave_sign(tmp_path, Path("/run/x/agent.sock"))
    assert (tmp_path / "agent.sock").readlink() == Path("/run/x/agent.sock")
    with pytest.raises(StateError, match="cannot write"):
        leave_sign(tmp_path / "none", Path("/run/x/agent.sock"))


def test_commands_find_what_a_killed_agent_left_in_the_systems_folder(tmp_path: Path) -> None:
    state, run = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    run.mkdir()
    assert runtime_directory(state, {}) == state
    leave_sign(state, run / "agent.sock")
    assert runtime_directory(state, {}) == run
    assert runtime_directory(state, {"RUNTIME_DIRECTORY": "/run/other"}) == Path("/run/other")
    run.rmdir()
    assert runtime_directory(state, {}) == state

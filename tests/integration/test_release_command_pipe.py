"""``release stage -`` and ``release revert`` as a person or a script runs them."""

import subprocess
from collections.abc import Iterator

import pytest

from edge_runtime import cli
from edge_runtime.errors import ConflictError
from tests.daemons import COMMAND
from tests.scripted_orders import AdminSocket, ScriptedOrders, admin_socket, standing

pytestmark = pytest.mark.integration

WAIT_S = 60.0


@pytest.fixture
def admin() -> Iterator[AdminSocket]:
    """A daemon that has released ``digits``."""
    with admin_socket(ScriptedOrders(models={"digits": [standing()]})) as served:
        yield served


def run(admin: AdminSocket, *arguments: str) -> int:
    return cli.main([*arguments, "--socket", str(admin.path)])


def pipe(admin: AdminSocket, data: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    command = [COMMAND, "release", "stage", "-", "--socket", str(admin.path), *more]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=WAIT_S)


def test_a_tar_comes_from_a_pipe(admin: AdminSocket) -> None:
    done = pipe(admin, b"a tar", "--manual")
    assert done.returncode == 0, done.stderr
    assert admin.orders.bundle == b"a tar"
    assert admin.orders.taken[0][1]["mode"] == "manual"


@pytest.mark.parametrize(
    ("data", "said"), [(b"", b"is empty"), (b"a tar" * 3, b"more than 14 bytes (--max-bytes)")]
)
def test_a_pipe_with_nothing_or_too_much_is_refused(
    admin: AdminSocket, data: bytes, said: bytes
) -> None:
    done = pipe(admin, data, "--max-bytes", "14")
    assert done.returncode == 4
    assert said in done.stderr
    assert admin.orders.taken == []


def test_a_revert_names_the_version_it_is_to_lead_to(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "revert", "digits", "--to", "1", "--reason", "it flickers") == 0
    ((order, arguments),) = admin.orders.taken
    assert order == "revert"
    assert (arguments["to"], arguments["reason"]) == (1, "it flickers")
    assert "digits version 1 from store is active" in capsys.readouterr().out
    admin.orders.problem = ConflictError("before version 3 comes version 2")
    assert run(admin, "release", "revert", "digits", "--to", "1") != 0
    assert "before version 3 comes version 2" in capsys.readouterr().err

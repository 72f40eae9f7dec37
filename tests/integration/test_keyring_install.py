"""``edge-runtime keyring install``: a newer keyring for a device that runs."""

from pathlib import Path

import pytest

from edge_runtime import cli
from edge_runtime.errors import SignatureError
from edge_runtime.exit_codes import ExitCode
from tests.scripted_orders import ScriptedOrders, admin_socket

pytestmark = pytest.mark.integration


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    """What only the daemon would read."""
    path = tmp_path / "keyring-2.json"
    path.write_bytes(b"a signed keyring")
    return path


def test_a_newer_keyring_is_sent_to_the_device(
    keyring: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with admin_socket(ScriptedOrders()) as admin:
        assert cli.main(["keyring", "install", str(keyring), "--socket", str(admin.path)]) == 0
        ((order, arguments),) = admin.orders.taken
    assert (order, arguments["data"]) == ("accept_keyring", b"a signed keyring")
    assert not arguments["force"], "nobody insists unasked"
    assert "keyring version 2" in capsys.readouterr().err


def test_a_keyring_that_the_device_refuses_is_told_with_its_reason(
    keyring: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with admin_socket(ScriptedOrders()) as admin:
        admin.orders.problem = SignatureError("keyring version 2 is older than version 3")
        code = cli.main(["keyring", "install", str(keyring), "--socket", str(admin.path)])
    assert code == ExitCode.FAILED
    assert "older than version 3" in capsys.readouterr().err

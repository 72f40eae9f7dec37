"""How an order ends that the daemon refuses: 1; what was given wrongly ends with 4."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime import cli
from edge_runtime.errors import (
    ConflictError,
    EdgeRuntimeError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    SignatureError,
    UnsupportedError,
)
from edge_runtime.exit_codes import ExitCode
from tests.scripted_orders import AdminSocket, ScriptedOrders, admin_socket, standing

pytestmark = pytest.mark.integration

ORDERS = (
    ("release", "promote", "digits"),
    ("release", "rollback", "digits"),
    ("release", "revert", "digits"),
    ("release", "abort", "digits"),
    ("release", "hold", "digits"),
    ("release", "clear", "digits"),
    ("release", "stage", "{file}", "--send"),
    ("traffic", "digits", "1=80", "2=20"),
    ("keyring", "install", "{file}"),
)
PROBLEMS: tuple[tuple[EdgeRuntimeError, ExitCode], ...] = (
    (ForbiddenError("the user with uid 7 may look here but change nothing"), ExitCode.FAILED),
    (ConflictError("it went on by itself meanwhile"), ExitCode.FAILED),
    (InvalidRequestError("no release of 'digits' is under way"), ExitCode.FAILED),
    (SignatureError("it is signed by 0 keys"), ExitCode.FAILED),
    (UnsupportedError("this daemon takes no releases"), ExitCode.FAILED),
    (ModelNotFoundError("no release of a model 'digits' was ever ordered here"), ExitCode.USAGE),
)


@pytest.fixture(scope="module")
def admin() -> Iterator[AdminSocket]:
    """A daemon that refuses what a test has it refuse."""
    with admin_socket(ScriptedOrders(models={"digits": [standing()]})) as served:
        yield served


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(order[:2]))
def test_an_order_that_the_daemon_refuses_ends_with_1_and_one_about_no_model_with_4(
    admin: AdminSocket, order: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"for the daemon to judge")
    command = [each.format(file=file) for each in order]
    for problem, code in PROBLEMS:
        admin.orders.problem = problem
        assert cli.main([*command, "--socket", str(admin.path)]) == code
        assert problem.message in capsys.readouterr().err

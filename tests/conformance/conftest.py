"""The daemon that every client is tried on."""

from collections.abc import Iterator

import pytest

from tests.conftest import DIGITS
from tests.daemons import Daemon, daemon
from tests.protocol_models import write_repository


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon on TCP and on its Unix sockets."""
    root = tmp_path_factory.mktemp("repository")
    write_repository(root)
    digits = f"digits={DIGITS / 'digits-int8.onnx'}"
    with daemon(str(root), digits, "--http", "127.0.0.1:0") as running:
        yield running


@pytest.fixture(scope="session")
def address(served: Daemon) -> str:
    """Where it listens on TCP."""
    return f"127.0.0.1:{served.http_port()}"

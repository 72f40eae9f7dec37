"""Addresses are read as they were meant, or refused with the right way to write them."""

import errno
import math
import os
from pathlib import Path

import pytest

from edge_runtime.client import Endpoint
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.endpoint import unreachable
from edge_runtime.errors import ConfigError, InvalidRequestError


@pytest.mark.parametrize("text", ["/run/r.sock", "unix:/run/r.sock", "unix:///run/r.sock"])
def test_a_path_is_a_unix_socket(text: str) -> None:
    endpoint = Endpoint.parse(text)
    assert endpoint.path == Path("/run/r.sock")
    assert str(endpoint) == "unix:/run/r.sock"
    assert endpoint.authority == "localhost"


def test_a_relative_path_stays_relative() -> None:
    assert Endpoint.parse("r.sock").path == Path("r.sock")
    assert Endpoint.parse("unix:r.sock").path == Path("r.sock")


@pytest.mark.parametrize(
    ("text", "host", "port", "base"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000, ""),
        ("http://localhost:8000/", "localhost", 8000, ""),
        ("http://gateway/models/one/", "gateway", 80, "/models/one"),
        ("http://[::1]:8000", "::1", 8000, ""),
    ],
)
def test_a_url_is_a_tcp_address(text: str, host: str, port: int, base: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.path, endpoint.host, endpoint.port, endpoint.base) == (None, host, port, base)
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "https://localhost:8000",
        "http://",
        "http://localhost:0",
        "http://localhost:99999",
        "http://me:secret@localhost",
        "http://localhost/?a=b",
        "localhost:8000",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Endpoint.parse(text)


def test_a_host_and_port_without_scheme_is_told_how_to_write_it() -> None:
    with pytest.raises(ConfigError, match="http://localhost:8000"):
        Endpoint.parse("localhost:8000")


def test_the_defaults_are_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUNTIME_SOCKET", "/run/a.sock")
    monkeypatch.setenv("EDGE_RUNTIME_ADMIN_SOCKET", "/run/b.sock")
    assert Endpoint.of(None).path == Path("/run/a.sock")
    assert Endpoint.default_admin().path == Path("/run/b.sock")


def test_the_environment_takes_every_form_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUNTIME_SOCKET", "http://localhost:8000")
    monkeypatch.setenv("EDGE_RUNTIME_ADMIN_SOCKET", "unix:/run/b.sock")
    assert Endpoint.default() == Endpoint.parse("http://localhost:8000")
    assert Endpoint.default_admin().path == Path("/run/b.sock")
    monkeypatch.setenv("EDGE_RUNTIME_ADMIN_SOCKET", "https://localhost")
    with pytest.raises(ConfigError, match="EDGE_RUNTIME_ADMIN_SOCKET"):
        Endpoint.default_admin()


def test_any_form_of_an_address_is_taken() -> None:
    endpoint = Endpoint.parse("/run/a.sock")
    assert Endpoint.of("/run/a.sock") == Endpoint.of(Path("/run/a.sock")) == endpoint
    assert Endpoint.of(endpoint) is endpoint


@pytest.mark.parametrize(
    ("number", "address", "cure"),
    [
        (errno.ENOENT, "/run/a.sock", "edge-runtime serve"),
        (errno.ECONNREFUSED, "http://127.0.0.1:8000", "--http 127.0.0.1:8000"),
        (errno.EACCES, "/run/a.sock", "group"),
    ],
)
def test_an_unreachable_daemon_is_named_with_what_to_do(
    number: int, address: str, cure: str
) -> None:
    endpoint = Endpoint.parse(address)
    error = unreachable(endpoint, OSError(number, os.strerror(number)))
    assert str(endpoint) in error.message
    assert os.strerror(number) in error.message
    assert cure in error.message
    assert not error.request_sent


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan])
def test_a_timeout_that_is_not_above_zero_is_refused(timeout_s: float) -> None:
    with pytest.raises(InvalidRequestError):
        Deadline(timeout_s)


@pytest.mark.parametrize("timeout_s", [None, math.inf])
def test_no_timeout_never_passes(timeout_s: float | None) -> None:
    deadline = Deadline(timeout_s)
    assert deadline.remaining_s() is None
    assert not deadline.explains(ConnectionResetError())


def test_the_system_s_own_timeout_is_not_taken_for_the_deadline() -> None:
    assert not Deadline(60.0).explains(OSError(errno.ETIMEDOUT, "timed out"))
    assert Deadline(60.0).explains(TimeoutError())


def test_a_passed_deadline_leaves_no_time() -> None:
    deadline = Deadline(1e-9)
    with pytest.raises(TimeoutError):
        deadline.remaining_s()
    error = deadline.exceeded(Endpoint.parse("/run/a.sock"), request_sent=True)
    assert "/run/a.sock" in error.message
    assert "may have run" in error.message

"""The agent's HTTP against a server that misbehaves: a limit on everything, and clear errors."""

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.errors import ConfigError, NetworkError, RefusedError, TooLargeError, TooSlowError
from agent.settings.device import Repository as RepositorySettings
from agent.trust.http import Http, open_http
from agent.trust.patience import LowSpeed
from tests.daemons import eventually
from tests.hostile_http import (
    Fault,
    HostileServer,
    drip,
    drip_head,
    endless,
    hang_up,
    hostile_server,
    redirect,
    replace,
    reset,
    stall,
    status,
    truncate,
)

pytestmark = pytest.mark.integration

BODY = bytes(range(256)) * 1000
PATIENT = RepositorySettings(connect_s=60.0, read_s=60.0)
QUICK = msgspec.structs.replace(PATIENT, read_s=1.0)


class AnyClock:
    """A clock for plain HTTP, where nobody asks."""

    own_floor_s = 0.0

    def wall_s(self) -> float:
        """Tell the time."""
        return 0.0

    def is_trusted(self) -> bool:
        """Tell whether that can be believed."""
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HostileServer]:
    (tmp_path / "file").write_bytes(BODY)
    with hostile_server(tmp_path) as running:
        yield running


@pytest.fixture
def http() -> Iterator[Http]:
    made = open_http(PATIENT, AnyClock())
    with contextlib.closing(made):
        yield made


def fetch(http: Http, url: str, limit_bytes: int = len(BODY), **more: float) -> bytes:
    with http.get(
        url,
        limit_bytes=limit_bytes,
        first_byte_s=more.get("first_byte_s"),
        whole_s=more.get("whole_s"),
    ) as answer:
        return answer.read()


def test_a_file_comes_whole_over_one_connection_and_is_counted(
    server: HostileServer, http: Http
) -> None:
    assert [fetch(http, server.url + "/file") for _ in range(3)] == [BODY] * 3
    assert server.connections == 1
    assert 3 * len(BODY) < http.received_bytes < 3 * len(BODY) + 2000
    asked = server.requests[0].headers
    assert asked["accept-encoding"] == "identity"
    assert asked["user-agent"].startswith("edge-agent/")


def test_a_refusal_does_not_cost_the_connection(server: HostileServer, http: Http) -> None:
    for _ in range(3):
        with pytest.raises(RefusedError, match="404") as caught:
            fetch(http, server.url + "/missing")
        assert caught.value.status == 404
    assert fetch(http, server.url + "/file") == BODY
    assert server.connections == 1


def test_a_range_comes_as_it_was_asked_for(server: HostileServer, http: Http) -> None:
    headers = {"Range": "bytes=100-199"}
    with http.get(server.url + "/file", headers=headers, limit_bytes=100) as answer:
        assert answer.status == 206
        assert answer.headers["content-range"] == f"bytes 100-199/{len(BODY)}"
        assert answer.read() == BODY[100:200]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, RefusedError),
        (403, RefusedError),
        (404, RefusedError),
        (408, NetworkError),
        (416, RefusedError),
        (429, NetworkError),
        (500, NetworkError),
        (503, NetworkError),
        (304, NetworkError),
    ],
)
def test_a_status_says_who_must_act(
    server: HostileServer, http: Http, code: int, error: type[Exception]
) -> None:
    server.fault("/file", status(code, b"" if code == 304 else b"no"))
    with pytest.raises(error, match=str(code)):
        fetch(http, server.url + "/file")


@pytest.mark.parametrize("fault", [truncate(1000), reset(1000), hang_up(), stall(1000), stall()])
def test_a_body_that_does_not_come_whole_is_an_error(
    server: HostileServer, http: Http, fault: Fault
) -> None:
    server.fault("/file", fault)
    http._settings = QUICK
    with pytest.raises(NetworkError) as caught:
        fetch(http, server.url + "/file", first_byte_s=60.0)
    assert not isinstance(caught.value, TooSlowError)
    server.heal()
    http._settings = PATIENT
    assert fetch(http, server.url + "/file") == BODY


def test_what_came_before_an_error_is_given(server: HostileServer, http: Http) -> None:
    server.fault("/file", truncate(1000))
    got = io.BytesIO()
    with (
        pytest.raises(NetworkError),
        http.get(server.url + "/file", limit_bytes=len(BODY)) as answer,
    ):
        got.writelines(answer.chunks())
    assert got.getvalue() == BODY[:1000]


def test_a_drip_in_the_head_or_the_body_ends_at_the_deadline(
    server: HostileServer, http: Http
) -> None:
    server.fault("/file", drip_head())
    with pytest.raises(TooSlowError, match="no answer within"):
        fetch(http, server.url + "/file", first_byte_s=0.3)
    with pytest.raises(TooSlowError, match="not whole within"):
        fetch(http, server.url + "/file", whole_s=0.3)
    server.fault("/file", drip())
    with pytest.raises(TooSlowError, match="not whole within"):
        fetch(http, server.url + "/file", whole_s=0.3)


def test_a_body_that_is_slower_than_the_least_speed_is_given_up(
    server: HostileServer, http: Http
) -> None:
    server.fault("/file", drip(pause_s=0.01))
    with (
        pytest.raises(TooSlowError, match="slower than 1000 bytes"),
        http.get(
            server.url + "/file", limit_bytes=len(BODY), low_speed=LowSpeed(1000, window_s=0.3)
        ) as answer,
    ):
        answer.read()


@pytest.mark.parametrize("fault", [endless(), replace(b"x" * 1001)])
def test_more_than_the_limit_is_never_read(server: HostileServer, http: Http, fault: Fault) -> None:
    server.fault("/file", fault)
    with pytest.raises(TooLargeError):
        fetch(http, server.url + "/file", limit_bytes=1000)
    assert http.received_bytes < 200_000


def test_redirects_are_followed_but_not_round_and_round(server: HostileServer, http: Http) -> None:
    server.fault("/there", redirect(server.url + "/file"))
    server.fault("/here", redirect("/there"))
    assert fetch(http, server.url + "/here") == BODY
    server.fault("/circle", redirect("/circle"))
    with pytest.raises(NetworkError, match="redirects"):
        fetch(http, server.url + "/circle")
    server.fault("/file", redirect("file:///etc/hostname"))
    with pytest.raises(NetworkError, match="not followed"):
        fetch(http, server.url + "/file")


def test_nobody_at_home_is_a_network_error(server: HostileServer, http: Http) -> None:
    server.close()
    with pytest.raises(NetworkError, match="refused"):
        fetch(http, server.url + "/file")
    with pytest.raises(NetworkError):
        fetch(http, "http://name.invalid/file")


@pytest.mark.parametrize("url", ["ftp://host/file", "file", "", "http:///file"])
def test_what_is_no_url_is_the_operators_to_mend(http: Http, url: str) -> None:
    with pytest.raises(ConfigError):
        fetch(http, url)


def test_another_thread_can_end_an_answer(server: HostileServer) -> None:
    http = open_http(PATIENT, AnyClock())
    server.fault("/file", stall(1000))
    caught: list[Exception] = []

    def read() -> None:
        try:
            fetch(http, server.url + "/file")
        except NetworkError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    eventually(lambda: http.received_bytes > 1000, "the first bytes")
    http.abort()
    thread.join(60.0)
    assert not thread.is_alive()
    assert len(caught) == 1
    http.close()


def test_a_proxy_is_used_if_it_is_named_and_not_for_hosts_that_are_excepted(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = open_http(msgspec.structs.replace(PATIENT, proxy=server.url), AnyClock())
    assert fetch(proxied, "http://name.invalid/file") == BODY
    assert server.requests[-1].headers["host"] == "name.invalid"
    proxied.close()
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "other.invalid")
    by_environment = open_http(PATIENT, AnyClock())
    assert fetch(by_environment, "http://name.invalid/file") == BODY
    with pytest.raises(NetworkError):
        fetch(by_environment, "http://other.invalid/file")
    by_environment.close()
    for wrong in ("https://proxy:1", "socks5://proxy:1", "proxy"):
        http = open_http(msgspec.structs.replace(PATIENT, proxy=wrong), AnyClock())
        with pytest.raises(ConfigError, match="proxy"):
            fetch(http, "http://name.invalid/file")


def test_a_stick_answers_like_a_server(tmp_path: Path, http: Http) -> None:
    folder = tmp_path / "a stick"
    folder.mkdir()
    (folder / "file").write_bytes(BODY)
    url = f"file://{tmp_path}/a%20stick/file"
    assert fetch(http, url) == BODY
    with http.get(url, headers={"Range": "bytes=10-19"}, limit_bytes=10) as answer:
        assert (answer.status, answer.read()) == (206, BODY[10:20])
        assert answer.headers["content-range"] == f"bytes 10-19/{len(BODY)}"
        tag = answer.headers["etag"]
    headers = {"Range": "bytes=10-", "If-Range": tag}
    with http.get(url, headers=headers, limit_bytes=len(BODY)) as answer:
        assert answer.read() == BODY[10:]
    (folder / "file").write_bytes(BODY[:-1])
    with http.get(url, headers=headers, limit_bytes=len(BODY)) as answer:
        assert (answer.status, answer.read()) == (200, BODY[:-1])
    for missing in (url + "s", f"file://{folder}", f"{url}/deeper"):
        with pytest.raises(RefusedError) as caught:
            fetch(http, missing)
        assert caught.value.status == 404
    with pytest.raises(TooLargeError):
        fetch(http, url, limit_bytes=10)
    with (
        pytest.raises(RefusedError) as caught,
        http.get(url, headers={"Range": "bytes=999999-"}, limit_bytes=10),
    ):
        pass
    assert caught.value.status == 416
    assert http.received_bytes == 0

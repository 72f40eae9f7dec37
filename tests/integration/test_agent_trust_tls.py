"""TLS on a device whose clock may be wrong, against a real server with certificates of any age."""

import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import BUILT_S
from agent.errors import ConfigError, NetworkError
from agent.settings.device import Repository as RepositorySettings
from agent.trust.http import open_http
from agent.trust.tls import NO_CHECK_TIME, client_context
from tests.hostile_http import hostile_server, redirect
from tests.trusting import Device, Hands
from tests.tuf_attacks import CHANNEL, DAY_S, TufRepository, plan
from tests.tunnel import tunnel
from tests.web_certificates import Authority

pytestmark = pytest.mark.integration


class SetClock:
    """A clock that says what it is told."""

    def __init__(self, *, now: float, floor: float, trusted: bool) -> None:
        """Times in days from now."""
        self.now_s = time.time() + now * DAY_S
        self.own_floor_s = time.time() + floor * DAY_S
        self.trusted = trusted

    def wall_s(self) -> float:
        """Tell the time."""
        return max(self.now_s, self.own_floor_s)

    def is_trusted(self) -> bool:
        """Tell whether that can be believed."""
        return self.trusted


RIGHT = SetClock(now=0, floor=-10, trusted=True)
IN_1970 = SetClock(now=-20_000, floor=-10, trusted=False)
FAR_AHEAD = SetClock(now=20_000, floor=-10, trusted=False)


@contextlib.contextmanager
def fetched(tls: tuple[Path, Path], ca: Path, clock: SetClock, folder: Path) -> Iterator[bytes]:
    (folder / "file").write_bytes(b"content")
    with hostile_server(folder, tls) as server:
        http = open_http(RepositorySettings(ca=str(ca)), clock)
        try:
            with http.get(server.url + "/file", limit_bytes=100) as answer:
                yield answer.read()
        finally:
            http.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "served"
    made.mkdir()
    return made


def test_python_and_openssl_know_the_flag_that_leaves_dates_to_us() -> None:
    flags = client_context("").verify_flags
    assert int(flags) & NO_CHECK_TIME
    assert int(flags) & int(ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST)


@pytest.mark.parametrize("clock", [RIGHT, IN_1970, FAR_AHEAD], ids=["right", "1970", "ahead"])
def test_a_good_certificate_is_believed_whatever_the_clock_says(
    tmp_path: Path, folder: Path, clock: SetClock
) -> None:
    authority = Authority(tmp_path)
    with fetched(authority.server(), authority.file, clock, folder) as data:
        assert data == b"content"


@pytest.mark.parametrize(
    ("days", "clock", "why"),
    [
        ((-30, -1), RIGHT, "has ended"),
        ((1, 30), RIGHT, "does not hold yet"),
        ((-30, -11), IN_1970, "has ended"),
        ((-30, -11), FAR_AHEAD, "has ended"),
    ],
)
def test_a_certificate_out_of_its_time_is_refused(
    tmp_path: Path, folder: Path, days: tuple[float, float], clock: SetClock, why: str
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server("localhost", *days)
    with (
        pytest.raises(NetworkError, match=f"certificate of localhost {why}"),
        fetched(tls, authority.file, clock, folder),
    ):
        pass


@pytest.mark.parametrize(("begins", "ends"), [(-30, -9), (1, 30)])
def test_a_certificate_that_may_be_in_its_time_is_believed_without_a_clock(
    tmp_path: Path, folder: Path, begins: float, ends: float
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server(begins=begins, ends=ends)
    with fetched(tls, authority.file, IN_1970, folder) as data:
        assert data == b"content"


def test_the_dates_of_the_authority_count_too(tmp_path: Path, folder: Path) -> None:
    authority = Authority(tmp_path, ends=-1)
    with (
        pytest.raises(NetworkError, match="Test authority has ended"),
        fetched(authority.server(), authority.file, RIGHT, folder),
    ):
        pass


@pytest.mark.parametrize("clock", [RIGHT, IN_1970], ids=["right", "1970"])
def test_a_wrong_name_or_a_strange_authority_is_refused_with_any_clock(
    tmp_path: Path, folder: Path, clock: SetClock
) -> None:
    authority = Authority(tmp_path)
    with (
        pytest.raises(NetworkError, match="localhost"),
        fetched(authority.server("elsewhere"), authority.file, clock, folder),
    ):
        pass
    tls = authority.server()
    (tmp_path / "other").mkdir()
    with (
        pytest.raises(NetworkError, match="verify failed"),
        fetched(tls, Authority(tmp_path / "other").file, clock, folder),
    ):
        pass


@pytest.mark.parametrize(("ends", "why"), [(30, ""), (-1, "repository.test has ended")])
def test_certificates_are_judged_through_a_proxy_too(
    tmp_path: Path, folder: Path, ends: float, why: str
) -> None:
    authority = Authority(tmp_path)
    (folder / "file").write_bytes(b"content")
    tls = authority.server("repository.test", begins=-30, ends=ends)
    with hostile_server(folder, tls) as server, tunnel(server.port) as proxy:
        settings = RepositorySettings(
            ca=str(authority.file), proxy=proxy.url.replace("//", "//u:p@")
        )
        http = open_http(settings, RIGHT)
        with contextlib.ExitStack() as stack:
            stack.callback(http.close)
            if why:
                stack.enter_context(pytest.raises(NetworkError, match=why))
            with http.get("https://repository.test/file", limit_bytes=10) as answer:
                assert answer.read() == b"content"
        assert proxy.heads[0].startswith(b"CONNECT repository.test:443 HTTP/1.")
        assert b"roxy-authorization: basic dTpw" in proxy.heads[0].lower().replace(b"dtpw", b"dTpw")


def test_a_proxy_that_refuses_is_a_network_error(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tunnel(1, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
        http = open_http(RepositorySettings(ca=str(authority.file), proxy=proxy.url), RIGHT)
        with (
            pytest.raises(NetworkError, match="407"),
            http.get("https://repository.test/file", limit_bytes=10),
        ):
            pass
        http.close()


def test_a_redirect_never_leads_from_tls_to_plain_text(tmp_path: Path, folder: Path) -> None:
    authority = Authority(tmp_path)
    with hostile_server(folder, authority.server()) as server:
        http = open_http(RepositorySettings(ca=str(authority.file)), RIGHT)
        for target in ("http://127.0.0.1:1/file", "file:///etc/passwd", "ftp://localhost/"):
            server.fault("*", redirect(target), times=1)
            with (
                pytest.raises(NetworkError, match="not followed"),
                http.get(server.url + "/file", limit_bytes=10),
            ):
                pass
        http.close()


def test_a_missing_or_empty_file_of_authorities_is_the_operators_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        client_context(str(tmp_path / "missing.pem"))
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="no certificates"):
        client_context(str(tmp_path / "empty.pem"))


def test_a_device_from_a_drawer_without_a_clock_recovers_by_itself(tmp_path: Path) -> None:
    """Its clock is at 1970, its metadata is a year old; the repository and its TLS are of today."""
    then_s = max(time.time(), BUILT_S)
    now_s = then_s + 365 * DAY_S
    authority = Authority(tmp_path)
    tls = authority.server(begins=300, ends=400)
    repository = TufRepository(tmp_path / "repository", now_s=then_s)
    repository.set_plans(plan("digits", 1))
    repository.publish()
    hands = Hands(then_s)
    url = f"file://{repository.folder}"
    device = Device(tmp_path / "state", url, repository.first_root, hands)
    with contextlib.closing(device), hostile_server(repository.folder, tls) as server:
        device.repository.refresh()
        repository.now_s = now_s
        for signed in repository.signed.values():
            signed.expires = repository.in_days(30)
        repository.signed["root"].version += 1
        repository.set_plans(plan("digits", 2))
        repository.publish("targets", "releases", "rollouts")
        device.url = server.url
        device.settings = {"ca": str(authority.file)}
        hands.system_s, hands.synchronised = 0.0, False
        device.restart()
        assert device.clock.wall_s() == device.clock.floor_s < now_s - 300 * DAY_S
        device.repository.refresh()
        plans = device.repository.plans(CHANNEL)
        assert plans is not None
        assert plans.plans[0].version == 2
        assert device.repository.is_fresh()
        assert device.clock.wall_s() == now_s  # the plans say when they were signed
        device.restart()
        assert device.clock.wall_s() == now_s

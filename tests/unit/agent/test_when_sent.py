"""When predictions are sent and certificates renewed: the gates in the agent's loop."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from agent.assembly import Assembly
from agent.certificate import LOOK_S, RETRY_S, CertificateRenewal
from agent.config import Config
from agent.enrolment.joining import join
from agent.enrolment.membership import Membership, read_membership
from agent.enrolment.token import read_token
from agent.identity import device_key
from agent.journal_sync.sending import RETRY_S as SENDING_RETRY_S
from agent.journal_sync.sending import JournalSending
from agent.settings.device import Device, JournalUpload
from agent.settings.messaging import Broker
from agent.telemetry.host import Host
from agent.trust.https import WHOLE_S
from edge_runtime.protocol.journal_schemas import JournalRow, JournalRows
from tests.agent_downloads import FixedClock
from tests.daemons import eventually
from tests.enrolment_server import EnrolmentServer, enrolment_server
from tests.hostile_http import HostileServer, drip_head, hostile_server
from tests.web_certificates import Authority


class Admin:
    """A runtime that counts who asks for kept predictions."""

    asked = 0

    def __init__(self) -> None:
        self.rows: list[JournalRow] = []

    def journal(self, _after: int) -> JournalRows:
        """Give what there is."""
        self.asked += 1
        return JournalRows(journal="j", rows=self.rows, has_more=False)


def parts_of(**more: Any) -> Assembly:  # noqa: ANN401 - parts of the agent
    return cast("Assembly", SimpleNamespace(**more))


def sending(host: Host, ca: str = "", **settings: Any) -> tuple[JournalSending, Admin]:  # noqa: ANN401
    admin = Admin()
    journal = JournalUpload(**{"url": "https://journal.example", "interval_s": 3600.0, **settings})
    config = Config(device=Device(id="till-7", fleet="shop"), journal=journal)
    parts = parts_of(
        member=SimpleNamespace(config=config, membership=SimpleNamespace(ca=ca)),
        conditions=SimpleNamespace(host=lambda: host),
        clock=FixedClock(time.time()),
        key=None,
        admin=admin,
    )
    return JournalSending(parts), admin


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("host", "settings", "is_sent"),
    [
        (Host(), {}, True),
        (Host(is_metered=True), {"on_metered": False}, False),
        (Host(is_metered=True), {"on_metered": True}, True),
        (Host(on_battery=True), {"on_battery": False}, False),
        (Host(on_battery=True), {"on_battery": True}, True),
    ],
    ids=["plain", "metered", "metered-allowed", "battery", "battery-allowed"],
)
def test_predictions_wait_for_a_cheap_link_and_power(
    host: Host, settings: dict[str, bool], *, is_sent: bool
) -> None:
    with enrolment_server() as server:
        journal, admin = sending(host, server.authority.pem.decode(), **settings)
        journal.run_if_due(never)
        assert admin.asked == 0  # it is not time yet
        journal.due_s = 0.0
        journal.run_if_due(never)
        assert bool(admin.asked) is is_sent
        assert journal.due_s > time.monotonic() + 3000


def test_predictions_are_never_due_without_a_receiver() -> None:
    journal, admin = sending(Host(), url="")
    assert journal.due_s == float("inf")
    journal.run_if_due(never)
    assert admin.asked == 0


def test_a_device_that_nobody_enrolled_sends_no_predictions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal, admin = sending(Host(), interval_s=60.0)
    cast("Any", journal)._parts.member.membership = None
    before_s = time.monotonic()
    for _ in range(3):
        journal.due_s = 0.0
        journal.run_if_due(never)
    assert admin.asked == 0
    assert caplog.text.count("only sent by an enrolled device") == 1
    assert journal.due_s >= before_s + SENDING_RETRY_S


def test_an_upload_to_a_slow_receiver_is_called_off_at_a_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    with hostile_server(tmp_path, authority.server()) as slow:
        slow.fault("*", drip_head(0.01))
        journal, admin = sending(Host(), authority.file.read_text("ascii"), url=slow.url)
        row: dict[str, Any] = dict.fromkeys(("model", "version", "digest", "reason"), "")
        admin.rows = [JournalRow(number=1, at_ms=0, is_encrypted=False, record=b"x", **row)]
        journal.due_s = 0.0
        ended = threading.Event()
        thread = threading.Thread(target=journal.run, args=(ended,))
        thread.start()
        eventually(lambda: bool(slow.paths()), "the request")
        ended.set()
        journal.call_off()
        thread.join(60.0)  # it would wait for two minutes
        assert not thread.is_alive()
    assert caplog.text == ""


@dataclass
class Renewing:
    """A device with a certificate, and its server."""

    server: EnrolmentServer
    state: Path
    clock: FixedClock
    hurried: list[bool]
    membership: Membership

    def renewal(
        self, whole_s: float = WHOLE_S, on_moved: Callable[[], None] = lambda: None
    ) -> CertificateRenewal:
        """Give what renews it."""
        parts = parts_of(
            member=SimpleNamespace(state=self.state, membership=self.membership),
            clock=self.clock,
            key=device_key(self.state),
            messaging=SimpleNamespace(try_now=lambda: self.hurried.append(True)),
        )
        return CertificateRenewal(parts, whole_s, on_moved)

    def is_late(self) -> None:
        """Let its certificate's time be over."""
        self.membership = msgspec.structs.replace(self.membership, not_after_s=1.0)

    def goes_to(self, url: str, ca: str) -> None:
        """Have another server renew it."""
        enrolment = msgspec.structs.replace(self.membership.enrolment, enrolment=url)
        self.membership = msgspec.structs.replace(self.membership, enrolment=enrolment, ca=ca)


def renewing(server: EnrolmentServer, state: Path) -> Renewing:
    clock = FixedClock(time.time())
    membership = join(
        server.url,
        read_token(server.token()),
        key=device_key(state).private_key,
        device="till-7",
        labels={},
        clock=clock,
    )
    return Renewing(server, state, clock, [], membership)


At = Callable[[Membership], float]


@pytest.mark.parametrize(
    ("at", "is_renewed"),
    [
        (lambda known: known.not_before_s + 3600, False),
        (lambda known: known.not_after_s - 0.34 * (known.not_after_s - known.not_before_s), False),
        (lambda known: known.not_after_s - 0.32 * (known.not_after_s - known.not_before_s), True),
        (lambda known: known.not_after_s + 86_400, True),
    ],
    ids=["fresh", "before", "last-third", "after-its-end"],
)
def test_a_certificate_is_renewed_in_its_last_third_and_after_its_end(
    tmp_path: Path, at: At, *, is_renewed: bool
) -> None:
    with enrolment_server() as server:
        device = renewing(server, tmp_path)
        # Time passes: the server's own certificate is of today, so its beginning moves instead.
        shift = device.clock.now_s - at(device.membership)
        device.membership = msgspec.structs.replace(
            device.membership,
            not_before_s=device.membership.not_before_s + shift,
            not_after_s=device.membership.not_after_s + shift,
        )
        renewal = device.renewal()
        renewal.run_if_due()
        assert bool(read_membership(tmp_path)) is is_renewed
        assert bool(device.hurried) is is_renewed
        assert renewal.due_s > time.monotonic() + LOOK_S - 60
        renewal.run_if_due()  # nothing is due twice
        assert len(device.hurried) <= 1


def test_a_renewal_that_is_refused_is_tried_later_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with enrolment_server() as server:
        device = renewing(server, tmp_path)
        server.devices.clear()
        device.is_late()
        renewal = device.renewal()
        for _ in range(3):
            renewal.due_s = 0.0
            renewal.run_if_due()
        assert read_membership(tmp_path) is None
        assert device.hurried == []
        assert caplog.text.count("cannot be renewed now") == 1
        assert renewal.due_s <= time.monotonic() + RETRY_S


def test_a_clock_that_is_set_past_the_certificates_end_has_it_renewed_at_the_next_wake(
    tmp_path: Path,
) -> None:
    assert LOOK_S <= 60.0
    with enrolment_server() as server:
        device = renewing(server, tmp_path)
        now_s, device.clock.now_s = device.clock.now_s, device.membership.not_before_s
        # The certificate ended while the device lay in a drawer.
        device.membership = msgspec.structs.replace(device.membership, not_after_s=now_s - 60.0)
        renewal = device.renewal()
        renewal.run_if_due()  # by the clock of before: all is well
        assert read_membership(tmp_path) is None
        assert renewal.due_s <= time.monotonic() + LOOK_S
        device.clock.now_s = now_s  # the network says what time it is
        renewal.due_s = 0.0
        renewal.run_if_due()
        assert read_membership(tmp_path) is not None


@pytest.mark.parametrize(
    ("offers", "moved"),
    [
        ({}, ()),
        ({"brokers": (Broker(host="new.example"),)}, ("brokers",)),
        (
            {"journal": "https://j.example", "mirrors": ("https://m.example",)},
            ("mirrors", "journal"),
        ),
        ({"enrolment": "https://elsewhere.example"}, ()),
    ],
    ids=["nothing", "brokers", "mirrors and journal", "where to renew: used at once"],
)
def test_what_a_renewal_brings_and_only_a_start_takes_up_is_told(
    tmp_path: Path, offers: dict[str, Any], moved: tuple[str, ...]
) -> None:
    told: list[bool] = []
    with enrolment_server() as server:
        device = renewing(server, tmp_path)
        device.is_late()
        server.offers = {**server.offers, **offers}
        renewal = device.renewal(on_moved=lambda: told.append(True))
        renewal.run_if_due()
    assert renewal.moved == moved
    assert bool(told) is bool(moved)
    assert bool(device.hurried) is not bool(moved)


def test_a_renewal_with_a_command_key_that_is_none_changes_nothing(tmp_path: Path) -> None:
    with enrolment_server() as server:
        device = renewing(server, tmp_path)
        device.is_late()
        server.offers = {**server.offers, "command_key": "rubbish"}
        device.renewal().run_if_due()
    assert read_membership(tmp_path) is None  # with it, the agent would not start again


def test_a_device_that_was_never_enrolled_renews_nothing() -> None:
    renewal = CertificateRenewal(
        parts_of(member=SimpleNamespace(membership=None), clock=FixedClock())
    )
    assert renewal.due_s == float("inf")
    renewal.run_if_due()
    renewal.start()
    assert renewal.stop(1.0)


@contextmanager
def late(folder: Path) -> Iterator[tuple[Renewing, HostileServer]]:
    """Give a device whose certificate has ended, and whose server says a byte now and then."""
    with enrolment_server() as server:
        device = renewing(server, folder)
    device.is_late()
    authority = Authority(folder)
    with hostile_server(folder, authority.server()) as slow:
        slow.fault("*", drip_head(0.01))
        device.goes_to(slow.url, authority.file.read_text("ascii"))
        yield device, slow


def test_a_server_that_drips_stalls_a_renewal_for_a_bounded_time_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with late(tmp_path) as (device, slow):
        renewal = device.renewal(60.0)
        renewal.start()  # comes back at once: it has a thread
        eventually(lambda: bool(slow.paths()), "the request")
        # Minutes pass; had it less time, the request itself could come too late.
        cast("Any", renewal)._server._waiting.patience._begun_s -= 600.0
        eventually(lambda: "not whole within" in caplog.text, "the end of the time")
        assert slow.paths() == ["/renew"]
        assert renewal.stop(10.0)
    assert read_membership(tmp_path) is None
    assert renewal.due_s > time.monotonic() + RETRY_S - 60


def test_a_renewal_that_is_under_way_is_called_off_at_a_stop_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with late(tmp_path) as (device, slow):
        renewal = device.renewal()
        renewal.start()
        eventually(lambda: bool(slow.paths()), "the request")
        assert renewal.stop(20.0)  # it would wait for two minutes
    assert read_membership(tmp_path) is None
    assert device.hurried == []
    assert "cannot be renewed" not in caplog.text


def test_a_fault_in_a_renewal_ends_neither_the_agent_nor_the_next_renewal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with enrolment_server() as server:
        device = renewing(server, tmp_path)
        device.is_late()
        renewal = device.renewal()
        parts = cast("Any", renewal)._parts
        key, parts.key = parts.key, None
        for _ in range(2):
            renewal.due_s = 0.0
            renewal.run_if_due()
        assert caplog.text.count("cannot be renewed now: AttributeError") == 1
        parts.key = key
        renewal.due_s = 0.0
        renewal.run_if_due()
        assert device.hurried == [True]

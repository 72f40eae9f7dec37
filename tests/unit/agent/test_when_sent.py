"""When predictions are sent and certificates renewed: the gates in the agent's loop."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
from agent.telemetry.host import Host
from edge_runtime.protocol.journal_schemas import JournalRows
from tests.enrolment_server import EnrolmentServer, enrolment_server


@dataclass
class Clock:
    """A clock that a test sets."""

    now_s: float = field(default_factory=time.time)

    def wall_s(self) -> float:
        """Give the time."""
        return self.now_s

    @property
    def floor_s(self) -> float:
        """Give what is past for sure."""
        return 0.0

    def is_trusted(self) -> bool:
        """Tell that it goes right."""
        return True


class Admin:
    """A runtime without kept predictions, which counts who asks."""

    asked = 0

    def journal(self, _after: int) -> JournalRows:
        """Give nothing."""
        self.asked += 1
        return JournalRows(journal="j", rows=[], has_more=False)


def parts_of(**more: Any) -> Assembly:  # noqa: ANN401 - parts of the agent
    return cast("Assembly", SimpleNamespace(**more))


def sending(host: Host, ca: str = "", **settings: Any) -> tuple[JournalSending, Admin]:  # noqa: ANN401
    admin = Admin()
    journal = JournalUpload(**{"url": "https://journal.example", "interval_s": 3600.0, **settings})
    config = Config(device=Device(id="till-7", fleet="shop"), journal=journal)
    parts = parts_of(
        member=SimpleNamespace(config=config, membership=SimpleNamespace(ca=ca)),
        conditions=SimpleNamespace(host=lambda: host),
        clock=Clock(),
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
    for _ in range(3):
        journal.due_s = 0.0
        journal.run_if_due(never)
    assert admin.asked == 0
    assert caplog.text.count("only sent by an enrolled device") == 1
    assert journal.due_s >= time.monotonic() + SENDING_RETRY_S - 1


@dataclass
class Renewing:
    """A device with a certificate, and its server."""

    server: EnrolmentServer
    state: Path
    clock: Clock
    hurried: list[bool]
    membership: Membership

    def renewal(self) -> CertificateRenewal:
        """Give what renews it."""
        return CertificateRenewal(
            parts_of(
                member=SimpleNamespace(state=self.state, membership=self.membership),
                clock=self.clock,
                key=device_key(self.state),
                messaging=SimpleNamespace(try_now=lambda: self.hurried.append(True)),
            )
        )


def renewing(server: EnrolmentServer, state: Path) -> Renewing:
    clock = Clock()
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
        device.membership = msgspec.structs.replace(device.membership, not_after_s=1.0)
        renewal = device.renewal()
        for _ in range(3):
            renewal.due_s = 0.0
            renewal.run_if_due()
        assert read_membership(tmp_path) is None
        assert device.hurried == []
        assert caplog.text.count("cannot be renewed now") == 1
        assert renewal.due_s <= time.monotonic() + RETRY_S


def test_a_device_that_was_never_enrolled_renews_nothing() -> None:
    renewal = CertificateRenewal(parts_of(member=SimpleNamespace(membership=None)))
    assert renewal.due_s == float("inf")
    renewal.run_if_due()

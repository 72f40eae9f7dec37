"""Downloads through a server that truncates, stalls, resets, lies and refuses."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.download.notices import Notice, NoticeKind
from agent.errors import (
    BudgetError,
    CanceledError,
    ConfigError,
    DiskFullError,
    Distrust,
    NetworkError,
    RefusedError,
    TrustError,
)
from tests.agent_downloads import (
    PROMPT,
    Device,
    FixedClock,
    SignedFile,
    World,
    noise,
    publish,
    sha256,
    world,
)
from tests.daemons import eventually
from tests.hostile_http import (
    Fault,
    HostileServer,
    drip,
    drip_head,
    hang_up,
    hostile_server,
    ignore_range,
    replace,
    reset,
    stall,
    status,
    truncate,
    wrong_range,
)
from tests.web_certificates import Authority

pytestmark = pytest.mark.integration

DATA = noise(300_000)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def test_brings_a_file_whole_and_verified(here: World) -> None:
    file = publish(here.web, DATA)
    device = here.device()
    assert device.fetch(file) == DATA
    assert here.server.paths() == [file.path]
    assert device.progress[-1].done_bytes == device.progress[-1].received_bytes == len(DATA)
    assert device.budget.spent("artifact") == device.budget.spent_on("to-2") == len(DATA)


def test_brings_an_empty_file_without_asking_for_it(here: World) -> None:
    assert here.device().fetch(publish(here.web, b"")) == b""
    assert here.server.paths() == []


def test_brings_nothing_twice(here: World) -> None:
    file = publish(here.web, DATA)
    here.device().fetch(file)
    here.server.forget()
    assert here.device().fetch(file) == DATA
    assert here.server.paths() == []


def test_takes_a_file_from_the_runtime_if_it_has_it(here: World) -> None:
    device = here.device()
    device.store.add(DATA)
    assert device.fetch(publish(here.web, DATA)) == DATA
    assert here.server.paths() == []
    assert device.budget.spent() == 0


def test_without_a_repository_files_come_from_this_disk_only(here: World) -> None:
    file, other = publish(here.web, DATA), publish(here.web, DATA[1:])
    device = here.device()
    device.downloads._base_urls = []
    device.store.add(DATA)
    assert device.fetch(file) == DATA
    with pytest.raises(ConfigError, match=r"repository\.url"):
        device.fetch(other)


def test_downloads_a_damaged_blob_again_and_says_so(here: World) -> None:
    file = publish(here.web, DATA)
    device = here.device()
    device.fetch(file)
    path = device.downloads.blob(file.sha256)
    path.write_bytes(b"x" + DATA[1:])
    assert device.fetch(file) == DATA
    assert device.kinds() == [NoticeKind.DAMAGED_BLOB]


@pytest.mark.parametrize(
    "fault",
    [truncate(100_000), reset(100_000), truncate(0), reset(0), hang_up(), status(500), status(503)],
    ids=lambda fault: f"{fault.kind}-{fault.after_bytes or fault.code}",
)
def test_goes_on_to_the_byte_after_a_failure(here: World, fault: Fault) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", fault, times=1)
    device = here.device()
    assert device.fetch(file) == DATA
    first, second = here.server.requests
    assert "range" not in first.headers
    begin = second.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
    assert device.budget.spent("artifact") == len(DATA)
    # A reset may take away what was on its way.
    assert int(begin) <= fault.after_bytes
    if fault.kind == "truncate":
        assert int(begin) == fault.after_bytes
    assert ("if-range" in second.headers) == (int(begin) > 0)
    assert device.kinds() == [NoticeKind.RETRYING]


def test_goes_on_to_the_byte_after_silence(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", stall(100_000))
    device = here.device(read_s=0.3)
    there: list[int] = []

    def heal(_: Notice) -> None:
        there.append(device.downloads.part(file.sha256).stat().st_size)
        if there[-1]:  # or the machine itself was silent before the server
            here.server.heal()

    device.tell = heal
    assert device.fetch(file) == DATA
    asked = [seen.headers.get("range") for seen in here.server.requests]
    assert f"bytes={there[-1]}-{len(DATA) - 1}" in asked
    assert device.budget.spent("artifact") == len(DATA)


def test_goes_on_to_the_byte_after_a_restart(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", truncate(100_000), times=1)
    first = here.device()
    first.tell = lambda _: first.cancelled.set()
    with pytest.raises(CanceledError):
        first.fetch(file)
    first.close()
    here.server.forget()
    second = here.device()
    assert second.fetch(file) == DATA
    (request,) = here.server.requests
    assert request.headers["range"] == f"bytes=100000-{len(DATA) - 1}"
    assert request.headers["if-range"]
    assert here.server.sent_bytes[file.path] == len(DATA) - 100_000


def test_does_not_believe_what_it_finds_of_a_file(here: World) -> None:
    file = publish(here.web, DATA)
    device = here.device()
    device.downloads.part(file.sha256).write_bytes(noise(50_000, seed=1))
    assert device.fetch(file) == DATA
    assert device.notices == []


def test_does_not_believe_a_part_that_is_too_long(here: World) -> None:
    file = publish(here.web, DATA)
    device = here.device()
    device.downloads.part(file.sha256).write_bytes(DATA + b"more")
    assert device.fetch(file) == DATA
    assert here.server.paths() == []


def test_a_tag_that_changed_costs_a_question_and_no_byte(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", truncate(100_000), times=1)
    here.server.fault("*", replace(DATA, {"ETag": '"another"'}), times=1, skip=1)
    device = here.device()
    assert device.fetch(file) == DATA
    assert [("if-range" in seen.headers) for seen in here.server.requests] == [False, True, False]
    assert device.budget.spent("artifact") == len(DATA)


def test_a_server_without_ranges_costs_the_whole_file_and_that_is_said(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", ignore_range())
    here.server.fault("*", truncate(100_000), times=1)
    device = here.device()
    assert device.fetch(file) == DATA
    assert NoticeKind.FULL_DOWNLOAD in device.kinds()
    assert device.budget.spent("artifact") == 100_000 + len(DATA)


def test_the_whole_file_is_not_taken_when_the_budget_has_no_room_for_it(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", ignore_range())
    here.server.fault("*", truncate(100_000), times=1)
    device = here.device()
    with pytest.raises(BudgetError, match="rollout to-2"):
        device.fetch(file, rollout_bytes_max=len(DATA))
    assert device.budget.spent("artifact") == 100_000
    assert device.downloads.part(file.sha256).stat().st_size == 100_000


def test_a_wrong_range_is_not_written(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", wrong_range())
    here.server.fault("*", truncate(100_000), times=1)
    device = here.device()
    assert device.fetch(file) == DATA
    assert "range" not in here.server.requests[-1].headers


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_a_refusal_ends_it(here: World, code: int) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", status(code))
    device = here.device()
    with pytest.raises(RefusedError) as error:
        device.fetch(file)
    assert error.value.status == code
    assert len(here.server.requests) == 1
    assert device.notices == []


@pytest.mark.parametrize("code", [408, 425, 429])
def test_a_refusal_for_now_does_not_end_it(here: World, code: int) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", status(code), times=2)
    assert here.device().fetch(file) == DATA


def test_leaves_a_server_alone_for_as_long_as_it_asks(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", status(503, headers={"Retry-After": "1234"}))
    device = here.device()
    device.tell = lambda _: device.cancelled.set()
    with pytest.raises(CanceledError):
        device.fetch(file)
    assert "1234.0 s" in device.notices[0].text


def test_tries_again_for_ever(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", status(500))
    device = here.device()

    def heal(_: Notice) -> None:
        if len(device.notices) == 20:
            here.server.heal()

    device.tell = heal
    assert device.fetch(file) == DATA
    assert device.kinds() == [NoticeKind.RETRYING] * 20


def test_a_server_that_cannot_be_reached_is_tried_again(here: World) -> None:
    file = publish(here.web, DATA)
    device = here.device()
    device.downloads._base_urls = ["http://127.0.0.1:9"]

    def come_back(_: Notice) -> None:
        if len(device.notices) == 2:
            device.cancelled.set()

    device.tell = come_back
    with pytest.raises(CanceledError):
        device.fetch(file)
    assert device.kinds() == [NoticeKind.RETRYING] * 2


def _calls_off(server: HostileServer, device: Device, file: SignedFile) -> None:
    """Call a download off as soon as its server has been asked."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            device.fetch(file)
        except CanceledError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: bool(server.requests), "the first request")
    device.cancelled.set()
    thread.join(60.0)
    assert not thread.is_alive()
    assert len(errors) == 1


@pytest.mark.parametrize(
    "fault", [stall(1000), stall(), drip(1000), drip_head()], ids=["body", "head", "drip", "drops"]
)
def test_can_be_called_off_while_a_server_keeps_it_waiting(here: World, fault: Fault) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", fault)
    _calls_off(here.server, here.device(read_s=600.0), file)


def test_can_be_called_off_over_tls_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    file = publish(tmp_path / "web", DATA)
    with hostile_server(tmp_path / "web", authority.server()) as server:
        server.fault("*", stall(1000))
        device = Device(
            tmp_path / "device",
            [server.url],
            read_s=600.0,
            ca=str(authority.file),
            clock=FixedClock(time.time()),
        )
        _calls_off(server, device, file)
        server.heal()
        device.cancelled.clear()
        assert device.fetch(file) == DATA
        device.close()


def test_wrong_bytes_from_the_repository_are_not_believed(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", replace(noise(len(DATA), seed=1)))
    device = here.device()
    with pytest.raises(TrustError) as error:
        device.fetch(file)
    assert error.value.reason is Distrust.WRONG_HASH
    assert not device.downloads.blob(file.sha256).exists()
    here.server.heal()
    assert here.device().fetch(file) == DATA


@pytest.mark.parametrize("body", [DATA[:-1], DATA + b"x"], ids=["shorter", "longer"])
def test_a_file_of_another_size_is_not_believed(here: World, body: bytes) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", replace(body))
    with pytest.raises(TrustError):
        here.device().fetch(file)


def test_a_file_without_an_end_is_given_up(here: World) -> None:
    file = publish(here.web, DATA)
    here.server.fault("*", Fault("endless", 1000))
    device = here.device()
    with pytest.raises(TrustError):
        device.fetch(file)
    assert device.budget.spent("artifact") <= len(DATA) + 65_536


def test_a_month_without_room_stops_it_before_the_first_request(here: World) -> None:
    file = publish(here.web, DATA)
    device = here.device(limits={"unmetered": len(DATA)})  # artifacts may not have all of it
    with pytest.raises(BudgetError, match="this month's budget"):
        device.fetch(file)
    assert here.server.paths() == []


def test_a_rollout_without_room_stops_it_before_the_first_request(here: World) -> None:
    file = publish(here.web, DATA)
    with pytest.raises(BudgetError, match="rollout to-2"):
        here.device().fetch(file, rollout_bytes_max=len(DATA) - 1)
    assert here.server.paths() == []


def test_a_disk_without_room_stops_it_before_the_first_request(here: World) -> None:
    file = publish(here.web, DATA)
    huge = type(PROMPT)(reserve_bytes=1 << 60)
    with pytest.raises(DiskFullError, match="must stay free"):
        here.device(settings=huge).fetch(file)
    assert here.server.paths() == []


def test_a_bandwidth_limit_makes_pauses_and_loses_nothing(here: World) -> None:
    file = publish(here.web, DATA)
    slow = type(PROMPT)(bytes_per_s=200_000, reserve_bytes=1)
    device = here.device(settings=slow)
    assert device.fetch(file) == DATA
    # The last one falls with each second between the last byte and the end.
    assert 0 < max(told.bytes_per_s for told in device.progress) < 10_000_000


def test_files_come_from_a_folder_without_costing_a_byte(here: World, tmp_path: Path) -> None:
    file = publish(tmp_path / "stick", DATA)
    device = here.device()
    device.downloads._base_urls = [(tmp_path / "stick").as_uri()]
    assert device.fetch(file) == DATA
    assert device.budget.spent() == 0
    assert sha256(DATA) == file.sha256


def test_network_errors_say_how_long_to_wait() -> None:
    assert NetworkError("x").retry_after_s == 0.0

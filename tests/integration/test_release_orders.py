"""Orders that come twice, at once, or too late: none of them costs more than it says."""

import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import UnixConnection, eventually
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle, configuration
from tests.release_traffic import ask_json
from tests.signing import keyring, signed

pytestmark = pytest.mark.integration


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device on which the configuration's version 1 answers, under traffic."""
    with under_traffic(tmp_path) as running:
        yield running


@contextlib.contextmanager
def under_traffic(folder: Path) -> Iterator[Device]:
    seed = add_constant(folder / "seed.onnx", 1.0, note="seed")
    with Device(folder, seed=seed, shadow_s=30.0, canary_s=30.0, probation_s=300.0) as running:
        running.begin_traffic(ask_json)
        yield running
        assert running.traffic.faults() == []


def at_once(device: Device, *orders: str) -> list[int]:
    """Give orders from as many threads, and say how they were answered."""
    answers: list[int] = []
    start = threading.Barrier(len(orders))

    def give(order: str) -> None:
        start.wait()
        answers.append(device.order(order).status)

    threads = [threading.Thread(target=give, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def asked_while_it_stands_still(device: Device, *orders: str) -> list[int]:
    """Give orders to a daemon that does not run until it has them all; give their answers."""
    with device.daemon.paused():
        connections = []
        for order in orders:
            connection = UnixConnection(device.daemon.admin)
            connection.request("POST", f"/admin/releases/{device.model}/{order}", b"{}")
            connections.append(connection)
    answers = [each.getresponse().status for each in connections]
    for each in connections:
        each.close()
    return answers


def test_a_release_that_several_take_back_at_once_goes_back_once(
    device: Device, tmp_path: Path
) -> None:
    device.stage(bundle(tmp_path / "v2", 2))
    device.reach(2, "shadowing", "canary")
    answers = at_once(device, "abort", "rollback", "abort", "rollback")
    assert 200 in answers
    assert set(answers) <= {200, 400}
    assert device.ended(2).state == "rolled-back"
    moves = [row for row in device.history() if row.version == 2]
    assert [row.to_state for row in moves].count("rolling-back") == 1
    assert device.status_of_all().problem == ""
    device.order("clear")
    device.stage(bundle(tmp_path / "v3", 3))
    device.reach(3, "shadowing", "canary", "probation", "committed")


def test_a_promote_that_comes_twice_does_not_skip_probation(device: Device, tmp_path: Path) -> None:
    device.take_settings(shadow_s=300.0, probation_s=300.0, blocks_min=4096)
    device.stage(bundle(tmp_path / "v2", 2))
    device.reach(2, "shadowing")
    # One that comes when the first is done is another order: all must be there before.
    answers = asked_while_it_stands_still(device, "promote", "promote", "promote")
    assert sorted(answers) == [200, 409, 409]
    release = device.release(2)
    assert release is not None
    assert release.state == "probation"


def test_a_rollback_that_comes_twice_leaves_something_to_answer(
    device: Device, tmp_path: Path
) -> None:
    for version in (2, 3):
        device.stage(bundle(tmp_path / f"v{version}", version), mode="manual")
        device.reach(version, "staged")
        assert device.order("promote").status == 200
        device.reach(version, "probation")
        assert device.order("promote").status == 200
        assert device.ended(version).state == "committed"
    assert device.order("rollback").status == 200
    assert device.status().active == 2
    again = device.order("rollback")
    assert again.status == 400
    assert "rolled back already" in again.json()["error"]
    assert device.status().active == 2
    assert device.status().disabled == ""


def test_a_model_beside_somebody_else_s_signed_manifest_is_not_signed(tmp_path: Path) -> None:
    first = tmp_path / "keyring.json"
    first.write_bytes(keyring(["ann"]).write())
    made = bundle(tmp_path / "repository" / MODEL / "1", 1)
    (made / "manifest.sig").write_bytes(signed((made / "manifest.json").read_bytes(), "ann"))
    sneaked = shutil.copytree(made, tmp_path / "beside") / "sneaked.onnx"
    add_constant(sneaked, 7.0)
    more = f'[models.other]\npath = "{sneaked}"\n'
    with Device(tmp_path, managed=True, keyring=str(first), more=more) as on:
        assert on.ask().is_right, "the signed one answers"
        assert on.daemon.request("GET", "/v2/models/other/ready").status != 200


def test_signatures_are_asked_for_as_soon_as_the_configuration_says_so(tmp_path: Path) -> None:
    first = tmp_path / "keyring.json"
    first.write_bytes(keyring(["ann"]).write())
    seed = add_constant(tmp_path / "seed.onnx", 1.0)
    with Device(tmp_path, seed=seed) as on:
        configuration(on.config, managed=True, keyring=str(first))
        on.daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: on.status_of_all().trust.managed, "the configuration is read again")
        add_constant(seed, 2.0)
        answer = on.post(f"/v2/repository/models/{MODEL}/load")
        assert answer.status == 403, answer.body


def test_a_first_release_that_is_aborted_before_it_answers_leaves_the_model_as_it_was(
    tmp_path: Path,
) -> None:
    other = add_constant(tmp_path / "other.onnx", 1.0)
    more = f'[models.other]\npath = "{other}"\n[models.m.release]\nagreement_floor = 0.5'
    with Device(tmp_path, more=more) as on:
        on.stage(bundle(tmp_path / "v1", 1), mode="manual")
        on.reach(1, "staged")
        assert on.order("abort").status == 200
        assert on.ended(1).state == "rolled-back"
        assert on.status().disabled == ""
        on.stage(bundle(tmp_path / "v2", 2))
        assert on.ended(2).state == "committed"


def test_an_order_to_go_back_leaves_a_standing_split_as_it_is(
    device: Device, tmp_path: Path
) -> None:
    device.stage(bundle(tmp_path / "v2", 2), mode="manual")
    for state in ("staged", "probation"):
        device.reach(2, state)
        assert device.order("promote").status == 200
    assert device.ended(2).state == "committed"
    split = {"weights": {"1": 50, "2": 50}}
    assert device.post(f"/admin/models/{MODEL}/traffic", split).status == 200
    device.restart(failpoints="release.roll_back=hang")
    device.stage(bundle(tmp_path / "v3", 3))
    device.reach(3, "staged")

    def give_up() -> None:
        with contextlib.suppress(OSError):  # it is never answered: the disk hangs
            device.order("abort")

    abort = threading.Thread(target=give_up)
    abort.start()
    device.reach(3, "rolling-back")  # and there it stays
    assert {device.ask(count).version for count in range(60)} == {"1", "2"}
    device.restart()
    abort.join()
    assert device.ended(3).state == "rolled-back"
    assert device.status().traffic == {"1": 50, "2": 50}

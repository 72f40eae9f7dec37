"""Bundles by descriptor, against the real daemon."""

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.errors import RuntimeRefusedError
from agent.runtime_client.handover import Handover
from edge_runtime.failpoints import VARIABLE
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
)
from tests.daemons import daemon, eventually
from tests.handover_packets import ask, connected, count_of, memory, refused, send
from tests.mixed_bundles import brought, file_of, mixed
from tests.models import add_constant, identity
from tests.release_device import Device, bundle, seeded_device
from tests.signing import keyring, signed

pytestmark = pytest.mark.integration


device = pytest.fixture(seeded_device)


def handover(device: Device) -> Handover:
    return Handover(device.daemon.folder / "handover.sock", timeout_s=20.0, stage_s=40.0)


def test_only_what_the_device_needs_and_lacks_has_to_come(device: Device, tmp_path: Path) -> None:
    client = handover(device)
    whole = mixed(tmp_path / "whole")
    needs = client.needs((whole / MANIFEST_FILE).read_bytes())
    assert needs.variants == ("model.onnx",)
    assert {each.file for each in needs.files} == {"model.onnx", "golden.npz"}
    assert needs.files[0].size == (whole / needs.files[0].file).stat().st_size
    assert needs.present == frozenset()
    sent = brought(whole, tmp_path / "sent", *(each.file for each in needs.files))
    told = client.stage(sent, rollout="r-1")
    assert (told["version"], told["source"]) == (2, f"fleet r-1 uid={os.getuid()}")
    shutil.rmtree(sent)  # all of it was copied
    assert device.ended(2).state == "committed"
    assert device.release(2).digest == device.status().running_digest  # type: ignore[union-attr]
    # The next version has the same files, but for its goldens.
    last = mixed(tmp_path / "last", 3)
    shutil.copy(whole / "model.onnx", last / "model.onnx")
    manifest = (whole / MANIFEST_FILE).read_bytes().replace(b'"version": 2', b'"version": 3')
    golden = (last / "golden.npz").read_bytes() + b"\0" * 4
    (last / "golden.npz").write_bytes(golden)
    size, sha256 = len(golden), hashlib.sha256(golden).hexdigest()
    old = file_of(whole / "golden.npz")
    manifest = manifest.replace(old.sha256.encode(), sha256.encode())
    manifest = manifest.replace(f": {old.size_bytes}".encode(), f": {size}".encode())
    (last / MANIFEST_FILE).write_bytes(manifest)
    needs = client.needs(manifest)
    assert [each.file for each in needs.files] == ["golden.npz"]
    assert needs.present == {file_of(whole / "model.onnx").sha256}
    client.stage(brought(last, tmp_path / "less", "golden.npz"), rollout="r-2")
    # And a restart finds both of them whole.
    device.ended(3)
    device.restart(signal.SIGKILL)
    assert device.status().installed == [2, 3]
    assert device.status().disabled == ""


def test_what_is_needed_and_missing_is_named(device: Device, tmp_path: Path) -> None:
    whole = mixed(tmp_path / "whole")
    with pytest.raises(RuntimeRefusedError, match=r"golden\.npz is missing") as caught:
        handover(device).stage(brought(whole, tmp_path / "sent", "model.onnx"), rollout="r")
    assert caught.value.status == 400
    assert device.daemon.request("GET", "/admin/releases/m", admin=True).status == 404


def test_a_content_of_the_store_can_be_read_and_not_be_written(
    device: Device, tmp_path: Path
) -> None:
    client = handover(device)
    assert client.open("0" * 64) is None
    whole = bundle(tmp_path / "whole", 2)
    client.stage(whole, rollout="r")
    found = client.open(file_of(whole / "model.onnx").sha256)
    assert found is not None
    assert os.pread(found, 10**6, 0) == (whole / "model.onnx").read_bytes()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(found, b"x")
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(found, 0)
    os.close(found)
    device.ended(2)


def test_a_tar_is_taken_as_well(device: Device, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "b"), "tar", bundle(tmp_path / "whole", 2))
    handover(device).stage(tmp_path / "b.tar", rollout="r", mode="manual")
    assert device.reach(2, "staged").mode == "manual"


def test_a_managed_device_tells_nothing_about_unsigned_bundles(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(keyring(["ann"]).write())
    whole = mixed(tmp_path / "whole", 1)
    manifest = (whole / MANIFEST_FILE).read_bytes()
    signature = signed(manifest, "ann")
    with Device(tmp_path, managed=True, keyring=str(tmp_path / "keys.json")) as device:
        client = handover(device)
        for unsigned in (None, "", signed(manifest, "bob").decode(), signed(b"x", "ann").decode()):
            with pytest.raises(RuntimeRefusedError) as caught:
                client.needs(manifest, unsigned)
            assert caught.value.status == 403
        needs = client.needs(manifest, signature.decode())
        (whole / SIGNATURE_FILE).write_bytes(signature)
        names = [SIGNATURE_FILE, *(each.file for each in needs.files)]
        client.stage(brought(whole, tmp_path / "sent", *names), rollout="r")
        assert device.ended(1).state == "committed"


def test_orders_of_people_stand_against_what_is_handed_over(device: Device, tmp_path: Path) -> None:
    whole = bundle(tmp_path / "whole", 2)
    assert device.order("hold", reason="a demonstration").status == 200
    with pytest.raises(RuntimeRefusedError, match="a demonstration") as caught:
        handover(device).stage(whole, rollout="r")
    assert caught.value.status == 403
    assert device.order("clear").status == 200
    handover(device).stage(whole, rollout="r")
    device.ended(2)


def test_clients_that_leave_half_way_leave_nothing_behind(device: Device, tmp_path: Path) -> None:
    path = device.daemon.folder / "handover.sock"
    whole = bundle(tmp_path / "whole", 2)
    manifest = (whole / MANIFEST_FILE).read_bytes()
    assert device.order("hold").status == 200  # what the first order makes stays open
    assert device.order("clear").status == 200
    handover(device).needs(manifest)
    pid = device.daemon.process.pid
    device.traffic.end()

    seen: list[int] = []

    def rests() -> bool:
        seen.append(count_of(pid))
        return seen[-4:].count(seen[-1]) > 3

    eventually(rests, "rest")
    before = seen[-1]
    folder = os.open(whole, os.O_RDONLY)
    for _ in range(20):
        with memory(manifest) as descriptor, connected(path) as sock:
            send(sock, {"op": "needs"}, descriptor)
            send(sock, {"op": "needs"}, descriptor)
        with connected(path) as sock:
            send(sock, {"op": "stage", "rollout": "r", "again": "x"}, folder, folder)
        with connected(path) as sock:
            send(sock, b"x" * 100_000, folder)
    eventually(lambda: count_of(pid) <= before, "the closing of all that came", 20.0)
    with connected(path) as sock:  # an order is an order
        send(sock, {"op": "stage", "rollout": "r", "mode": "manual"}, folder)
    os.close(folder)
    device.reach(2, "staged")
    eventually(lambda: count_of(pid) <= before + 1, "the closing of the folder", 20.0)


def test_a_daemon_that_dies_while_it_copies_takes_the_same_again(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    whole = mixed(tmp_path / "whole")
    sent = brought(whole, tmp_path / "sent", "model.onnx", "golden.npz")
    # Nobody asks anything, so that steps last as long as they may.
    steps: dict[str, Any] = {"shadow_s": 0.0, "canary_s": 0.5}
    with Device(tmp_path, seed=seed, failpoints="store.renamed=kill", **steps) as device:
        request = {"op": "stage", "rollout": "r"}
        folder = os.open(sent, os.O_RDONLY)
        assert ask(device.daemon.folder / "handover.sock", request, folder) == {}
        os.close(folder)
        device.died()
        device.restart()
        handover(device).stage(sent, rollout="r")
        assert device.ended(2).state == "committed"


def test_the_socket_is_for_owner_and_group_and_goes_with_the_daemon(tmp_path: Path) -> None:
    with daemon(f"m={identity(tmp_path / 'm.onnx')}") as running:
        path = running.folder / "handover.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with connected(path) as sock:
            send(sock, {"op": "open", "sha256": "0" * 64})
        running.restart(signal.SIGKILL)  # the path of one that died is in nobody's way
        assert ask(path, {"op": "open", "sha256": "0" * 64}) == {"ok": None}
        with connected(path):  # one that says nothing holds nothing up
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(60.0) == 0
        assert not path.exists()


def test_questions_make_nothing_on_a_device_without_releases(tmp_path: Path) -> None:
    whole = mixed(tmp_path / "whole")
    with daemon(f"m={identity(tmp_path / 'm.onnx')}") as running:
        client = Handover(running.folder / "handover.sock")
        assert client.open("0" * 64) is None
        needs = client.needs((whole / MANIFEST_FILE).read_bytes())
        assert {each.file for each in needs.files} == {"model.onnx", "golden.npz"}
        with pytest.raises(RuntimeRefusedError, match=r"manifest\.json") as caught:
            client.needs(b"{}")
        assert caught.value.status == 400
        found = {path.name for path in running.state.iterdir()} if running.state.exists() else set()
        assert not found & {"store", "runtime.db", "keyring.json"}


def test_only_who_may_change_things_may_hand_over(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[release]\nadmins = ["uid:{os.getuid() + 1}"]\n')
    with daemon("--config", str(config), f"m={identity(tmp_path / 'm.onnx')}") as running:
        answer = ask(running.folder / "handover.sock", {"op": "open", "sha256": "0" * 64})
        refused(answer, 403, "release.admins")


def test_a_daemon_that_hangs_on_a_disk_answers_others(tmp_path: Path) -> None:
    environment = {VARIABLE: "store.received=hang"}
    whole = bundle(tmp_path / "whole", 2)
    model = identity(tmp_path / "m.onnx")
    with daemon(f"m={model}", environment=environment) as running:
        path = running.folder / "handover.sock"
        folder = os.open(whole, os.O_RDONLY)
        with connected(path) as sock:
            send(sock, {"op": "stage", "rollout": "r"}, folder)
            os.close(folder)
            eventually(lambda: "store.received: hang" in running.log(), "the hanging")
            assert running.request("GET", "/v2/models/m/ready").status == 200
            with memory((whole / MANIFEST_FILE).read_bytes()) as manifest:
                answer = ask(path, {"op": "needs"}, manifest)
            assert len(answer["ok"]["files"]) == 2, json.dumps(answer)
            sock.shutdown(socket.SHUT_RDWR)

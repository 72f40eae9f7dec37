"""A managed device takes what its keyring's keys signed, and nothing else, whoever asks it to."""

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.bundle_commands import WAIT_S
from tests.daemons import COMMAND, UnixConnection
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle, signed_bundle
from tests.signing import keyring

pytestmark = pytest.mark.integration

NOBODY = 65_534
QUICKLY: Mapping[str, Any] = {"shadow_s": 0.0, "weights": [50], "canary_s": 0.3}
"""No more steps than there must be."""


def refused(on: Device, path: Path) -> str:
    """Stage a bundle that the device must not take, and give the reason."""
    answer = on.post("/admin/releases", {"path": str(path)})
    assert answer.status == 403, answer.body
    error: str = answer.json()["error"]
    return error


def run(on: Device, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [COMMAND, *arguments, "--socket", str(on.daemon.admin)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_a_managed_device_from_the_first_signed_release_to_the_next_keyring(
    tmp_path: Path,
) -> None:
    first = tmp_path / "keyring.json"
    first.write_bytes(keyring(["ann", "bob"], version=1, threshold=2).write())
    with Device(tmp_path, managed=True, keyring=str(first), **QUICKLY) as on:
        trust = on.status_of_all().trust
        assert (trust.managed, trust.keyring_version, trust.keys) == (True, 1, ["ann", "bob"])
        assert "only bundles signed" in run(on, "release", "status").stdout
        unsigned = bundle(tmp_path / "unsigned", 1)
        done = run(on, "release", "stage", str(unsigned), "--wait")
        assert done.returncode == 1, done.stderr
        assert "it has no manifest.sig" in done.stderr
        assert "sign" in refused(on, signed_bundle(tmp_path / "wrong", 1, "eve"))
        tampered = signed_bundle(tmp_path / "tampered", 1, "ann")
        manifest = json.loads((tampered / "manifest.json").read_bytes())
        manifest["version"] = 9
        (tampered / "manifest.json").write_text(json.dumps(manifest))
        assert "sign" in refused(on, tampered)
        assert on.status_of_all().models == [], "nothing came in"
        assert not any((on.daemon.state / "store").rglob("*.onnx"))
        done = run(on, "release", "stage", str(signed_bundle(tmp_path / "v1", 1, "ann")), "--wait")
        assert done.returncode == 0, done.stderr
        assert on.ask().version == "1"
        # A bundle of the agent's in a folder that the daemon serves is no way around it.
        bundle(tmp_path / "repository" / "sneaked" / "1", 1, name="sneaked")
        answer = on.post("/v2/repository/models/sneaked/load")
        assert answer.status == 403, answer.body
        assert "sign" in answer.json()["error"]
        assert on.daemon.request("GET", "/v2/models/sneaked/ready").status != 200
        add_constant(tmp_path / "repository" / "bare" / "1" / "model.onnx", 1.0)
        answer = on.post("/v2/repository/models/bare/load")
        assert "signed models only" in answer.json()["error"]
        keyrings_follow(on, tmp_path)
        on.restart()
        assert on.status_of_all().trust.keyring_version == 2, "it is kept"
        assert on.ask().version == "1", "signed by a key that is still there"
        assert "sign" in refused(on, signed_bundle(tmp_path / "v3", 3, "bob")), "bob is gone"
        on.stage(signed_bundle(tmp_path / "v4", 4, "cyd"))
        assert on.ended(4).state == "committed"
        assert on.ask().version == "4"


def keyrings_follow(on: Device, folder: Path) -> None:
    """Try keyrings that may not follow the first one, then one that may."""
    path = folder / "next.json"
    for made in (
        keyring(["ann", "cyd"], version=2, signed_by=["ann"]),  # one of two signed it
        keyring(["eve"], version=2, signed_by=["eve", "cyd"]),  # two strangers did
    ):
        answer = on.daemon.request("POST", "/admin/keyring", made.write(), admin=True)
        assert answer.status == 403, answer.body
        assert on.status_of_all().trust.keyring_version == 1
    path.write_bytes(keyring(["ann", "cyd"], version=2, signed_by=["ann", "bob"]).write())
    assert run(on, "keyring", "install", str(path)).returncode == 0
    trust = on.status_of_all().trust
    assert (trust.keyring_version, trust.keys) == (2, ["ann", "cyd"])
    done = run(on, "keyring", "install", str(folder / "keyring.json"))
    assert done.returncode == 1
    assert "older" in done.stderr, done.stderr
    assert on.status_of_all().trust.keyring_version == 2


def test_a_managed_device_does_not_load_an_unsigned_model_at_its_start(tmp_path: Path) -> None:
    first = tmp_path / "keyring.json"
    first.write_bytes(keyring(["ann"]).write())
    signed_bundle(tmp_path / "repository" / MODEL / "1", 1, "ann")
    bundle(tmp_path / "repository" / "sneaked" / "1", 1, name="sneaked")
    with Device(tmp_path, managed=True, keyring=str(first)) as on:
        assert on.ask().is_right, "the signed one answers"
        assert on.daemon.request("GET", "/v2/models/sneaked/ready").status != 200
        index = on.daemon.request("POST", "/v2/repository/index", admin=True).json()
        (reason,) = [each["reason"] for each in index if each["name"] == "sneaked"]
        assert "sign" in reason


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_may_look_and_change_nothing_unless_the_list_names_it(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    for admins, status in ((["uid:0"], 403), ([f"uid:{NOBODY}"], 200)):
        folder = tmp_path / str(status)
        folder.mkdir()
        with Device(folder, seed=seed, admins=admins) as on:
            # Who may open the socket at all is the business of its folder.
            on.daemon.folder.chmod(0o755)
            on.daemon.admin.chmod(0o666)
            path = bundle(folder / "v2")
            assert not on.status_of_all().trust.managed, "whoever may ask is believed"
            assert as_nobody(on.daemon.admin, "GET", "/admin/releases", b"") == 200
            body = json.dumps({"path": str(path), "mode": "manual"}).encode()
            assert as_nobody(on.daemon.admin, "POST", "/admin/releases", body) == status
            mine = on.post("/admin/releases", {"path": str(path), "mode": "manual"}).status
            assert mine == (200 if status == 403 else 403)


def as_nobody(admin: Path, method: str, target: str, body: bytes) -> int:
    """Ask in a child process that is another user, and give the answer's status."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        status = 0
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            connection = UnixConnection(admin)
            connection.request(method, target, body)
            status = connection.getresponse().status
        finally:
            theirs.sendall(status.to_bytes(2, "big"))
            os._exit(0)
    with ours, theirs:
        ours.settimeout(WAIT_S)
        status = int.from_bytes(ours.recv(2), "big")
    os.waitpid(child, 0)
    return status

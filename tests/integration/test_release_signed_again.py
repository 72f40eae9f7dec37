"""A newer signature reaches the version that answers; what cannot be a bundle does not hang."""

import os
from pathlib import Path

import pytest

from tests.integration.test_release_trust import QUICKLY, refused, run
from tests.release_device import MODEL, Device, bundle, signed_bundle
from tests.signing import keyring

pytestmark = pytest.mark.integration


def test_the_version_that_answers_takes_a_new_signature_after_its_key_left(tmp_path: Path) -> None:
    first = tmp_path / "keyring.json"
    first.write_bytes(keyring(["ann", "bob"], version=1).write())
    with Device(tmp_path, managed=True, keyring=str(first), **QUICKLY) as on:
        path = signed_bundle(tmp_path / "v1", 1, "ann")
        on.stage(path)
        committed = on.ended(1)
        assert committed.state == "committed"
        same = on.post("/admin/releases", {"path": str(path)})
        assert same.status == 400, same.body
        assert "answers already" in same.json()["error"]
        newer = keyring(["bob"], version=2, signed_by=["ann"])
        answer = on.daemon.request("POST", "/admin/keyring", newer.write(), admin=True)
        assert answer.status == 409, "it would orphan version 1"
        target = "/admin/keyring?force=true"
        answer = on.daemon.request("POST", target, newer.write(), admin=True)
        assert answer.status == 200, answer.body
        on.restart(serves=False)
        assert on.ask().status != 200, "ann's signature is worth nothing any more"
        assert "sign" in refused(on, path)
        path = signed_bundle(tmp_path / "again", 1, "bob")
        done = run(on, "release", "stage", str(path), "--wait")
        assert done.returncode == 0, done.stderr
        assert "its signature is renewed, and no release began" in done.stderr
        status = on.status()
        assert [each.id for each in status.releases] == [committed.id]
        assert on.history()[-1].event == "signature-renewed"
        assert on.post(f"/v2/repository/models/{MODEL}/load").status == 200
        assert on.ask().version == "1"
        on.restart()
        assert on.ask().version == "1"


def test_a_path_that_leads_to_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    keeps_open = os.open(pipe, os.O_RDWR)
    try:
        with Device(tmp_path) as on:
            answer = on.post("/admin/releases", {"path": str(pipe)})
            assert answer.status == 400, answer.body
            assert "neither a folder nor a tar file" in answer.json()["error"]
            on.stage(bundle(tmp_path / "v1", 1), mode="manual")
    finally:
        os.close(keeps_open)

"""A newer keyring takes no version away unasked, and what cannot be loaded says why."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from edge_runtime import cli
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle, signed_bundle
from tests.signing import keyring

pytestmark = pytest.mark.integration


class Said(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Commands:
    """Gives a device's commands in this process."""

    def __init__(self, on: Device, capsys: pytest.CaptureFixture[str]) -> None:
        self._on = on
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        """Give one."""
        self._capsys.readouterr()
        code = cli.main([*arguments, "--socket", str(self._on.daemon.admin)])
        return Said(code, *self._capsys.readouterr())

    def assert_told(self, problem: str) -> None:
        """Status and explanation say what is wrong with the active version."""
        for question in (("status", MODEL), ("explain", MODEL)):
            assert problem.rstrip(".") in self("release", *question).out
        assert problem[:30] in self("release", "status").out, "cut in a table"
        status = json.loads(self("release", "status", MODEL, "--json").out)
        assert problem in status["active_problem"]


def test_a_keyring_that_would_orphan_the_active_version_is_refused_and_a_packaged_one_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged, newer = tmp_path / "keyring.json", tmp_path / "keyring-2.json"
    packaged.write_bytes(keyring(["ann"]).write())
    newer.write_bytes(keyring(["eve"], version=2, signed_by=["ann", "eve"]).write())
    with Device(tmp_path, managed=True, keyring=str(packaged), shadow_s=0.0) as on:
        run = Commands(on, capsys)
        on.stage(signed_bundle(tmp_path / "v1", 1, "ann"))
        assert on.ended(1).state == "committed"

        refused = run("keyring", "install", str(newer))
        assert refused.code == 1
        assert f"keyring version 2 signed {MODEL} version 1 (active)" in refused.err
        assert "First release versions that its keys signed" in refused.err
        assert on.status_of_all().trust.keyring_version == 1, "nothing changed"

        state = ("--after", str(packaged), "--state-dir", str(on.daemon.state))
        checked = cli.main(["keyring", "check", str(newer), *state])
        assert checked == 1
        assert f"{MODEL} version 1 (active)" in capsys.readouterr().err

        forced = run("keyring", "install", str(newer), "--force", "--json")
        assert forced.code == 0, forced.err
        assert json.loads(forced.out)["orphaned"] == [f"{MODEL} version 1 (active)"]
        assert "warning: too few of its keys signed" in forced.err
        assert on.ask().version == "1", "it answers on from memory"

        packaged.write_bytes(keyring(["eve"], version=3, signed_by=["eve"]).write())
        on.restart(serves=False)
        told = f"too few keys of keyring version 3 signed {MODEL} version 1 (active)"
        assert on.daemon.log().count(told) == 1
        run.assert_told("the manifest is signed by 0 keys of the keyring")


def test_a_damaged_active_version_keeps_no_other_model_out_and_is_told_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = '[models.other]\npath = "' + str(add_constant(tmp_path / "m.onnx", 1.0)) + '"\n'
    with Device(tmp_path, shadow_s=0.0, more=more) as on:
        on.stage(bundle(tmp_path / "v1", 1))
        assert on.ended(1).state == "committed"
        assert on.status().active_problem == ""
        (model,) = (on.daemon.state / "store" / "models").rglob("model.onnx")
        model.chmod(0o600)
        model.write_bytes(b"cut off")  # the size differs: it is seen before anything is loaded
        on.restart(serves=False)
        assert on.daemon.request("GET", "/v2/models/other/ready").status == 200
        assert on.ask().status == 503
        Commands(on, capsys).assert_told("model.onnx has 7 bytes")
        assert on.ask().version == "", "nothing of it answers"
        on.stage(bundle(tmp_path / "v2", 2))
        assert on.ended(2).state == "committed"
        assert on.status().active_problem == ""

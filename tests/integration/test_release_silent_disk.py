"""A disk that does not answer, and a version on it that is damaged: what answers, and what is said.

The fault table (``tests/soak/test_release_faults.py``) has the rows; here is what a person does
meanwhile.
"""

import http.client
import time
from pathlib import Path

import pytest

from tests.daemons import eventually
from tests.release_device import Device, bundle, device

pytestmark = pytest.mark.integration

LONG = {"blocks_min": 4096, "shadow_s": 0.0, "canary_s": 600.0, "probation_s": 600.0}
SILENT = "the disk has not answered"
ENOUGH = 25


def _answered(running: Device, since_s: float) -> dict[str, int]:
    """Wait for enough right answers to requests that began later, and count them by version."""
    traffic = running.traffic
    eventually(lambda: sum(traffic.by_version(since_s).values()) >= ENOUGH, "answers")
    return traffic.by_version(since_s)


def test_a_rollback_takes_effect_at_once_though_the_disk_does_not_take_it(tmp_path: Path) -> None:
    # 7: the canary begins; 8: the next change of anything, which is the rollback.
    with device(tmp_path, "journal.commit=hang@8", **LONG) as running:
        running.stage(bundle(tmp_path / "bundle-2"))
        running.reach(2, "canary")
        eventually(lambda: "2" in running.traffic.by_version(), "an answer of the candidate")
        answer = running.order("rollback", reason="it looks wrong")
        now_s = time.monotonic()
        assert answer.status == http.client.INSUFFICIENT_STORAGE, answer.body
        assert "answers from now on" in str(answer.json()), answer.body
        assert _answered(running, now_s).keys() == {"1"}
        # Orders and questions are answered, with the reason.
        status = running.status_of_all()
        (release,) = status.models[0].releases
        assert SILENT in f"{release.waits_for} {status.problem}", status
        refused = running.post("/admin/releases", {"path": str(bundle(tmp_path / "bundle-3", 3))})
        assert refused.status >= http.client.BAD_REQUEST
        assert SILENT in str(refused.json())
        assert SILENT in str(running.get("/admin/history").json())
        assert running.traffic.faults() == []


def test_a_way_back_that_is_damaged_ends_disabled_and_says_so(tmp_path: Path) -> None:
    with device(tmp_path) as running:
        for version in (2, 3):
            running.stage(bundle(tmp_path / f"bundle-{version}", version), mode="manual")
            running.reach(version, "staged")
            assert running.order("promote").status == http.client.OK
            running.reach(version, "committed")
        eventually(lambda: not _is_loaded(running, "2"), "version 2's leaving memory")
        running.traffic.end()  # from here on nothing may answer
        before = running.daemon.state / "store" / "models" / running.model / "2" / "model.onnx"
        before.chmod(0o644)
        before.write_bytes(b"rotten")
        running.order("rollback", reason="it looks wrong")
        ended = running.reach(3, "failed")
        assert "the way back failed" in ended.reason
        status = running.status()
        assert "the way back failed" in status.disabled
        assert (status.active, status.running_digest) == (None, "")
        answer = running.ask()
        assert answer.status == http.client.SERVICE_UNAVAILABLE
        assert "the way back failed" in answer.shown
        assert running.history()[-1].digest == ""
        assert running.traffic.faults() == []
        running.stage(bundle(tmp_path / "bundle-4", 4), again=True)
        running.reach(4, "committed")
        assert running.ask().version == "4"


def _is_loaded(running: Device, version: str) -> bool:
    path = f"/v2/models/{running.model}/versions/{version}/ready"
    return running.daemon.request("GET", path).status == http.client.OK

"""Releases that take their time: models that hang, and dozens of releases on one device.

Only ``make soak`` runs these.
"""

from pathlib import Path

import pytest

from edge_runtime.manifest import Comparison
from tests import bad_models
from tests.release_device import bundle, device

pytestmark = [pytest.mark.integration, pytest.mark.soak]

RELEASES = 24
GROWTH_MAX_BYTES = 24 * 2**20
MUCH = {"comparison": Comparison(agreement_floor=0.9, latency_ratio_max=1000.0)}


@pytest.fixture(autouse=True)
def _only_in_the_soak(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("markexpr", "") != "soak":
        pytest.skip("takes minutes: make soak")


def test_a_model_that_runs_for_ever_fails_the_self_test(tmp_path: Path) -> None:
    with device(tmp_path, self_test_s=60.0, self_test_cpu_s=8.0) as on:
        on.stage(bundle(tmp_path / "v2", 2, bad_models.hangs))
        release = on.ended(2, within_s=120.0)
        assert (release.state, release.cause) == ("failed", "self-test")
        assert "used more CPU time than it may" in release.reason
        assert on.traffic.faults() == []


def test_a_model_that_hangs_on_real_inputs_only_is_stopped_in_the_shadow(tmp_path: Path) -> None:
    # Without batching nobody tries strange inputs out before the real ones come.
    with device(tmp_path, more="[batching]\nenabled = false", shadow_s=300.0) as on:
        path = bundle(tmp_path / "v2", 2, bad_models.hangs_on_some, acceptance=MUCH)
        on.stage(path)
        release = on.ended(2, within_s=300.0)
        assert (release.state, release.cause) == ("rolled-back", "errors"), release.reason
        assert "on a real request's inputs" in release.reason
        assert on.ask().version == "1"
        assert on.traffic.faults() == []


def test_dozens_of_releases_leave_nothing_behind_and_fail_no_request(tmp_path: Path) -> None:
    makes = (bad_models.good, bad_models.not_a_number, bad_models.wrong_output_name)
    with device(tmp_path, keep_versions=1) as on:
        held: list[int] = []
        for version in range(2, 2 + RELEASES):
            make = makes[version % len(makes)]
            on.stage(bundle(tmp_path / f"v{version}", version, make, acceptance=MUCH))
            release = on.ended(version, within_s=120.0)
            wanted = {"committed"} if make is bad_models.good else {"rolled-back", "failed"}
            assert release.state in wanted, release.reason
            held.append(_resident_bytes(on.daemon.process.pid))
        assert on.traffic.faults() == []
        assert len(on.status().installed) <= 4, "active, previous, one more, and a late one"
        assert held[-1] - held[len(held) // 2] < GROWTH_MAX_BYTES, held
        assert "nobody foresaw" not in on.daemon.log()
        assert "Traceback" not in on.daemon.log()
        on.restart()
        assert on.ask().is_right


def _resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    (line,) = [each for each in lines if each.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024

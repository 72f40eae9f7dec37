"""A commit says what it rests on, and a first version is judged by its own failures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.manifest import Comparison
from edge_runtime.protocol.release_schemas import Release
from tests import bad_models
from tests.models import add_constant
from tests.release_device import Device, bundle
from tests.release_traffic import Asked, judged

pytestmark = pytest.mark.integration

PROVABLE = {"comparison": Comparison(agreement_floor=0.5, latency_ratio_max=1000.0)}
BRIEF: dict[str, Any] = {
    "shadow_s": 0.3,
    "canary_s": 0.3,
    "probation_s": 0.3,
    "weights": [50],
    "blocks_min": 16,
}
"""Too little time for a proof."""


def asking(number: Callable[[int], float]) -> Callable[[Device, int], Asked]:
    """Make a client that sends rows with these numbers."""

    def ask(on: Device, count: int) -> Asked:
        row = [number(count), 1.0]
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": row}
        return judged(0.0, on.daemon.infer(on.model, [tensor]), row)

    return ask


def commit_of(on: Device, release: Release) -> dict[str, Any]:
    """Give the numbers of the commit's row."""
    (row,) = [
        row for row in on.history() if row.release_id == release.id and row.to_state == "committed"
    ]
    assert row.reason == release.reason
    return row.numbers


def explained(on: Device) -> str:
    return " ".join(on.get(f"/admin/releases/{on.model}/explain").json()["sentences"])


def test_what_passes_for_want_of_traffic_is_committed_without_proof_and_says_so(
    tmp_path: Path,
) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed, **BRIEF) as on:
        on.stage(bundle(tmp_path / "v2", 2))
        release = on.ended(2)
        assert release.state == "committed"
        assert release.proof == "unproven"
        assert release.reason.startswith("committed without proof: canary: 0 blocks, at least 16 ")
        assert commit_of(on, release)["proof"] == "unproven"
        assert "It was committed without proof: canary: 0 blocks" in explained(on)
        on.restart()
        assert on.status().releases[0].proof == "unproven", "it is stored"


def test_what_agreed_and_did_well_is_committed_on_evidence(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    # A step that is over by the clock must have had its blocks by then.
    with Device(tmp_path, seed=seed, canary_s=60.0, probation_s=6.0) as on:
        on.begin_traffic(asking(lambda count: count * 0.001), asking(lambda count: -count * 0.001))
        on.stage(bundle(tmp_path / "v2", 2, acceptance=PROVABLE))
        release = on.ended(2)
        assert (release.state, release.proof) == ("committed", "proven"), release.reason
        assert commit_of(on, release)["proof"] == "proven"
        assert "was committed on evidence" in explained(on)


def test_what_a_person_promotes_is_committed_without_proof(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed, probation_s=300.0) as on:
        on.stage(bundle(tmp_path / "v2", 2), mode="manual")
        on.reach(2, "staged")
        assert on.order("promote").status == 200
        on.reach(2, "probation")
        assert on.order("promote", reason="it is urgent").status == 200
        release = on.ended(2)
        assert release.proof == "unproven"
        assert "it was never compared with the active version" in release.reason
        assert "probation: it is urgent" in release.reason


def test_a_first_version_that_fails_half_of_its_requests_is_rolled_back(tmp_path: Path) -> None:
    with Device(tmp_path, probation_s=300.0) as on:
        on.stage(bundle(tmp_path / "v1", 1, bad_models.breaks_on_some))
        on.reach(1, "probation")
        on.begin_traffic(asking(lambda count: 9.0 if count % 2 else 1.0))
        on.is_up.set()
        release = on.ended(1)
        assert (release.state, release.cause) == ("rolled-back", "verdict"), release.reason
        assert "of the requests of a block; allowed are 0.1" in release.reason
        assert "version 1 was rolled back (errors: " in on.status().disabled
        assert on.ask().status == 503


def test_a_first_version_that_fails_less_than_its_owner_allows_is_committed(tmp_path: Path) -> None:
    other = add_constant(tmp_path / "other.onnx", 1.0)
    more = f'[models.other]\npath = "{other}"\n[models.m.release]\nerror_rate_max = 0.9'
    with Device(tmp_path, more=more, probation_s=6.0) as on:
        on.begin_traffic(asking(lambda count: 9.0 if count % 3 == 0 else 1.0))
        on.is_up.set()
        on.stage(bundle(tmp_path / "v1", 1, bad_models.breaks_on_some))
        release = on.ended(1)
        assert (release.state, release.proof) == ("committed", "unproven"), release.reason
        assert "there was nothing to compare it with" in release.reason
        assert 0.1 < commit_of(on, release)["error_rate"] < 0.9, "only its owner allows that"

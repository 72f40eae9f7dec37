"""A device remembers what was bad on it: by the files that ran, not by the number they had."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_runtime.digest import file_sha256
from edge_runtime.manifest import MANIFEST_FILE, Comparison, Variant, read, write
from tests.bad_models import other_answer, slow
from tests.release_device import Device, bundle, device

pytestmark = pytest.mark.integration

MUCH = {"comparison": Comparison(agreement_floor=0.9, latency_ratio_max=1000.0)}


@pytest.fixture
def burnt(tmp_path: Path) -> Iterator[Device]:
    """A device on which version 2 was rolled back for its answers."""
    with device(tmp_path) as running:
        running.stage(bundle(tmp_path / "v2", 2, other_answer, acceptance=MUCH))
        release = running.ended(2)
        assert (release.state, release.cause) == ("rolled-back", "verdict")
        yield running
        assert running.traffic.faults() == []


def test_the_same_file_under_a_new_number_is_refused_unless_somebody_insists(
    burnt: Device, tmp_path: Path
) -> None:
    before = burnt.release(2)
    assert before is not None
    same = bundle(tmp_path / "v3", 3, other_answer, acceptance=MUCH)
    answer = burnt.post("/admin/releases", {"path": str(same)})
    assert answer.status == 400
    assert "runs the same files as version 2" in answer.json()["error"]
    assert "verdict" in answer.json()["error"]
    assert burnt.release(3) is None
    (bad,) = burnt.status().bad
    assert (bad.version, bad.digest) == (2, before.digest)
    assert bad.manifest_sha256 == before.manifest_sha256
    assert "agreement" in bad.reason
    # By hand: compared again it would be remembered again, sooner than anybody looks.
    release = burnt.stage(same, again=True, mode="manual")
    assert (release.version, burnt.status().bad) == (3, [])
    burnt.reach(3, "staged")


def test_a_variant_that_was_bad_here_does_not_get_past_its_choice(
    burnt: Device, tmp_path: Path
) -> None:
    folder = bundle(tmp_path / "v3", 3, other_answer, acceptance=MUCH)
    more = slow(folder / "more.onnx")  # good, and never the one that is chosen
    manifest = read((folder / MANIFEST_FILE).read_bytes(), "v3")
    second = Variant("more", more.name, file_sha256(more), more.stat().st_size)
    both = msgspec.structs.replace(manifest, variants=(*manifest.variants, second))
    (folder / MANIFEST_FILE).write_bytes(write(both))
    burnt.stage(folder)
    release = burnt.reach(3, "failed", "shadowing", "canary")
    assert (release.state, release.cause) == ("failed", "self-test")
    assert "its variant as-is reads the same files as version 2" in release.reason
    assert "verdict: agreement" in release.reason
    assert [row.to_state for row in burnt.history() if row.version == 3][-2:] == [
        "self-testing",
        "failed",
    ]


def test_what_was_bad_survives_a_restart_and_leaves_other_files_alone(
    burnt: Device, tmp_path: Path
) -> None:
    burnt.restart()
    same = bundle(tmp_path / "v3", 3, other_answer, acceptance=MUCH)
    assert burnt.post("/admin/releases", {"path": str(same)}).status == 400
    burnt.stage(bundle(tmp_path / "v4", 4))
    assert burnt.ended(4).state == "committed"

"""What a download may cost is asked of a whole bundle, and what goes wrong with it is reported."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.messages import JobStatus
from tests.agent_site import STORY_S, Site, site
from tests.daemons import eventually
from tests.models import add_constant

pytestmark = pytest.mark.integration


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def large(seed: int) -> Callable[[Path], Path]:
    """Write a model that is large enough for a chunk index, most of it the same for every seed."""

    def make(path: Path) -> Path:
        add_constant(path, 1.0, note="x" * 1_500_000 + str(seed))
        return path

    return make


def waits_for_bytes(here: Site) -> list[JobStatus]:
    return [each for each in here.operator.jobs() if each.reason == "budget"]


def test_a_bundle_that_does_not_fit_its_budget_as_a_whole_costs_nothing_of_it(
    tmp_path: Path,
) -> None:
    with site(tmp_path) as here:
        folder = here.bundle("good", 2)
        sizes = {name: (folder / name).stat().st_size for name in ("model.onnx", "golden.npz")}
        here.repository.add(folder)
        first = sum(
            path.stat().st_size
            for path in (here.repository.folder / "artifacts").rglob("*.manifest.*")
        )
        # Every single file would fit; all of them do not.
        limit = first + sum(sizes.values()) - 1
        here.agent.start()
        here.plan(2, bytes_max=limit)
        eventually(lambda: bool(waits_for_bytes(here)), "the wait", STORY_S)
        assert "budget of rollout" in waits_for_bytes(here)[-1].text
        kept = {path.name.partition(".")[0] for path in (here.agent.state / "blobs").iterdir()}
        assert not kept & {digest(folder / name) for name in sizes}
        # What is wanted is known already, so that nobody sweeps what comes of it.
        assert list((here.agent.state / "updates").glob("*/wanted.json"))
        here.plan(2, sequence=2, bytes_max=0)
        here.reached("succeeded", 2)
        assert here.device.traffic.faults() == []


def said_of_downloads(here: Site, version: int) -> list[dict[str, Any]]:
    return [
        remark
        for each in here.operator.jobs()
        if each.version == version
        for remark in each.details.get("download", [])
    ]


def test_a_full_download_in_place_of_a_small_one_is_reported_and_not_silent(
    tmp_path: Path,
) -> None:
    with site(tmp_path) as here:
        here.agent.start()
        two = here.bundle("two", 2, make=large(1))
        here.publish(2, two)
        here.reached("succeeded", 2)
        chunks = here.agent.state / "chunks"
        kept = {f"{digest(two / 'model.onnx')}.chunks"}
        assert {path.name for path in chunks.iterdir()} == kept
        (chunks / f"{'0' * 64}.chunks").write_bytes(b"of a version that is gone")
        assert said_of_downloads(here, 2) == []
        # The server has lost its chunk index, and the device cannot know which parts it has.
        here.repository.add(here.bundle("three", 3, make=large(2)))
        for index in (here.repository.folder / "artifacts" / "models" / "m" / "3").glob("*.chunks"):
            index.unlink()
        here.plan(3)
        here.reached("succeeded", 3)
        said = said_of_downloads(here, 3)
        assert {each["kind"] for each in said} == {"reuse-failed"}
        assert any("chunk index" in each["text"] for each in said)
        # It is asked for, and said, once; small files without an index are nothing to tell.
        assert all("golden" not in each["text"] for each in said)
        # Indexes of what is installed stay for the next time; nobody needs the others.
        eventually(lambda: {path.name for path in chunks.iterdir()} == kept, "the sweep")

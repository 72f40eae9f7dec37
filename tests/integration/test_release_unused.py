"""A device where nothing was released yet: what is asked makes nothing, what answers is known."""

from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import InvalidRequestError
from edge_runtime.failpoints import wall_time
from edge_runtime.locations import JOURNAL_NAME
from edge_runtime.release.machines import Machines
from edge_runtime.release.records import Override
from edge_runtime.release.releases import OVERRIDES_MAX, Releases
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle

pytestmark = pytest.mark.integration


def test_to_ask_on_a_device_without_releases_makes_no_file(tmp_path: Path) -> None:
    with Device(tmp_path, seed=add_constant(tmp_path / "seed.onnx", 1.0)) as on:
        before = sorted(on.daemon.state.rglob("*"))
        assert on.status_of_all().models == []
        assert on.get("/admin/history").json() == {"transitions": []}
        for path in ("", "/history", "/explain"):
            wanted = 200 if path == "/history" else 404
            assert on.get(f"/admin/releases/{MODEL}{path}").status == wanted
        assert sorted(on.daemon.state.rglob("*")) == before
        assert not (on.daemon.state / JOURNAL_NAME).exists()
        assert on.order("hold").status == 200
        assert (on.daemon.state / JOURNAL_NAME).exists()
        assert on.status().override is not None
        assert on.order("clear").status == 200, "though nothing of the model is left to tell"


def test_a_version_that_answers_when_asked_keeps_its_number_while_it_is_not_in_memory(
    tmp_path: Path,
) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0)
    with Device(tmp_path, seed=seed, more=f'[models.{MODEL}]\nload = "request"\n') as on:
        answer = on.post("/admin/releases", {"path": str(bundle(tmp_path / "v1", 1))})
        assert answer.status == 400
        assert "version 1 of 'm' answers already" in answer.json()["error"]
        assert on.ask().is_right


@pytest.mark.asyncio
async def test_names_that_nobody_has_are_held_up_to_a_limit_and_cost_no_more() -> None:
    nothing: Any = None  # of the rest nothing may be needed
    machines = Machines(nothing)
    machines.overrides = {
        f"m{number}": Override(model=f"m{number}", kind="hold", created_s=wall_time())
        for number in range(OVERRIDES_MAX)
    }
    releases = Releases(nothing, machines, nothing)
    with pytest.raises(InvalidRequestError, match=f"{OVERRIDES_MAX} models are held"):
        await releases.hold("one-too-many")
    for number in range(10):
        async with releases._lock(f"nobody-{number}"):
            assert len(releases._locks) == 1
    assert not releases._locks

"""What is told to be wrong with the active version, and what is not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edge_runtime.errors import ArtifactError, DigestMismatchError, NoRoomError
from edge_runtime.release.records import Slots
from tests.release_world import MODEL, World

pytestmark = pytest.mark.asyncio

BROKEN = DigestMismatchError("/models/m/1/model.onnx is not the one that the manifest names")
TOLD = "model.onnx is not the one that the manifest names"


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.serving.take(Slots(model=MODEL))
    yield made
    await made.close()


async def test_nothing_is_wrong_with_a_version_that_answers(world: World) -> None:
    await world.reload(MODEL)
    assert world.serving.trouble(MODEL) == ""
    assert world.serving.trouble("unheard-of") == ""


async def test_one_that_cannot_be_loaded_has_the_catalog_s_reason(world: World) -> None:
    world.loader.broken["seed"] = BROKEN
    with pytest.raises(DigestMismatchError):
        await world.reload(MODEL)
    assert world.serving.trouble(MODEL) == TOLD


async def test_one_that_somebody_unloaded_says_so(world: World) -> None:
    await world.reload(MODEL)
    await world.catalog.unload(MODEL)
    assert world.serving.trouble(MODEL) == "unloaded"


async def test_one_that_left_for_a_candidate_is_not_in_trouble_and_a_failed_candidate_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(*_: object) -> None:
        raise NoRoomError("memory does not hold both")

    monkeypatch.setattr(world.serving, "add", no_room)
    await world.reload(MODEL)
    world.installed(2)
    assert await world.serving.replace(MODEL, 2) == "resource-preserving"
    assert world.loaded() == {"2"}
    assert world.serving.trouble(MODEL) == ""
    await world.serving.restore(MODEL)
    assert world.loaded() == {"1"}
    assert world.serving.trouble(MODEL) == ""


def damage(folder: Path, version: int) -> None:
    """Cut the model file of an installed version off."""
    file = folder / "store" / "models" / MODEL / str(version) / "model.onnx"
    file.chmod(0o600)
    file.write_bytes(b"cut off")


async def test_a_damaged_version_of_a_split_keeps_the_active_one_of_no_answer(
    world: World, tmp_path: Path
) -> None:
    world.installed(2)
    world.serving.take(
        Slots(model=MODEL, active=1, active_source="seed", traffic={"1": 50, "2": 50})
    )
    damage(tmp_path, 2)
    await world.reload(MODEL)
    assert world.loaded() == {"1"}
    (entry,) = [each for each in world.catalog.entries() if each.version == 2]
    assert "model.onnx has 7 bytes" in entry.state.reason


async def test_no_split_is_made_with_a_damaged_version(world: World, tmp_path: Path) -> None:
    await world.reload(MODEL)
    world.installed(2, state="committed")
    damage(tmp_path, 2)
    with pytest.raises(ArtifactError, match="has 7 bytes"):
        await world.releases.traffic(MODEL, {1: 50, 2: 50})
    assert world.serving.slots(MODEL).traffic == {}

"""Files of releases of a real repository, over HTTP and from an export."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.download.air_gap import ImportLimits, import_file
from agent.download.bundle_files import BundleFiles, OlderFile
from agent.download.indexes import ChunkIndexes
from agent.errors import BudgetError
from fleet.documents.paths import artifact_url_path
from fleet.repository.export import export
from fleet.repository.releases import artifacts_of
from tests.agent_downloads import Device, SignedFile, noise
from tests.repositories import CHANNEL, MODEL, TestRepository, new_repository, served
from tests.store_bundles import ONNX

pytestmark = pytest.mark.integration

OLD = noise(2_000_000)
NEW = OLD[:700_000] + noise(50_000, seed=1) + OLD[750_000:]
OTHER = noise(1000, seed=2)
BIG = "goldens/big.bin"
INDEX = f"{BIG}.chunks"


def _files(big: bytes) -> dict[str, bytes]:
    return {"model.onnx": ONNX, BIG: big, "goldens/small.bin": OTHER}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRepository]:
    """A repository with two versions of a model, served."""
    made = new_repository(tmp_path_factory.mktemp("fleet"))
    made.add_bundle(_files(OLD), version=1)
    made.add_bundle(_files(NEW), version=2)
    made.set_plan(version=2)
    with served(made) as running:
        yield running


def _artifacts(repository: TestRepository, version: int) -> Mapping[str, SignedFile]:
    listed = artifacts_of(repository.state().releases.signed, MODEL, version)
    return {
        file: SignedFile(
            target.length,
            target.hashes["sha256"],
            artifact_url_path(target.path, target.hashes["sha256"]),
        )
        for file, target in listed.items()
    }


@pytest.fixture
def device(tmp_path: Path, repository: TestRepository) -> Iterator[Device]:
    found = Device(tmp_path / "device", [repository.artifacts_url])
    yield found
    found.close()


def _bringing(device: Device) -> BundleFiles:
    return BundleFiles(device.downloads, ChunkIndexes(device.folder / "indexes"))


def test_an_update_costs_what_changed(device: Device, repository: TestRepository) -> None:
    old, new = _artifacts(repository, 1), _artifacts(repository, 2)
    device.store.add(OLD)
    older = [OlderFile(old[BIG].sha256, old[INDEX])]
    path = _bringing(device).fetch(new[BIG], new[INDEX], older, device.order())
    assert path.read_bytes() == NEW
    assert device.budget.spent("artifact") < len(NEW) // 5
    assert device.notices == []


def test_what_an_update_costs_is_known_before(device: Device, repository: TestRepository) -> None:
    old, new = _artifacts(repository, 1), _artifacts(repository, 2)
    device.store.add(OLD)
    bring = _bringing(device)
    older = [OlderFile(old[BIG].sha256, old[INDEX])]
    coming = bring.prepare(new[BIG], new[INDEX], older, device.order())
    before = device.budget.spent()
    assert 50_000 <= coming.cost_bytes < len(NEW) // 5
    with pytest.raises(BudgetError):
        device.downloads.ask(device.order(before + coming.cost_bytes - 1), coming.cost_bytes)
    bring.bring(coming, device.order(before + coming.cost_bytes))
    assert device.budget.spent() == before + coming.cost_bytes
    assert bring.prepare(new[BIG], new[INDEX], older, device.order()).cost_bytes == 0


def test_an_export_brings_the_same_without_a_network(
    repository: TestRepository, tmp_path: Path
) -> None:
    export(repository.layout, tmp_path / "x.tar", CHANNEL)
    came = import_file(
        tmp_path / "x.tar",
        tmp_path / "import",
        ImportLimits(reserve_bytes=1),
        lambda *_: None,
        threading.Event(),
    )
    device = Device(tmp_path / "device", [came.artifacts_url])
    new = _artifacts(repository, 2)
    path = _bringing(device).fetch(new[BIG], new[INDEX], [], device.order())
    assert path.read_bytes() == NEW
    assert device.budget.spent() == 0
    assert (came.folder / "metadata" / "timestamp.json").read_bytes() == repository.timestamp()
    device.close()

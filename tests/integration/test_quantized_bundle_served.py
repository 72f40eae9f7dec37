"""A bundle as edge-quantize writes it, served by a real daemon."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bundle import bundle_from_directory
from edge_runtime.hardware import cpu_facts
from edge_runtime.manifest import Requires, choose_variant
from tests.daemons import Daemon, daemon, eventually
from tests.quantize_bundles import digits, variants, write_digits

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "bundle"
    write_digits(path)
    return path


@pytest.fixture(scope="module")
def served(bundle: Path) -> Iterator[Daemon]:
    with daemon(f"numbers={bundle}") as running:
        yield running


def _image() -> list[dict[str, object]]:
    image = digits().inputs["image"][:1]
    return [
        {
            "name": "image",
            "datatype": "FP32",
            "shape": list(image.shape),
            "data": image.reshape(-1).tolist(),
        }
    ]


def test_the_daemon_picks_the_variant_for_its_cpu(served: Daemon, bundle: Path) -> None:
    wanted, reason = choose_variant(bundle_from_directory(bundle).manifest, cpu_facts())
    properties = served.request("GET", "/v2/models/numbers").json()["properties"]
    assert properties["variant"] == wanted.name
    assert properties["variant_reason"] == reason
    assert properties["version"] == "3"


def test_the_daemon_answers_like_the_goldens(served: Daemon, bundle: Path) -> None:
    answer = served.infer("numbers", _image())
    assert answer.status == 200, served.log()
    outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    (tolerance,) = bundle_from_directory(bundle).manifest.acceptance.tolerances
    with np.load(bundle / "goldens" / "samples-00.npz") as golden:
        assert outputs["label"] == [int(golden["label"][0])]
        expected = golden["scores"][0]
    np.testing.assert_allclose(outputs["scores"], expected, rtol=0, atol=tolerance.atol)


def test_the_daemon_passes_over_variants_for_other_cpus(tmp_path: Path) -> None:
    first, last = variants()
    foreign = first._replace(name="int8-other", requires=Requires("m68k"))
    write_digits(tmp_path / "bundle", (foreign, first._replace(requires=Requires()), last))
    with daemon(f"numbers={tmp_path / 'bundle'}") as running:
        properties = running.request("GET", "/v2/models/numbers").json()["properties"]
    assert properties["variant"] == "int8-vnni"
    assert "int8-other needs m68k" in properties["variant_reason"]


def test_the_daemon_joins_no_requests_of_a_model_that_is_not_batchable(tmp_path: Path) -> None:
    write_digits(tmp_path / "bundle", variants(batchable=False))
    with daemon(f"numbers={tmp_path / 'bundle'}") as running:
        properties = running.request("GET", "/v2/models/numbers").json()["properties"]
    assert properties["batching_rows"] == "1"
    assert properties["batching"].startswith("off")


def test_the_daemon_refuses_a_bundle_whose_golden_was_changed(tmp_path: Path) -> None:
    write_digits(tmp_path / "bundle")
    path = tmp_path / "bundle" / "goldens" / "samples-00.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with Daemon([f"numbers={tmp_path / 'bundle'}"], wait=False) as running:
        eventually(
            lambda: running.process.poll() is not None or "SHA-256" in running.log(),
            "the refusal",
        )
        assert "samples-00.npz has SHA-256" in running.log()

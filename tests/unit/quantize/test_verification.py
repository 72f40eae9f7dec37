"""Verification: finds what is wrong with a bundle, says where, and needs the base install only."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime.digest import file_sha256
from edge_runtime.goldens import Golden, encode
from edge_runtime.hardware import cpu_facts
from edge_runtime.manifest import (
    Acceptance,
    File,
    Manifest,
    Metric,
    Requires,
    Tolerance,
    read,
    write,
)
from quantize.errors import BadInputError, VerificationError
from quantize.verification import Verification, summary, verify_bundle
from tests.conftest import ROOT
from tests.quantize_bundles import PLAIN_CPU, VNNI_CPU, write_digits

CPU = cpu_facts()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_digits(tmp_path / "bundle")
    return tmp_path / "bundle"


def _manifest(bundle: Path) -> Manifest:
    return read((bundle / "manifest.json").read_bytes(), "test")


def _change(bundle: Path, change: Callable[[Manifest], Manifest]) -> None:
    (bundle / "manifest.json").write_bytes(write(change(_manifest(bundle))))


def _accept(bundle: Path, change: Callable[[Acceptance], Acceptance]) -> None:
    _change(
        bundle,
        lambda manifest: msgspec.structs.replace(manifest, acceptance=change(manifest.acceptance)),
    )


def _replace_golden(bundle: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change the arrays of the first golden, and the manifest with it."""
    old = _manifest(bundle).acceptance.goldens[0]
    path = bundle / old.path
    with np.load(path) as file:
        arrays = dict(file.items())
    change(arrays)
    labels = arrays.pop("labels", None)
    path.write_bytes(encode(Golden("g", arrays, {}, labels)))
    new = File(old.path, file_sha256(path), path.stat().st_size)
    _accept(
        bundle,
        lambda acceptance: msgspec.structs.replace(
            acceptance, goldens=(new, *acceptance.goldens[1:])
        ),
    )


def test_a_bundle_as_it_was_written_is_good(bundle: Path) -> None:
    found = verify_bundle(bundle, VNNI_CPU)
    assert (found.verdict, found.problems, found.warnings) == ("good", (), ())
    assert (found.name, found.version, found.variant) == ("digits", 3, "int8-vnni")
    assert found.files == 6
    assert {check.golden for check in found.outputs} == {
        "goldens/samples-00.npz",
        "goldens/edge-zeros.npz",
        "goldens/edge-largest.npz",
        "goldens/edge-near-saturation.npz",
    }
    assert found.score is not None
    assert found.score.value >= found.score.floor
    assert found.timing.rows == 1
    assert 0 < found.timing.p50_s <= found.timing.p90_s
    assert msgspec.json.decode(msgspec.json.encode(found), type=Verification) == found
    assert summary(found).startswith("digits version 3: good here\n")


def test_runs_the_variant_that_this_cpu_would_get(bundle: Path) -> None:
    found = verify_bundle(bundle, PLAIN_CPU)
    assert found.variant == "fp32"
    assert "int8-vnni needs vnni, which it lacks" in found.variant_reason
    assert found.verdict == "good"


def test_runs_the_variant_that_is_asked_for(bundle: Path) -> None:
    assert verify_bundle(bundle, VNNI_CPU, variant="fp32").variant == "fp32"
    assert verify_bundle(bundle, PLAIN_CPU, variant="int8-vnni").verdict == "good"
    with pytest.raises(BadInputError, match="no variant 'int9'; it has int8-vnni, fp32"):
        verify_bundle(bundle, CPU, variant="int9")


def test_says_which_output_of_which_golden_is_off(bundle: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["scores"][41, 3] += 0.5

    _replace_golden(bundle, change)
    found = verify_bundle(bundle, VNNI_CPU)
    assert found.verdict == "outside-tolerance"
    (problem,) = found.problems
    assert problem.startswith("goldens/samples-00.npz: output 'scores' is 0.")
    assert problem.endswith("(row 41)")
    assert "NOT GOOD HERE" in summary(found)


def test_says_when_the_shape_is_another(bundle: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["scores"] = arrays["scores"][:, :9]

    _replace_golden(bundle, change)
    found = verify_bundle(bundle, VNNI_CPU)
    assert "has shape [64, 10], the golden [64, 9]" in found.problems[0]
    assert found.outputs[0].beyond is None


def test_says_when_a_number_is_missing(bundle: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["scores"][7] = np.nan

    _replace_golden(bundle, change)
    found = verify_bundle(bundle, VNNI_CPU)
    assert "not a number where the golden is one, or the other way" in found.problems[0]


def test_a_missed_floor_is_worse_than_an_output_that_is_off(bundle: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["labels"] = (arrays["labels"] + 1) % 10
        arrays["scores"] += 1

    _replace_golden(bundle, change)
    found = verify_bundle(bundle, VNNI_CPU)
    assert found.verdict == "below-floor"
    assert found.score is not None
    assert not found.score.passed
    assert found.problems[0].startswith("top1 over the goldens is 0, below the floor of 0.98")
    assert len(found.problems) == 2


def test_a_file_that_was_changed_is_found(bundle: Path) -> None:
    path = bundle / "fp32" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match=r"fp32/model\.onnx has SHA-256"):
        verify_bundle(bundle, VNNI_CPU)


def test_a_file_that_is_missing_is_found(bundle: Path) -> None:
    (bundle / "goldens" / "edge-zeros.npz").unlink()
    with pytest.raises(VerificationError, match=r"edge-zeros\.npz"):
        verify_bundle(bundle, CPU)


def test_a_cpu_that_no_variant_is_for_is_told(bundle: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        first = msgspec.structs.replace(manifest.variants[0], requires=Requires("m68k"))
        return msgspec.structs.replace(manifest, variants=(first,))

    _change(bundle, change)
    with pytest.raises(VerificationError, match="no variant of digits version 3 runs on this CPU"):
        verify_bundle(bundle, CPU)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"schema_version": 99}'])
def test_what_is_no_bundle_is_bad_input(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BadInputError):
        verify_bundle(tmp_path, CPU)


def test_a_score_that_cannot_be_computed_here_is_a_warning_and_runs_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    asked = Metric("trap:score", 0.9)
    _accept(bundle, lambda acceptance: msgspec.structs.replace(acceptance, metric=asked))
    found = verify_bundle(bundle, CPU)
    assert found.score is None
    assert found.verdict == "good"
    assert found.warnings == ("the score 'trap:score' cannot be computed here and was not checked",)


def test_one_tolerance_may_stand_for_all_outputs(bundle: Path) -> None:
    _accept(
        bundle,
        lambda acceptance: msgspec.structs.replace(
            acceptance, metric=None, tolerances=(Tolerance(atol=0.0, rtol=0.0),)
        ),
    )
    found = verify_bundle(bundle, VNNI_CPU)
    assert {check.output for check in found.outputs} == {"scores", "label"}
    assert found.verdict == "outside-tolerance"
    assert found.score is None


def test_says_when_nothing_was_compared(bundle: Path) -> None:
    _accept(bundle, lambda _: Acceptance())
    found = verify_bundle(bundle, CPU)
    assert found.warnings == ("the bundle has no .npz goldens: nothing was compared",)
    assert found.timing.runs == 0


def test_a_budget_that_is_exceeded_is_a_warning(bundle: Path) -> None:
    _accept(bundle, lambda acceptance: msgspec.structs.replace(acceptance, latency_budget_s=1e-9))
    found = verify_bundle(bundle, CPU)
    assert found.verdict == "good"
    assert "the manifest's budget is" in found.warnings[0]


def test_needs_only_what_a_device_has(bundle: Path) -> None:
    code = f"""
import sys
for name in ("onnx", "scipy", "onnxslim", "onnxsim", "matplotlib", "sympy", "torch", "tqdm"):
    sys.modules[name] = None
from pathlib import Path
from edge_runtime.hardware import cpu_facts
from quantize.verification import summary, verify_bundle
from quantize.reports.document import read_report
from quantize.reports.markdown import markdown
print(summary(verify_bundle(Path({str(bundle)!r}), cpu_facts())))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits version 3: good here\n")
    assert done.stderr == ""

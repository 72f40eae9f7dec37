"""``edge-runtime bundle create``: whole or not at all, and honest about what it made."""

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_runtime.bundle import bundle_from_directory, verify
from edge_runtime.goldens import Golden, encode
from edge_runtime.manifest import Manifest, Tolerance, read
from tests import models
from tests.bundle_commands import ROWS, WAIT_S, create, done, refused
from tests.conftest import DIGITS
from tests.daemons import COMMAND, daemon, eventually
from tests.signing import key_file

pytestmark = pytest.mark.integration


def _manifest(folder: Path) -> Manifest:
    return read((folder / "manifest.json").read_bytes(), "test")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``y = x + 5``."""
    return models.add_constant(tmp_path / "model.onnx", 5.0)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Goldens without outputs."""
    np.savez(tmp_path / "some.npz", x=ROWS)
    return tmp_path / "some.npz"


def test_create_makes_a_bundle_that_a_device_reads(
    model: Path, inputs: Path, tmp_path: Path
) -> None:
    said = create(model, tmp_path / "b", "--goldens", inputs)
    bundle = bundle_from_directory(tmp_path / "b")
    verify(bundle)
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == ("m", 3)
    assert [(each.name, each.datatype, each.shape) for each in manifest.inputs] == [
        ("x", "FP32", (-1, 2))
    ]
    assert [each.name for each in manifest.outputs] == ["y"]
    assert manifest.runtime.opset == models.OPSET
    assert manifest.runtime.onnxruntime_min
    assert manifest.acceptance.tolerances == (Tolerance("y", 0.001, 0.001),)
    assert "outputs of some: what the model answers here" in said
    assert "tolerance of y: 0.001 + 0.001" in said
    assert "not signed" in said
    with np.load(tmp_path / "b" / "goldens" / "some.npz") as golden:
        np.testing.assert_array_equal(golden["y"], ROWS + 5)


def test_created_bundle_is_served(model: Path, inputs: Path, tmp_path: Path) -> None:
    create(model, tmp_path / "b", "--goldens", inputs)
    with daemon(f"m={tmp_path / 'b'}") as running:
        given = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
        answer = running.infer("m", [given]).json()
        assert answer["model_version"] == "3"
        assert answer["outputs"][0]["data"] == [6.0, 7.0]


def test_create_takes_outputs_that_are_given_and_labels(model: Path, tmp_path: Path) -> None:
    golden = Golden("g", {"x": ROWS}, {"y": ROWS + 5.001}, np.array([1, 0, 1]))
    (tmp_path / "g.npz").write_bytes(encode(golden))
    create(model, tmp_path / "b", "--goldens", tmp_path / "g.npz", "--tolerance", "0.01")
    with np.load(tmp_path / "b" / "goldens" / "g.npz") as kept:
        np.testing.assert_array_equal(kept["y"], ROWS + np.float32(5.001))
        assert kept["labels"].tolist() == [1, 0, 1]


def test_create_refuses_goldens_that_the_model_itself_does_not_reach(
    model: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "g.npz", x=ROWS, y=ROWS + 6)
    said = refused(
        1,
        *("bundle", "create", model, "--name", "m", "--version", "1", "-o", tmp_path / "b"),
        *("--goldens", tmp_path / "g.npz"),
    )
    assert "g: output 'y' is 0.99" in said
    assert "no device would take the bundle" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.npz", "model.onnx"]


def test_create_writes_every_option_into_the_manifest(
    model: Path, inputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("cat\n\n dog \n", "utf-8")
    create(
        *(model, tmp_path / "b", "--goldens", inputs, "--tolerance", "y=0.5:0.25"),
        *("--latency-budget", "0.02", "--memory-budget", "1000000", "--agreement-floor", "0.9"),
        *("--labels", f"y={tmp_path / 'names.txt'}"),
    )
    manifest = _manifest(tmp_path / "b")
    acceptance = manifest.acceptance
    assert acceptance.tolerances == (Tolerance("y", 0.5, 0.25),)
    assert acceptance.latency_budget_s == 0.02
    assert acceptance.memory_budget_bytes == 1_000_000
    assert acceptance.comparison.agreement_floor == 0.9
    assert manifest.outputs[0].labels == ("cat", "dog")


def test_create_copies_external_weights(tmp_path: Path) -> None:
    source = tmp_path / "source"
    path = models.slow(source / "model.onnx", 64, 2)
    onnx.save_model(
        onnx.load_model(path), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    create(path, tmp_path / "b")
    shutil.rmtree(source)
    bundle = bundle_from_directory(tmp_path / "b")
    verify(bundle)
    assert [file.path for file in bundle.manifest.files()] == [
        "as-is/model.onnx",
        "as-is/w.bin",
    ]
    assert "good here" in done("bundle", "verify", tmp_path / "b")


def test_the_same_files_make_the_same_tar(model: Path, inputs: Path, tmp_path: Path) -> None:
    key = key_file(tmp_path, "ann")
    for name in ("a.tar", "b.tar"):
        create(
            *(model, tmp_path / name, "--goldens", inputs, "--sign", key),
            SOURCE_DATE_EPOCH="1700000000",
        )
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
        names = [member.name for member in members]
        assert names[:2] == ["manifest.json", "manifest.sig"]
        assert names[2:] == sorted(names[2:])
        assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each in members} == {
            (0, 0, 0, "", 0o644)
        }
        text = archive.extractfile("manifest.json")
        assert text is not None
        assert read(text.read(), "tar").created == "2023-11-14T22:13:20Z"


def test_quantised_models_get_room_for_other_cpus(tmp_path: Path) -> None:
    with np.load(DIGITS / "test.npz") as test:
        np.savez(tmp_path / "g.npz", image=test["image"][:4])
    create(DIGITS / "digits-int8.onnx", tmp_path / "b", "--goldens", tmp_path / "g.npz")
    found = {each.output: each for each in _manifest(tmp_path / "b").acceptance.tolerances}
    assert found["scores"].rtol == 0.05
    assert found["label"] == Tolerance("label", 0, 0)


@pytest.mark.parametrize("output", ["b", "b.tar"])
def test_an_existing_bundle_is_replaced_only_if_asked(
    output: str, model: Path, tmp_path: Path
) -> None:
    place = tmp_path / output
    create(model, place, SOURCE_DATE_EPOCH="1")
    before = _digest(place)
    arguments = ("bundle", "create", model, "--name", "m", "--version", "4", "-o", place)
    assert "--force replaces it" in refused(4, *arguments)
    assert _digest(place) == before
    done(*arguments, "--force")
    assert "version 4" in done("bundle", "show", place)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", output}


def test_force_replaces_nothing_that_is_no_bundle(model: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear", "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for place in ("home", "link", "model.onnx"):
        said = refused(
            4,
            *("bundle", "create", model, "--name", "m", "--version", "1", "--force"),
            *("-o", tmp_path / place),
        )
        assert "is not a bundle" in said
    assert (tmp_path / "home" / "letter.txt").read_text("utf-8") == "dear"


def _digest(place: Path) -> str:
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*"))
    return sha256(b"".join(path.read_bytes() for path in files if path.is_file())).hexdigest()


def _bad(tmp_path: Path, model: Path) -> dict[str, tuple[str | Path, ...]]:
    np.savez(tmp_path / "double.npz", x=ROWS.astype(np.float64))
    np.savez(tmp_path / "missing.npz", z=ROWS)
    np.savez(tmp_path / "wide.npz", x=np.zeros((1, 3), np.float32))
    np.savez(tmp_path / "output.npz", x=ROWS, y=ROWS.astype(np.float64))
    np.savez(tmp_path / "good.npz", x=ROWS)
    (tmp_path / "more").mkdir()
    shutil.copy(tmp_path / "good.npz", tmp_path / "more")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    (tmp_path / "three.txt").write_text("a\nb\nc\n", "utf-8")
    good = ("--goldens", tmp_path / "good.npz")
    return {
        "no such file": (tmp_path / "none.onnx",),
        "not an ONNX model": (tmp_path / "junk.onnx",),
        "float64; the model takes FP32": (model, "--goldens", tmp_path / "double.npz"),
        "no array for input 'x'": (model, "--goldens", tmp_path / "missing.npz"),
        "[1, 3]": (model, "--goldens", tmp_path / "wide.npz"),
        "'y' is float64": (model, "--goldens", tmp_path / "output.npz"),
        "not an .npz file of plain arrays": (model, "--goldens", tmp_path / "junk.npz"),
        "cannot read": (model, "--goldens", tmp_path / "none.npz"),
        "is not an .npz file: write one": (model, "--goldens", tmp_path / "good.npy"),
        "two goldens are called good": (model, *good, tmp_path / "more" / "good.npz"),
        "--tolerance needs --goldens": (model, "--tolerance", "1"),
        "'z' is not an output": (model, *good, "--tolerance", "z=1"),
        "y is there twice": (model, *good, "--tolerance", "y=1", "--tolerance", "y=2"),
        "not a number from 0 on": (model, *good, "--tolerance", "y=-1"),
        "the file has 3 names": (model, "--labels", f"y={tmp_path / 'three.txt'}"),
        "'q' is not an output": (model, "--labels", f"q={tmp_path / 'three.txt'}"),
        "is not OUTPUT=FILE": (model, "--labels", "three.txt"),
        "not a share": (model, "--agreement-floor", "1.5"),
        "above 0": (model, "--latency-budget", "0"),
        "1 or more": (model, "--memory-budget", "0"),
        "is no private key": (model, "--sign", tmp_path / "three.txt"),
    }


@pytest.mark.parametrize("number", range(21))
def test_what_cannot_be_used_is_told_and_leaves_nothing_behind(
    number: int, model: Path, tmp_path: Path
) -> None:
    words, arguments = list(_bad(tmp_path, model).items())[number]
    before = sorted(tmp_path.rglob("*"))
    said = refused(
        4,
        *("bundle", "create", arguments[0], "--name", "m", "--version", "1"),
        *("-o", tmp_path / "out", *arguments[1:]),
    )
    if words != "no such file":
        assert words in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--name": "a b"}, "is not a model name"),
        ({"--version": "0"}, "is not a version"),
        ({"--version": "01"}, "is not a version"),
        ({"-o": "missing/b"}, "is not a folder; make it"),
        ({"-o": ""}, "it is empty"),
    ],
)
def test_names_versions_and_places_are_checked_first(
    changes: dict[str, str], words: str, model: Path, tmp_path: Path
) -> None:
    options = {"--name": "m", "--version": "1", "-o": str(tmp_path / "out"), **changes}
    flat = [part for pair in options.items() for part in pair]
    assert words in refused(4, "bundle", "create", model, *flat)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("output", ["b", "b.tar"])
def test_ctrl_c_leaves_nothing_behind(output: str, tmp_path: Path) -> None:
    model = models.add_constant(tmp_path / "model.onnx", 5.0)
    goldens = tmp_path / "g.npz"
    os.mkfifo(goldens)  # which are waited for, once the model is copied, and never come
    before = {path.name for path in tmp_path.iterdir()}
    process = subprocess.Popen(
        [
            *(COMMAND, "bundle", "create", model, "--name", "m", "--version", "1"),
            *("--goldens", goldens, "-o", tmp_path / output),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    ends: list[int] = []

    def is_read() -> bool:
        with contextlib.suppress(OSError):  # nobody has opened it to read
            ends.append(os.open(goldens, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    try:
        eventually(is_read, "the reading of the goldens")
        assert [*tmp_path.glob(".b*/*/model.onnx")]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
        for end in ends:
            os.close(end)
    assert process.returncode == 130, said
    assert {path.name for path in tmp_path.iterdir()} == before

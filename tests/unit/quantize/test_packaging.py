"""Bundles: whole or not at all, readable by a daemon, and never on top of somebody's files."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_runtime.bundle import bundle_from_directory, verify
from edge_runtime.goldens import Golden
from edge_runtime.manifest import Acceptance, Manifest, Provenance, Runtime, choose_variant
from quantize.errors import BadInputError, StepFailedError
from quantize.packaging import Contents, check_output, new_folder, shipped, write_bundle
from quantize.reports.writing import write_report
from quantize.variants import ShippedVariant
from tests import models
from tests.quantize_bundles import PLAIN_CPU, VNNI_CPU, variants, write_digits
from tests.quantize_reports import report, trial


def _contents(*given: ShippedVariant, name: str = "m", goldens: int = 0) -> Contents:
    row = np.zeros((1, 2), np.float32)
    made = [Golden(f"samples-{place:02}", {"x": row}, {"y": row}) for place in range(goldens)]
    return Contents(name, 1, "", given, made, Acceptance(), Runtime(), Provenance())


def _variant(path: Path, name: str = "fp32") -> ShippedVariant:
    return ShippedVariant(name, path, trial(name))


def _write(output: Path, contents: Contents) -> Manifest:
    with new_folder(output) as folder:
        return write_bundle(folder, contents, lambda _: None)


def _with_weights(path: Path, constant: float) -> Path:
    """A model that keeps its weights in a folder beside it."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        "test",
        [models.value("x")],
        [models.value("y")],
        [numpy_helper.from_array(np.full(2, constant, np.float32), "c")],
    )
    path.parent.mkdir(exist_ok=True)
    (path.parent / "data").mkdir(exist_ok=True)
    opset = [helper.make_opsetid("", 17)]
    onnx.save_model(
        helper.make_model(graph, opset_imports=opset, ir_version=8),
        path,
        save_as_external_data=True,
        location="data/weights.bin",
        size_threshold=0,
        convert_attribute=False,
    )
    return path


def test_a_daemon_can_read_verify_and_choose(tmp_path: Path) -> None:
    manifest = write_digits(tmp_path / "bundle")
    bundle = bundle_from_directory(tmp_path / "bundle")
    assert bundle.manifest == manifest
    assert {path for path, _, _ in verify(bundle)} == {
        "int8-vnni/model.onnx",
        "fp32/model.onnx",
        "goldens/samples-00.npz",
        "goldens/edge-zeros.npz",
        "goldens/edge-largest.npz",
        "goldens/edge-near-saturation.npz",
    }
    assert choose_variant(manifest, VNNI_CPU)[0].name == "int8-vnni"
    assert choose_variant(manifest, PLAIN_CPU)[0].name == "fp32"
    assert [tensor.shape for tensor in manifest.outputs] == [(-1, 10), (-1,)]
    assert [tensor.datatype for tensor in manifest.outputs] == ["FP32", "INT64"]
    assert manifest.defaults.batching.max_rows == 0


def test_models_whose_rows_change_each_other_are_never_batched(tmp_path: Path) -> None:
    manifest = write_digits(tmp_path / "bundle", variants(batchable=False))
    assert manifest.defaults.batching.max_rows == 1


def test_the_same_contents_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_digits(tmp_path / name)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second


def test_external_weights_of_two_variants_do_not_meet(tmp_path: Path) -> None:
    paths = [_with_weights(tmp_path / name / "m.onnx", place) for place, name in enumerate("ab")]
    _write(tmp_path / "bundle", _contents(*(_variant(path, path.parent.name) for path in paths)))
    bundle = bundle_from_directory(tmp_path / "bundle")
    verify(bundle)
    assert [file.path for file in bundle.manifest.files()] == [
        "a/model.onnx",
        "a/data/weights.bin",
        "b/model.onnx",
        "b/data/weights.bin",
    ]


def test_lists_what_is_shipped_for_the_report(tmp_path: Path) -> None:
    variant = _variant(_with_weights(tmp_path / "a" / "m.onnx", 1), "int8-portable")
    manifest = _write(tmp_path / "bundle", _contents(variant))
    (found,) = shipped(manifest, [variant])
    assert (found.name, found.trial) == ("int8-portable", "int8-portable")
    assert found.size_bytes == variant.file.stat().st_size + 8


def test_reports_are_written_before_the_manifest_and_know_it(tmp_path: Path) -> None:
    seen: list[Manifest] = []
    contents = _contents(_variant(models.identity(tmp_path / "m.onnx")))
    with new_folder(tmp_path / "bundle") as folder:

        def write_reports(manifest: Manifest) -> None:
            assert not (folder / "manifest.json").exists()
            (folder / "report.md").write_text("read me")
            seen.append(manifest)

        assert write_bundle(folder, contents, write_reports) == seen[0]
    assert (tmp_path / "bundle" / "report.md").read_text() == "read me"


def test_anyone_whom_the_umask_allows_can_read_a_bundle(tmp_path: Path) -> None:
    os.chmod(models.identity(tmp_path / "m.onnx"), 0o600)  # noqa: PTH101 - of the source only
    _write(tmp_path / "bundle", _contents(_variant(tmp_path / "m.onnx"), goldens=1))
    mask = os.umask(0)
    os.umask(mask)
    for path in (tmp_path / "bundle").rglob("*"):
        wanted = 0o777 if path.is_dir() else 0o666
        assert path.stat().st_mode & 0o777 == wanted & ~mask


# -- whole, or not at all -----------------------------------------------------------------------


def _only(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_failure_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(StepFailedError):
        _write(tmp_path / "bundle", _contents(_variant(tmp_path / "m.onnx")))
    _only(tmp_path, "m.onnx")


def test_a_failure_keeps_the_bundle_that_was_there(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as folder:
        write_report(report("met"), folder)
    with suppress(KeyboardInterrupt), new_folder(tmp_path / "bundle") as folder:
        (folder / "half").write_text("")
        raise KeyboardInterrupt
    _only(tmp_path, "bundle")
    assert (tmp_path / "bundle" / "report.json").is_file()
    assert not (tmp_path / "bundle" / "half").exists()


def test_a_new_result_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as folder:
        write_report(report("floor-not-reached"), folder)
        (folder / "manifest.json").write_text("old")
    with new_folder(tmp_path / "bundle") as folder:
        write_report(report("floor-not-reached"), folder)
    _only(tmp_path, "bundle")
    assert not (tmp_path / "bundle" / "manifest.json").exists()


@pytest.mark.parametrize("moved", [False, True], ids=["while it was filled", "while it was moved"])
def test_what_a_killed_writer_left_is_taken_away_and_nothing_is_lost(
    tmp_path: Path, *, moved: bool
) -> None:
    with new_folder(tmp_path / "bundle") as folder:
        write_report(report("met"), folder)
        half = folder
    half.mkdir()
    (half / "half").write_text("")
    if moved:
        (tmp_path / "bundle").rename(half.with_suffix(".old"))
    with suppress(KeyboardInterrupt), new_folder(tmp_path / "bundle") as folder:
        assert not [*folder.iterdir()]
        raise KeyboardInterrupt
    _only(tmp_path, "bundle")
    assert (tmp_path / "bundle" / "report.json").is_file()


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with new_folder(tmp_path / "bundle") as folder:
        (folder / "a").write_text("")
    _only(tmp_path / "bundle", "a")


def test_somebodys_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary").write_text("dear")
    with pytest.raises(BadInputError, match="did not write"), new_folder(tmp_path / "home"):
        pass
    assert (tmp_path / "home" / "diary").read_text() == "dear"


def test_what_somebody_put_into_a_bundle_is_never_replaced(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as folder:
        write_report(report("met"), folder)
    (tmp_path / "bundle" / "diary").write_text("dear")
    with pytest.raises(BadInputError, match=r"did not write \(diary\)"):
        check_output(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "diary").read_text() == "dear"


@pytest.mark.parametrize("name", ["file", "link", "missing/bundle", ".", ".."])
def test_refuses_places_where_no_folder_can_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(BadInputError):
        check_output(tmp_path / "file" if name == "file" else Path(f"{tmp_path}/{name}"))
    with pytest.raises(BadInputError):
        check_output(Path(".."))


def test_a_name_that_no_model_can_have_is_bad_input(tmp_path: Path) -> None:
    contents = _contents(_variant(models.identity(tmp_path / "m.onnx")), name="a/b")
    with pytest.raises(BadInputError, match="--name"):
        _write(tmp_path / "bundle", contents)


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInputError, match="choose another --output"),
        new_folder(tmp_path / "bundle") as folder,
    ):
        raise PermissionError(13, "Permission denied", str(folder))
    _only(tmp_path)

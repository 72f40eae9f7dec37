"""One version on disk: what becomes a bundle, and what is refused."""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from edge_runtime import manifest
from edge_runtime.bundle import bundle_from_directory, bundle_from_model_file, verify
from edge_runtime.digest import variant_digest
from edge_runtime.errors import DigestMismatchError, ManifestError, ModelLoadError
from edge_runtime.manifest import Acceptance, File, Manifest, TensorDescription, Variant

ONNX = b"\x08\x0a\x3a\x00"  # ir_version 10 and an empty graph
# The same with one initializer in weights.bin.
_ENTRY = b"\x0a\x08location\x12\x0bweights.bin"
_TENSOR = b"\x6a" + bytes([len(_ENTRY)]) + _ENTRY
EXTERNAL = b"\x3a" + bytes([len(_TENSOR) + 2]) + b"\x2a" + bytes([len(_TENSOR)]) + _TENSOR
WEIGHTS = b"weights"


def facts(data: bytes) -> tuple[str, int]:
    """Return the SHA-256 and size in bytes."""
    return hashlib.sha256(data).hexdigest(), len(data)


def put(path: Path, data: bytes) -> Path:
    """Write a file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def published(folder: Path, name: str = "m", version: int = 1) -> Manifest:
    """Write a bundle of two variants, one with external weights, and one golden."""
    put(folder / "a" / "model.onnx", EXTERNAL)
    put(folder / "a" / "weights.bin", WEIGHTS)
    put(folder / "b.onnx", ONNX)
    put(folder / "test_data_set_0" / "input_0.pb", b"golden")
    tensor = TensorDescription("x", "FP32", (-1,))
    made = Manifest(
        name=name,
        version=version,
        inputs=(tensor,),
        outputs=(tensor,),
        variants=(
            Variant(
                "a", "a/model.onnx", *facts(EXTERNAL), (File("a/weights.bin", *facts(WEIGHTS)),)
            ),
            Variant("b", "b.onnx", *facts(ONNX)),
        ),
        acceptance=Acceptance((File("test_data_set_0/input_0.pb", *facts(b"golden")),)),
    )
    put(folder / "manifest.json", manifest.write(made))
    return made


# One model file


def test_a_model_file_becomes_a_synthetic_bundle(tmp_path: Path) -> None:
    path = put(tmp_path / "net.onnx", ONNX)
    bundle = bundle_from_model_file(path, "net")
    assert bundle.directory == tmp_path
    assert (bundle.manifest.name, bundle.manifest.version) == ("net", 1)
    assert bundle.manifest.variants == (Variant("as-is", "net.onnx", size_bytes=len(ONNX)),)
    manifest.write(bundle.manifest)  # it is a manifest like any other
    with pytest.raises(ManifestError):
        manifest.check_complete(bundle.manifest, "x")


def test_external_weights_belong_to_the_synthetic_bundle(tmp_path: Path) -> None:
    path = put(tmp_path / "net.onnx", EXTERNAL)
    with pytest.raises(ModelLoadError, match=r"weights\.bin, weights of .*, does not exist"):
        bundle_from_model_file(path, "net")
    put(tmp_path / "weights.bin", WEIGHTS)
    bundle = bundle_from_model_file(path, "net", 3)
    assert bundle.manifest.version == 3
    assert bundle.manifest.variants[0].files == (File("weights.bin", size_bytes=len(WEIGHTS)),)


def test_an_unusable_model_file_is_named_as_the_operator_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.onnx")
    put(Path("text.onnx"), b"<html>")
    put(Path("a\\b.onnx"), ONNX)
    for path, reason in (
        ("none.onnx", "none.onnx does not exist; check the path"),
        (".", ". is a folder; a file is needed there"),
        ("pipe.onnx", "pipe.onnx is not a regular file; a file is needed there"),
        ("a" * 300, f"cannot read {'a' * 300}: File name too long; check the path"),
        ("nul\0", "cannot read nul\0: "),
        ("text.onnx", "text.onnx is not an ONNX model: "),
        ("a\\b.onnx", "a\\b.onnx: 'a\\\\b.onnx' is not a relative path"),
    ):
        with pytest.raises(ModelLoadError) as caught:
            bundle_from_model_file(Path(path), "m")
        assert caught.value.message.startswith(reason)
    with pytest.raises(ManifestError, match="is not a model name"):
        bundle_from_model_file(Path("text.onnx"), "a b")


# A bundle directory


def test_a_bundle_directory_is_read(tmp_path: Path) -> None:
    made = published(tmp_path)
    bundle = bundle_from_directory(tmp_path)
    assert bundle.manifest == made
    assert bundle.directory == tmp_path


def test_a_bundle_with_a_missing_or_cut_file_is_refused(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "b.onnx").write_bytes(ONNX + b"1")
    with pytest.raises(DigestMismatchError, match=r"^here: b\.onnx has 5 bytes, .* says 4;"):
        bundle_from_directory(tmp_path, "here")
    (tmp_path / "b.onnx").unlink()
    with pytest.raises(ModelLoadError, match=r"^here: b\.onnx does not exist"):
        bundle_from_directory(tmp_path, "here")


def test_a_bundle_whose_file_links_outside_is_refused(tmp_path: Path) -> None:
    published(tmp_path / "m")
    (tmp_path / "m" / "b.onnx").rename(tmp_path / "outside")
    (tmp_path / "m" / "b.onnx").symlink_to(tmp_path / "outside")
    with pytest.raises(ManifestError, match="a link that leaves the bundle"):
        bundle_from_directory(tmp_path / "m")


def test_a_bundle_without_a_usable_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"manifest\.json does not exist"):
        bundle_from_directory(tmp_path)
    put(tmp_path / "manifest.json", b" " * 2_000_000)
    with pytest.raises(ManifestError, match=r"^here/manifest\.json: over"):
        bundle_from_directory(tmp_path, "here")
    synthetic = Manifest(name="m", version=1, variants=(Variant("v", "f"),))
    put(tmp_path / "manifest.json", manifest.write(synthetic))
    with pytest.raises(ManifestError, match="inputs: a published bundle must list"):
        bundle_from_directory(tmp_path)


def test_verify_gives_what_the_digest_takes(tmp_path: Path) -> None:
    published(tmp_path)
    bundle = bundle_from_directory(tmp_path)
    found = verify(bundle, bundle.manifest.variants[0])
    sha256, size_bytes = facts(EXTERNAL)
    assert found[0] == ("a/model.onnx", size_bytes, sha256)
    assert [path for path, _, _ in found] == ["a/model.onnx", "a/weights.bin"]
    assert len(variant_digest(found, {})) == 64
    assert [path for path, _, _ in verify(bundle)] == [
        "a/model.onnx",
        "a/weights.bin",
        "b.onnx",
        "test_data_set_0/input_0.pb",
    ]


def test_verify_refuses_a_file_that_changed_without_changing_size(tmp_path: Path) -> None:
    published(tmp_path)
    bundle = bundle_from_directory(tmp_path)
    (tmp_path / "a" / "weights.bin").write_bytes(b"WEIGHTS")
    with pytest.raises(DigestMismatchError, match=r"m version 1: a/weights\.bin has SHA-256"):
        verify(bundle)
    verify(bundle, bundle.manifest.variants[1])


def test_verify_refuses_weights_the_manifest_does_not_name(tmp_path: Path) -> None:
    made = published(tmp_path)
    silent = msgspec.structs.replace(made.variants[0], files=())
    made = msgspec.structs.replace(made, variants=(silent,))
    put(tmp_path / "manifest.json", manifest.write(made))
    with pytest.raises(ManifestError, match=r"reads weights\.bin, which the manifest does not"):
        verify(bundle_from_directory(tmp_path))


def test_verify_measures_a_synthetic_bundle_as_it_is_now(tmp_path: Path) -> None:
    path = put(tmp_path / "net.onnx", ONNX)
    bundle = bundle_from_model_file(path, "net")
    put(path, ONNX + ONNX)
    sha256, size_bytes = facts(ONNX + ONNX)
    assert verify(bundle, bundle.manifest.variants[0]) == (("net.onnx", size_bytes, sha256),)
    path.unlink()
    with pytest.raises(ModelLoadError, match=r"^net version 1: net\.onnx does not exist"):
        verify(bundle)

"""What is found on disk, what is made of it, and what is said of the rest."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import manifest
from edge_runtime.bundle import bundle_from_directory
from edge_runtime.errors import (
    ArtifactError,
    ConfigError,
    ManifestError,
    ModelLoadError,
)
from edge_runtime.manifest import (
    Manifest,
    TensorDescription,
    Variant,
)
from edge_runtime.repository import (
    Discovery,
    Selection,
    classify,
    discover,
    parse_model_argument,
    scan_repository,
    select_versions,
)
from edge_runtime.settings import Model, VersionPolicy

ONNX = b"\x08\x0a\x3a\x00"  # ir_version 10 and an empty graph
# The same with one initializer in weights.bin.
_ENTRY = b"\x0a\x08location\x12\x0bweights.bin"
_TENSOR = b"\x6a" + bytes([len(_ENTRY)]) + _ENTRY
EXTERNAL = b"\x3a" + bytes([len(_TENSOR) + 2]) + b"\x2a" + bytes([len(_TENSOR)]) + _TENSOR
WEIGHTS = b"weights"


def put(path: Path, data: bytes) -> Path:
    """Write a file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def published(folder: Path, name: str = "m", version: int = 1) -> None:
    """Write a small bundle directory."""
    put(folder / "model.onnx", ONNX)
    tensor = TensorDescription("x", "FP32", (-1,))
    variant = Variant("v", "model.onnx", hashlib.sha256(ONNX).hexdigest(), len(ONNX))
    made = Manifest(
        name=name, version=version, inputs=(tensor,), outputs=(tensor,), variants=(variant,)
    )
    put(folder / "manifest.json", manifest.write(made))


def messages(found: Discovery) -> list[tuple[str, int | None, str]]:
    """Return the problems with their sentences."""
    return [(one.name, one.version, one.error.message) for one in found.problems]


def versions(found: Discovery) -> dict[str, list[int]]:
    """Return the versions found by name."""
    return {name: sorted(bundles) for name, bundles in found.bundles.items()}


# A repository


def test_a_scan_lists_numbered_folders_as_triton_does(tmp_path: Path) -> None:
    for name in ("m/1", "m/3", "m/02", "m/0", "m/-1", "m/v4", "m/10/11", ".git/1", "empty"):
        (tmp_path / name).mkdir(parents=True)
    put(tmp_path / "m" / "5", b"a file")
    put(tmp_path / "README", b"a file")
    m = tmp_path / "m"
    assert scan_repository(tmp_path) == {
        "m": {1: m / "1", 3: m / "3", 10: m / "10"},
        "empty": {},
    }


def test_an_unreadable_root_is_an_error(tmp_path: Path) -> None:
    for root in (tmp_path / "none", put(tmp_path / "file", b"")):
        with pytest.raises(ArtifactError, match="cannot read the model repository"):
            scan_repository(root)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (VersionPolicy(), Selection((9,))),
        (VersionPolicy(latest=2), Selection((3, 9))),
        (VersionPolicy(latest=7), Selection((1, 3, 9))),
        (VersionPolicy(all=True), Selection((1, 3, 9))),
        (VersionPolicy(specific=(3, 1)), Selection((1, 3))),
        (VersionPolicy(specific=(4, 3, 2)), Selection((3,), (2, 4))),
    ],
)
def test_a_policy_selects_versions(policy: VersionPolicy, expected: Selection) -> None:
    assert select_versions([9, 1, 3], policy) == expected


@given(
    st.frozensets(st.integers(1, 20)),
    st.builds(VersionPolicy, latest=st.integers(1, 5))
    | st.builds(VersionPolicy, all=st.just(value=True))
    | st.builds(VersionPolicy, specific=st.lists(st.integers(1, 20)).map(tuple)),
)
def test_only_versions_that_are_there_are_served(
    available: frozenset[int], policy: VersionPolicy
) -> None:
    selection = select_versions(available, policy)
    assert set(selection.serve) <= available
    assert not set(selection.missing) & available
    assert list(selection.serve) == sorted(selection.serve)


# Arguments and paths


def test_an_argument_is_a_path_with_or_without_a_name(tmp_path: Path) -> None:
    put(tmp_path / "a=b" / "net.v2.onnx", ONNX)
    file = tmp_path / "a=b" / "net.v2.onnx"
    assert parse_model_argument(f"{file}") == ("net.v2", file)
    assert parse_model_argument("net=x/y.onnx") == ("net", Path("x/y.onnx"))
    assert parse_model_argument("net=a=b") == ("net", Path("a=b"))
    published(tmp_path / "model-1.5")
    assert parse_model_argument(f"{tmp_path}/model-1.5") == ("model-1.5", tmp_path / "model-1.5")


def test_a_repository_argument_has_no_name(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx", ONNX)
    assert parse_model_argument(str(tmp_path)) == ("", tmp_path)
    with pytest.raises(ConfigError, match="a model repository, whose folders name"):
        parse_model_argument(f"x={tmp_path}")


@pytest.mark.parametrize(
    "text", ["=m.onnx", "a b=m.onnx", "-m=m.onnx", "m=", "", "/x/ä.onnx", "a" * 300]
)
def test_an_argument_without_a_proper_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_model_argument(text)


def test_paths_are_classified(tmp_path: Path) -> None:
    published(tmp_path / "repository" / "bundle" / "1")
    put(tmp_path / "repository" / "plain" / "1" / "model.onnx", ONNX)
    put(tmp_path / "repository" / "7" / "1" / "model.onnx", ONNX)
    root = tmp_path / "repository"
    assert classify(root) == "repository"
    assert classify(root / "bundle") == "versions"
    assert classify(root / "bundle" / "1") == "bundle"
    assert classify(root / "plain") == "versions"
    assert classify(root / "plain" / "1" / "model.onnx") == "file"
    with pytest.raises(ModelLoadError, match="does not exist"):
        classify(root / "none")


# Everything together


def test_files_bundles_version_folders_and_repositories_are_found(tmp_path: Path) -> None:
    put(tmp_path / "net.onnx", ONNX)
    published(tmp_path / "out", "other", 5)
    for version in (1, 2):
        put(tmp_path / "versions" / str(version) / "model.onnx", ONNX)
        put(tmp_path / "repository" / "r" / str(version) / "model.onnx", ONNX)
    published(tmp_path / "repository" / "b" / "4", "b", 4)
    found = discover(
        {
            "file": Model(path=str(tmp_path / "net.onnx")),
            "renamed": Model(path=str(tmp_path / "out")),
            "folder": Model(
                path=str(tmp_path / "versions"), version_policy=VersionPolicy(all=True)
            ),
            "r": Model(version_policy=VersionPolicy(specific=(1,))),
        },
        [str(tmp_path / "repository")],
    )
    assert not found.problems
    assert versions(found) == {
        "b": [4],
        "file": [1],
        "folder": [1, 2],
        "r": [1],
        "renamed": [5],
    }
    assert found.bundles["renamed"][5].manifest.name == "renamed"
    assert found.bundles["r"][1].directory == tmp_path / "repository" / "r" / "1"


def test_tritons_folder_in_place_of_the_model_file_is_taken(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx" / "model.onnx", EXTERNAL)
    put(tmp_path / "m" / "1" / "model.onnx" / "weights.bin", WEIGHTS)
    found = discover({}, [str(tmp_path)])
    bundle = found.bundles["m"][1]
    assert bundle.directory == tmp_path / "m" / "1" / "model.onnx"
    assert bundle.manifest.variants[0].file == "model.onnx"


def test_a_broken_model_does_not_hide_the_others(tmp_path: Path) -> None:
    put(tmp_path / "good" / "1" / "model.onnx", ONNX)
    put(tmp_path / "torn" / "1" / "model.onnx", ONNX)
    put(tmp_path / "torn" / "2" / "model.onnx", b"<html>")
    put(tmp_path / "a b" / "1" / "model.onnx", ONNX)
    (tmp_path / "bare" / "1").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    published(tmp_path / "moved" / "2", "moved", 1)
    found = discover(
        {"torn": Model(version_policy=VersionPolicy(all=True)), "lost": Model()}, [str(tmp_path)]
    )
    assert versions(found) == {"good": [1], "torn": [1]}
    said = {(name, version): message for name, version, message in messages(found)}
    assert said.keys() == {
        ("a b", None),
        ("bare", 1),
        ("empty", None),
        ("lost", None),
        ("moved", 2),
        ("torn", 2),
    }
    assert said["bare", 1] == "bare/1/model.onnx does not exist; check the path"
    assert "put the model into empty/1/model.onnx" in said["empty", None]
    assert "in none of the repositories" in said["lost", None]
    assert "is of moved version 1; move the bundle to moved/1" in said["moved", 2]
    assert said["torn", 2].startswith("torn/2/model.onnx is not an ONNX model")
    # Callers read these sentences: only paths relative to the repository stand in them.
    assert not any(str(tmp_path) in message for message in said.values())


def test_an_unreadable_repository_does_not_hide_the_others(tmp_path: Path) -> None:
    put(tmp_path / "r" / "m" / "1" / "model.onnx", ONNX)
    found = discover({}, [str(tmp_path / "none"), str(tmp_path / "r")])
    assert versions(found) == {"m": [1]}
    [(name, version, message)] = messages(found)
    assert (name, version) == ("", None)
    assert message.startswith("cannot read the model repository")


def test_a_name_with_two_sources_is_not_served_and_both_are_named(tmp_path: Path) -> None:
    put(tmp_path / "net.onnx", ONNX)
    for root in ("r", "s"):
        put(tmp_path / root / "twice" / "1" / "model.onnx", ONNX)
    put(tmp_path / "r" / "net" / "1" / "model.onnx", ONNX)
    r, s = str(tmp_path / "r"), str(tmp_path / "s")
    found = discover({"net": Model(path=str(tmp_path / "net.onnx"))}, [r, s])
    assert not found.bundles
    assert messages(found) == [
        ("net", None, f"model 'net' is in models.net.path and in {r}; leave it in one"),
        ("twice", None, f"model 'twice' is in {r} and in {s}; leave it in one"),
    ]


def test_missing_specific_versions_are_reported_and_the_rest_served(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx", ONNX)
    policy = VersionPolicy(specific=(1, 7))
    found = discover({"m": Model(version_policy=policy)}, [str(tmp_path)])
    assert versions(found) == {"m": [1]}
    assert messages(found) == [("m", 7, "m has no version 7; there: 1")]


def test_a_repository_given_as_a_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx", ONNX)
    found = discover({"x": Model(path=str(tmp_path)), "y": Model(path="/none")}, [])
    assert not found.bundles
    assert "belongs into `repositories`" in messages(found)[0][2]
    assert messages(found)[1] == ("y", None, "/none does not exist; check the path")


def test_a_folder_the_system_closes_is_reported_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed", "open", "hidden"):
        put(tmp_path / name / "1" / "model.onnx", ONNX)
    # Tests may run as root, whom no permission stops: the system's refusal is put in its place.
    denied = PermissionError(13, "Permission denied")
    listing, exists, opening = Path.iterdir, Path.exists, Path.open

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise denied
        return listing(path)

    def is_there(path: Path) -> bool:
        if path == tmp_path / "hidden" / "1" / "manifest.json":
            raise denied
        return exists(path)

    def no_manifest(path: Path, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if path.name == "manifest.json":
            raise denied
        return opening(path, *arguments, **options)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(Path, "exists", is_there)
    found = discover({}, [str(tmp_path)])
    assert versions(found) == {"open": [1]}
    assert messages(found)[0][2].startswith("closed holds no version folder that can be read")
    assert messages(found)[1][2].startswith("cannot read hidden/1: Permission denied; check")
    with pytest.raises(ModelLoadError, match="Permission denied"):
        classify(tmp_path / "closed")
    published(tmp_path / "bundle")
    monkeypatch.setattr(Path, "open", no_manifest)
    with pytest.raises(ManifestError, match=r"cannot read b/manifest\.json: Permission denied"):
        bundle_from_directory(tmp_path / "bundle", "b")


def test_one_model_can_be_looked_at_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / name / "1" / "model.onnx", b"broken" if name == "a" else ONNX)
    found = discover({}, [str(tmp_path)], only="b")
    assert versions(found) == {"b": [1]}
    assert not found.problems
    assert discover({}, [str(tmp_path)], only="c") == Discovery({}, ())

"""The manifest: read what is meant, refuse what is not, write the same bytes every time."""

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import manifest
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import ManifestError
from edge_runtime.manifest import (
    Acceptance,
    Accuracy,
    Batching,
    Defaults,
    File,
    Manifest,
    Metric,
    Provenance,
    Requires,
    Runtime,
    TensorDescription,
    Tolerance,
    Variant,
)

ROOT = Path(__file__).parents[3]
SHA = "ab" * 32
FULL = Manifest(
    name="resnet",
    version=7,
    created="2025-01-31T12:00:00.5+01:00",
    inputs=(TensorDescription("x", "FP32", (-1, 4), meaning="speed", units="m/s"),),
    outputs=(TensorDescription("y", "INT64", (-1,), labels=("cat", "dog")),),
    variants=(
        Variant(
            "int8-vnni",
            "int8/model.onnx",
            SHA,
            10,
            files=(File("int8/weights.bin", SHA, 20),),
            requires=Requires("x86_64", ("avx512_vnni",)),
            session_options={"session.x64quantprecision": "1"},
        ),
        Variant("fp32", "fp32/model.onnx", SHA, 30),
    ),
    runtime=Runtime("1.29", 21),
    defaults=Defaults(2, Batching(8), 60.0, 1_000_000),
    acceptance=Acceptance(
        goldens=(File("test_data_set_0/input_0.pb", SHA, 40),),
        tolerances=(Tolerance("", 1e-3, 1e-3), Tolerance("y")),
        metric=Metric("top1", 0.9),
        latency_budget_s=0.01,
        memory_budget_bytes=50_000_000,
    ),
    provenance=Provenance("recipe", SHA, Accuracy("top1", 0.9, 0.88, 0.92, 1000), {"test": SHA}),
)


def changed(**fields: object) -> bytes:
    """Write a small manifest with other top-level fields."""
    raw: dict[str, object] = {
        "name": "m",
        "version": 1,
        "variants": [{"name": "v", "file": "model.onnx"}],
    }
    return json.dumps(raw | fields).encode()


def refused(data: bytes) -> str:
    """Return the message a manifest is refused with."""
    with pytest.raises(ManifestError) as caught:
        manifest.read(data, "here")
    assert caught.value.message.startswith("here: ")
    return caught.value.message.removeprefix("here: ")


def test_importing_the_manifest_loads_neither_numpy_nor_onnxruntime() -> None:
    code = (
        "import sys, edge_runtime.manifest; "
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "'edge_runtime'" in done.stdout
    assert "'numpy'" not in done.stdout
    assert "'onnxruntime'" not in done.stdout


def test_a_full_manifest_survives_writing_and_reading() -> None:
    data = manifest.write(FULL)
    assert manifest.read(data, "x") == FULL
    assert data.endswith(b"}\n")
    assert data.startswith(b'{\n  "schema_version": 1,\n  "name": "resnet",\n  "version": 7,')
    manifest.check_complete(FULL, "x")


_name = st.from_regex(r"\A[A-Za-z0-9_@+:][A-Za-z0-9._@+:-]{0,127}\Z")
# Folders have one letter and files two or more, so that no file has the name of a folder.
_path = st.from_regex(r"\A([a-c]/){0,2}[a-z.]{2,4}[a-z]\Z")
_sha = st.from_regex(r"\A([0-9a-f]{64})?\Z")
_count = st.integers(0, 2**63 - 1)
_amount = st.floats(0, allow_nan=False, allow_infinity=False)
# One path is one file: its facts follow from its name.
_file = _path.map(lambda path: File(path, hashlib.sha256(path.encode()).hexdigest(), len(path)))
_tensors = st.lists(
    st.builds(
        TensorDescription,
        name=st.text(min_size=1),
        datatype=st.sampled_from(list(BY_NAME)),
        shape=st.lists(st.integers(-1, 2**63 - 1)).map(tuple),
        labels=st.lists(st.text()).map(tuple),
    ),
    unique_by=lambda tensor: tensor.name,
).map(tuple)
_variant = st.builds(
    lambda name, file, files, requires, options: Variant(
        name, file.path, file.sha256, file.size_bytes, files, requires, options
    ),
    _name,
    _file,
    st.lists(_file).map(tuple),
    st.builds(Requires, arch=st.text(), cpu_flags=st.lists(st.text()).map(tuple)),
    st.dictionaries(st.sampled_from(sorted(manifest.SESSION_OPTIONS)), st.text()),
)
_manifest = st.builds(
    Manifest,
    name=_name,
    version=st.integers(1, 2**63 - 1),
    created=st.sampled_from(["", "2025-01-31T12:00:00Z"]),
    inputs=_tensors,
    outputs=_tensors,
    variants=st.lists(_variant, max_size=3, unique_by=lambda one: one.name).map(tuple),
    acceptance=st.builds(
        Acceptance,
        goldens=st.lists(_file).map(tuple),
        metric=st.none() | st.builds(Metric, name=st.text(min_size=1), floor=_amount),
        latency_budget_s=_amount,
    ),
    provenance=st.builds(
        Provenance, recipe=st.text(), data_sha256=st.dictionaries(st.text(), _sha)
    ),
)


@given(_manifest)
def test_what_can_be_written_reads_back_as_itself(some: Manifest) -> None:
    data = manifest.write(some)
    assert manifest.read(data, "x") == some
    assert manifest.write(manifest.read(data, "x")) == data


@given(st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(repr))
def test_garbage_is_refused_and_nothing_else(data: bytes | str) -> None:
    refused(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))


@given(st.integers(0, 2000), st.binary(max_size=3))
def test_a_damaged_manifest_is_read_or_refused(position: int, patch: bytes) -> None:
    data = bytearray(manifest.write(FULL))
    data[position : position + len(patch)] = patch
    with contextlib.suppress(ManifestError):
        manifest.read(bytes(data), "x")


def test_hostile_json_is_refused() -> None:
    assert "nested too deeply" in refused(b'{"z":' + b"[" * 200_000)
    assert "utf-8" in refused(b'{"z":"\xff"}')
    assert "over 1048576 bytes" in refused(b" " * 1_048_577)


def test_unknown_fields_are_ignored_at_every_level() -> None:
    data = changed(
        later=1, variants=[{"name": "v", "file": "f", "later": {}, "requires": {"later": []}}]
    )
    assert manifest.read(data, "x").variants == (Variant("v", "f"),)


def test_a_newer_schema_is_refused_before_its_fields_are_judged() -> None:
    assert "schema_version 2 is newer than 1" in refused(changed(schema_version=2, name=5))


def test_an_unknown_required_feature_is_refused_by_name() -> None:
    message = refused(changed(required_features=["sharded-weights"], variants="other"))
    assert "needs the feature 'sharded-weights'" in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "-m"}, "name: Expected 1 to 128 of letters"),
        ({"name": "m\n"}, "name: Expected 1 to 128 of letters"),
        ({"version": 0}, "version: Expected `int` >= 1"),
        ({"version": 2**63}, "version: Expected `int` <= 9223372036854775807"),
        ({"version": "1"}, "version: Expected `int`, got `str`"),
        ({"created": "yesterday"}, "created: Expected an RFC 3339 time"),
        ({"created": "2025-13-01T00:00:00Z"}, "created: month must be in 1..12"),
        ({"schema_version": 0}, "schema_version: Expected `int` >= 1"),
        (
            {"inputs": [{"name": "x", "datatype": "FLOAT", "shape": []}]},
            "inputs[0].datatype: Expected one of BOOL, UINT8",
        ),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]},
            "inputs[0].shape[0]: Expected `int` >= -1",
        ),
        (
            {"outputs": [{"name": "x", "datatype": "FP32", "shape": []}] * 2},
            "outputs: 'x' is there twice",
        ),
        ({"variants": [{"name": "v", "file": "f"}] * 2}, "variants: 'v' is there twice"),
        (
            {"variants": [{"name": "v", "file": "f", "sha256": "AB" * 32}]},
            "variants[0].sha256: Expected 64 lower-case",
        ),
        (
            {"variants": [{"name": "v", "file": "f", "files": [{"path": "f", "size_bytes": 1}]}]},
            "f: named twice with different",
        ),
        (
            {"variants": [{"name": "v", "file": "f", "files": [{"path": "f/g"}]}]},
            "f/g: another file has the name of its folder",
        ),
        (
            {"variants": [{"name": "v", "file": "manifest.sig"}]},
            "manifest.sig: the manifest cannot name itself",
        ),
        (
            {
                "variants": [
                    {"name": "v", "file": "f", "session_options": {"ep.context_file_path": "/x"}}
                ]
            },
            "variants[0].session_options: 'ep.context_file_path' may not be set",
        ),
        (
            {"acceptance": {"tolerances": [{"atol": 1}, {"atol": 2}]}},
            "acceptance.tolerances: '' is there twice",
        ),
        (
            {
                "outputs": [{"name": "y", "datatype": "FP32", "shape": []}],
                "acceptance": {"tolerances": [{"output": "z"}]},
            },
            "acceptance.tolerances: 'z' is not an output",
        ),
        ({"acceptance": {"latency_budget_s": -1}}, "acceptance.latency_budget_s: Expected"),
        (
            {
                "provenance": {
                    "accuracy": {"metric": "a", "value": 1, "low": 2, "high": 3, "samples": 9}
                }
            },
            "provenance.accuracy: the value is not between",
        ),
    ],
)
def test_a_wrong_field_is_refused_and_named(fields: dict[str, object], message: str) -> None:
    assert refused(changed(**fields)).startswith(message)


BAD_PATHS = [
    "",
    "/etc/passwd",
    "..",
    "a/../b",
    "../a",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "a\x00b",
    "a\n",
    "a\x7f",
    "a" * 513,
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_could_leave_the_bundle_is_refused_wherever_it_stands(path: str) -> None:
    for fields in (
        {"variants": [{"name": "v", "file": path}]},
        {"variants": [{"name": "v", "file": "f", "files": [{"path": path}]}]},
        {"acceptance": {"goldens": [{"path": path}]}},
    ):
        assert "Expected a relative path" in refused(changed(**fields))
    with pytest.raises(ManifestError, match="is not a relative path"):
        manifest.check_file_name(path)


@pytest.mark.parametrize("path", ["a", "a/b.onnx", "a..b", "..a/b", ".a", "a/b/...", "é/ü 1"])
def test_a_path_within_the_bundle_is_taken(path: str) -> None:
    manifest.check_file_name(path)
    variant = [{"name": "v", "file": path}]
    assert manifest.read(changed(variants=variant), "x").variants[0].file == path


@pytest.mark.parametrize("name", ["m", "resnet-50_v1.5", "a" * 128, "org:model@2+b", "_", "9"])
def test_model_names_of_the_rule_are_taken(name: str) -> None:
    manifest.check_model_name(name)


@pytest.mark.parametrize("name", ["", ".m", "-m", "a/b", "a b", "a" * 129, "ä", "a\n", "a%"])
def test_other_model_names_are_refused(name: str) -> None:
    with pytest.raises(ManifestError, match="is not a model name: 1 to 128"):
        manifest.check_model_name(name)


def test_versions_are_whole_numbers_without_leading_zeros() -> None:
    assert manifest.parse_version("1") == 1
    assert manifest.parse_version(str(2**63 - 1)) == 2**63 - 1
    for text in ("", "0", "01", "-1", "+1", "1.0", " 1", "1\n", "\u0661", str(2**63), "9" * 20):
        with pytest.raises(ManifestError, match="is not a version"):
            manifest.parse_version(text)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2**70},
        {"created": "\ud800"},
        {"provenance": Provenance(accuracy=Accuracy("a", float("nan"), 0.0, 1.0, 1))},
        {"variants": list(FULL.variants)},
        {"variants": object()},
        {"schema_version": 2},
    ],
)
def test_nothing_is_written_that_could_not_be_read(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="manifest of resnet version"):
        manifest.write(msgspec.structs.replace(FULL, **change))


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"variants": ()}, "variants"),
        ({"inputs": ()}, "inputs"),
        ({"outputs": ()}, "outputs"),
        ({"variants": (Variant("v", "f"),)}, "f: needs its sha256"),
        ({"variants": (Variant("v", "f", SHA, 1, (File("w", "", 1),)),)}, "w: needs its sha256"),
        ({"acceptance": Acceptance((File("g", SHA),))}, "g: needs its sha256"),
    ],
)
def test_a_published_bundle_states_everything(change: dict[str, Any], missing: str) -> None:
    with pytest.raises(ManifestError, match=missing):
        manifest.check_complete(msgspec.structs.replace(FULL, **change), "here")


def test_every_file_is_listed_once_in_order() -> None:
    assert [file.path for file in FULL.files()] == [
        "int8/model.onnx",
        "int8/weights.bin",
        "fp32/model.onnx",
        "test_data_set_0/input_0.pb",
    ]
    assert FULL.variants[0].reads()[0] == File("int8/model.onnx", SHA, 10)


def test_the_published_schema_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime.manifest"], capture_output=True, check=True, cwd=ROOT
    )
    published = (ROOT / "docs" / "schemas" / "manifest.schema.json").read_bytes()
    remedy = "run python -m edge_runtime.manifest > docs/schemas/manifest.schema.json"
    assert done.stdout == published, remedy
    assert manifest.schema_text().encode() == published


def test_written_manifests_fit_the_schema_and_broken_ones_do_not() -> None:
    schema = manifest.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(manifest.write(FULL)))
    validator.validate(json.loads(changed()))
    for path in BAD_PATHS:
        assert not validator.is_valid(json.loads(changed(variants=[{"name": "v", "file": path}])))
    assert not validator.is_valid(json.loads(changed(name="a\n")))


def test_every_field_of_the_schema_says_what_it_means() -> None:
    for name, part in manifest.json_schema()["$defs"].items():
        assert part["description"], name
        for field, facts in part["properties"].items():
            assert facts.get("description"), f"{name}.{field}"

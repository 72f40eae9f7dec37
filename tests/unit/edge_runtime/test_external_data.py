"""The walk finds every file a model reads, and believes nothing the file says."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_runtime import external_data
from edge_runtime.errors import ModelLoadError
from edge_runtime.external_data import CHILDREN, external_files, opset


def field(number: int, payload: bytes) -> bytes:
    """Write one length-delimited field."""
    out = bytearray(
        [number << 3 | 2] if number < 16 else [(number << 3 & 0x7F) | 0x82, number >> 4]
    )
    length = len(payload)
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out) + payload


def tensor(location: bytes) -> bytes:
    """Write a tensor that says its data is elsewhere."""
    return field(13, field(1, b"location") + field(2, location))


def in_graph(initializer: bytes) -> bytes:
    """Write a model of one graph with one initializer."""
    return field(7, field(5, initializer))


def written(tmp_path: Path, data: bytes) -> Path:
    """Write a model file."""
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    return path


def test_the_table_is_all_that_onnx_proto_lets_reach_a_tensor() -> None:
    expected: dict[str, dict[int, str]] = {"StringStringEntryProto": {}}
    expected["TensorProto"] = {13: "StringStringEntryProto"}
    messages = {name: getattr(onnx, name).DESCRIPTOR for name in CHILDREN}
    grown = True
    while grown:
        before = {name: dict(fields) for name, fields in expected.items()}
        for name, descriptor in messages.items():
            if name in {"TensorProto", "StringStringEntryProto"}:
                continue
            for number, declared in descriptor.fields_by_number.items():
                child = declared.message_type.name if declared.message_type else ""
                if child in expected and child != "StringStringEntryProto":
                    expected.setdefault(name, {})[number] = child
        grown = expected != before
    assert expected == CHILDREN
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number == 13
    # No message outside the table may lead to one that is in it.
    for name, descriptor in messages.items():
        for declared in descriptor.fields:
            if declared.message_type and declared.number not in CHILDREN[name]:
                assert declared.message_type.name not in CHILDREN.keys() - {
                    "StringStringEntryProto"
                }


def _model(initializer: TensorProto, attribute: TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=attribute),
            helper.make_node("Add", ["w", "c"], ["y"]),
        ],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])],
        [initializer],
    )
    return helper.make_model(graph)


def test_a_real_model_names_its_external_weights(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(64, np.float32), "w")
    other = numpy_helper.from_array(np.ones(64, np.float32), "v")
    path = tmp_path / "model.onnx"
    onnx.save_model(
        _model(values, other),
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
        convert_attribute=True,
    )
    files = external_files(path)
    assert set(files) == {entry.name for entry in tmp_path.iterdir()} - {"model.onnx"}
    assert len(files) == 2


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
@pytest.mark.parametrize("version", [1, 17, 300])
def test_tells_the_version_of_onnx_s_own_operators(
    domain: str, version: int, tmp_path: Path
) -> None:
    values = numpy_helper.from_array(np.ones(64, np.float32), "w")
    model = _model(values, values)
    del model.opset_import[:]
    model.opset_import.extend(
        [helper.make_opsetid("com.microsoft", 999), helper.make_opsetid(domain, version)]
    )
    assert opset(written(tmp_path, model.SerializeToString())) == version
    del model.opset_import[1:]
    assert opset(written(tmp_path, model.SerializeToString())) == 0


@given(junk=st.binary(max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_strange_operator_set_is_no_version_and_no_error(junk: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, field(8, junk) + in_graph(tensor(b"w.bin")))
    assert opset(path) >= 0
    assert external_files(path) == ("w.bin",)


def test_a_model_with_its_weights_inside_reads_nothing_else(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(64, np.float32), "w")
    path = tmp_path / "model.onnx"
    onnx.save_model(_model(values, values), str(path))
    assert external_files(path) == ()


@pytest.mark.parametrize(
    "data",
    [
        in_graph(tensor(b"w")),
        field(7, field(15, field(1, tensor(b"w")))),
        field(7, field(15, field(2, tensor(b"w")))),
        field(7, field(1, field(5, field(5, tensor(b"w"))))),
        field(7, field(1, field(5, field(6, field(5, tensor(b"w")))))),
        field(7, field(1, field(5, field(10, tensor(b"w"))))),
        field(7, field(1, field(5, field(11, field(5, tensor(b"w")))))),
        field(7, field(1, field(5, field(22, field(1, tensor(b"w")))))),
        field(7, field(1, field(5, field(23, field(2, tensor(b"w")))))),
        field(25, field(7, field(5, field(5, tensor(b"w"))))) + field(7, b""),
        field(25, field(11, field(5, tensor(b"w")))) + field(7, b""),
        field(20, field(1, field(5, tensor(b"w")))) + field(7, b""),
    ],
)
def test_a_location_is_found_wherever_a_tensor_can_be(tmp_path: Path, data: bytes) -> None:
    assert external_files(written(tmp_path, data)) == ("w",)


def test_names_are_sorted_unique_and_plain(tmp_path: Path) -> None:
    locations = [b"z.bin", b"./a.bin", b"a.bin", b"sub/w.bin"]
    data = field(7, b"".join(field(5, tensor(location)) for location in locations))
    assert external_files(written(tmp_path, data)) == ("a.bin", "sub/w.bin", "z.bin")


def test_the_order_of_key_and_value_hides_nothing(tmp_path: Path) -> None:
    entry = field(13, field(2, b"w.bin") + field(1, b"offset") + field(1, b"location"))
    assert external_files(written(tmp_path, in_graph(entry))) == ("w.bin",)


@pytest.mark.parametrize(
    "location",
    [
        b"/etc/passwd",
        b"../w.bin",
        b"a/../../w.bin",
        b"",
        b".",
        b"a\\b",
        b"a\x00b",
        b"\xff",
        b"*/_ORT_MEM_ADDR_/*",
    ],
)
def test_a_location_outside_the_folder_is_refused(tmp_path: Path, location: bytes) -> None:
    path = written(tmp_path, in_graph(tensor(location)))
    with pytest.raises(ModelLoadError, match=r"^m keeps weights in .*save the model again"):
        external_files(path, "m")


def test_a_location_without_a_value_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, in_graph(field(13, field(1, b"location"))))
    with pytest.raises(ModelLoadError, match="not a file name"):
        external_files(path)


def test_a_link_may_stay_in_the_folder_but_not_leave_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"")
    (folder / "inside").symlink_to("data/w.bin")
    (folder / "leaves").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to("loop")
    assert external_files(written(folder, in_graph(tensor(b"inside")))) == ("inside",)
    with pytest.raises(ModelLoadError, match="a link that leaves"):
        external_files(written(folder, in_graph(tensor(b"leaves"))))
    with pytest.raises(ModelLoadError, match="cannot be followed"):
        external_files(written(folder, in_graph(tensor(b"loop"))))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "not an ONNX model"),
        (field(1, b"no graph"), "it holds no graph"),
        (in_graph(tensor(b"w.bin"))[:-3], "it ends within"),
        (field(7, b"\x2a\xff"), "does not end"),
        (b"\xff" * 11, "does not end"),
        (b"\x00\x00", "there is no field"),
        (b"\x0b", "has no known form"),
        (b"\x09\x00", "it ends within"),
    ],
)
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path, data: bytes, reason: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(ModelLoadError, match=reason):
        external_files(path)


def test_fields_of_fixed_size_and_numbers_are_stepped_over(tmp_path: Path) -> None:
    data = b"\x08\x96\x01" + b"\x11" + b"\0" * 8 + b"\x1d" + b"\0" * 4 + in_graph(tensor(b"w"))
    assert external_files(written(tmp_path, data)) == ("w",)


def test_nesting_has_a_limit(tmp_path: Path) -> None:
    graph = field(5, tensor(b"w"))
    for _ in range(40):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ModelLoadError, match="nested deeper than 100"):
        external_files(written(tmp_path, field(7, graph)))


def test_the_number_of_fields_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "MAX_FIELDS", 5)
    with pytest.raises(ModelLoadError, match="more than 5 fields"):
        external_files(written(tmp_path, field(7, field(1, b"") * 10)))


def test_a_missing_file_or_a_folder_is_said_to_be_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ModelLoadError, match="cannot read"):
            external_files(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.binary(max_size=100).map(in_graph)
    | st.binary(max_size=50).map(lambda data: in_graph(field(13, data)))
)
def test_no_bytes_raise_anything_else(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    try:
        files = external_files(path)
    except ModelLoadError:
        return
    for name in files:
        assert (tmp_path / name).resolve().is_relative_to(tmp_path)

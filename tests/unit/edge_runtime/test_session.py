"""ONNX Runtime behind our words, and the fake session that other tests use in its place."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper

from edge_runtime.datatypes import ALL, BF16, BY_NAME, BYTES, Datatype
from edge_runtime.errors import (
    EdgeRuntimeError,
    InvalidTensorError,
    ModelFailedError,
    ModelLoadError,
)
from edge_runtime.session import (
    CPU_PROVIDER,
    Session,
    SessionSettings,
    release_memory,
    select_providers,
)
from edge_runtime.tensors import VARIABLE, Array
from tests import models
from tests.daemons import eventually
from tests.fakes import FakeSession

SETTINGS = SessionSettings()
AnySession = Session | FakeSession
Make = Callable[[], AnySession]


def load(path: Path) -> Session:
    return Session.load(path, SETTINGS)


def rows(*values: float) -> Array:
    return np.array([[value, 2 * value] for value in values], "<f4").reshape(-1, 2)


# -- the contract of a session, real or fake ----------------------------------------------------


@pytest.fixture(params=["real", "fake"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "fake":
        return FakeSession
    path = models.two_inputs(tmp_path / "m.onnx")
    return lambda: load(path)


def test_session_says_what_it_takes_and_gives(make: Make) -> None:
    signature = make().signature
    assert [(each.name, each.datatype.name, each.shape) for each in signature.inputs] == [
        ("a", "FP32", (VARIABLE, 2)),
        ("b", "FP32", (VARIABLE, 2)),
    ]
    assert [*signature.outputs] == ["sum", "difference"]
    assert signature.batchable


@pytest.mark.parametrize("names", [["sum", "difference"], ["difference", "sum"], ["difference"]])
def test_outputs_come_in_the_order_of_the_names(make: Make, names: list[str]) -> None:
    outputs = make().run(names, {"a": rows(3, 5), "b": rows(1, 1)})
    expected = {"sum": [[4, 8], [6, 12]], "difference": [[2, 4], [4, 8]]}
    assert [output.tolist() for output in outputs] == [expected[name] for name in names]


def test_no_rows_give_no_rows(make: Make) -> None:
    (output,) = make().run(["sum"], {"a": rows(), "b": rows()})
    assert output.shape == (0, 2)


def test_feeds_are_neither_changed_nor_given_back(make: Make) -> None:
    feeds = {"a": rows(1), "b": rows(0)}
    for array in feeds.values():
        array.flags.writeable = False  # as views of a request's bytes are
    (output,) = make().run(["sum"], feeds)
    assert not any(np.shares_memory(output, array) for array in feeds.values())


def test_several_threads_run_one_session(make: Make) -> None:
    session = make()
    with ThreadPoolExecutor(4) as pool:
        sums = pool.map(lambda n: session.run(["sum"], {"a": rows(n), "b": rows(n)}), range(50))
    assert [output[0][0, 0] for output in sums] == [2 * n for n in range(50)]


def test_session_says_where_it_runs(make: Make) -> None:
    assert make().providers == (CPU_PROVIDER,)


def test_terminated_session_fails_and_says_so(make: Make) -> None:
    session = make()
    session.terminate()
    with pytest.raises(ModelFailedError):
        session.run(["sum"], {"a": rows(1), "b": rows(1)})


def test_closed_session_does_not_run(make: Make) -> None:
    session = make()
    session.close()
    with pytest.raises((AttributeError, AssertionError)):
        session.run(["sum"], {"a": rows(1), "b": rows(1)})


# -- every datatype -----------------------------------------------------------------------------


def example(datatype: Datatype) -> Array:
    if datatype is BYTES:
        return np.array([["a\0b", "😀"], ["", "é"]], object)
    size = 4 * datatype.size_bytes
    data = bytes(i % 2 for i in range(size)) if datatype.name == "BOOL" else os.urandom(size)
    return np.frombuffer(data, datatype.numpy).reshape(2, 2)


@pytest.mark.parametrize("datatype", ALL, ids=lambda each: each.name)
@pytest.mark.parametrize("count", [0, 2])
def test_every_datatype_passes_through_to_the_last_bit(
    datatype: Datatype, count: int, tmp_path: Path
) -> None:
    session = load(models.identity(tmp_path / "m.onnx", datatype.name))
    array = example(datatype)[:count]
    (output,) = session.run(["y"], {"x": array})
    assert output.shape == (count, 2)
    if datatype is BYTES:
        assert output.tolist() == array.tolist()
    else:
        assert output.tobytes() == array.tobytes()


def identities(path: Path, inputs: Sequence[Datatype]) -> Path:
    """Write a model of one Identity per datatype."""
    nodes = [helper.make_node("Identity", [each.name], [f"{each.name}_out"]) for each in inputs]
    ends = [models.value(each.name, each.name) for each in inputs]
    outputs = [models.value(f"{each.name}_out", each.name) for each in inputs]
    return models.save(path, nodes, ends, outputs)


def test_bf16_goes_together_with_every_datatype_but_strings(tmp_path: Path) -> None:
    others = [each for each in ALL if each is not BYTES]
    session = load(identities(tmp_path / "m.onnx", others))
    feeds = {each.name: example(each) for each in others}
    outputs = session.run([f"{name}_out" for name in feeds], feeds)
    for (name, fed), output in zip(feeds.items(), outputs, strict=True):
        assert output.tobytes() == fed.tobytes(), name


def test_model_of_strings_and_bf16_is_refused_with_the_way_to_fix_it(tmp_path: Path) -> None:
    path = identities(tmp_path / "m.onnx", [BYTES, BF16])
    with pytest.raises(ModelLoadError, match=r"m\.onnx: .* strings .* BF16 .* those are FP32"):
        load(path)


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "BYTES"])
def test_scalar_passes_through(datatype: str, tmp_path: Path) -> None:
    session = load(models.identity(tmp_path / "m.onnx", datatype, shape=()))
    array = example(BY_NAME[datatype])[0, 0:1].reshape(())
    (output,) = session.run(["y"], {"x": array})
    assert output.shape == ()
    assert output.item() == array.item() or output.tobytes() == array.tobytes()


def test_signature_tells_fixed_named_and_unnamed_axes_apart(tmp_path: Path) -> None:
    shape = ("batch", 3, None)
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in ("x", "y")
    ]
    (spec,) = load(models.save(tmp_path / "m.onnx", [node], ends[:1], ends[1:])).signature.inputs
    assert spec.shape == (VARIABLE, 3, VARIABLE)
    assert spec.symbols == ("batch", None, None)


# -- what cannot be loaded ----------------------------------------------------------------------


def zip_map(path: Path) -> Path:
    """Write what skl2onnx makes of a classifier by default."""
    node = helper.make_node(
        "ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    to = helper.make_sequence_type_proto(
        helper.make_map_type_proto(
            TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
    )
    output = helper.make_value_info("probabilities", to)
    graph = helper.make_graph([node], "test", [models.value("x")], [output])
    opsets = [helper.make_opsetid("", models.OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=models.IR_VERSION)
    path.write_bytes(model.SerializeToString())
    return path


def sequence(path: Path) -> Path:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 2])
    output = helper.make_value_info("list", helper.make_sequence_type_proto(tensor))
    node = helper.make_node("SequenceConstruct", ["x"], ["list"])
    return models.save(path, [node], [models.value("x")], [output])


def optional(path: Path) -> Path:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 2])
    entry = helper.make_value_info("maybe", helper.make_optional_type_proto(tensor))
    node = helper.make_node("OptionalGetElement", ["maybe"], ["y"])
    return models.save(path, [node], [entry], [models.value("y")])


@pytest.mark.parametrize(
    ("make_file", "message"),
    [
        (zip_map, r"m.onnx: output 'probabilities' is seq\(map.*zipmap': False.* ZipMap by defau"),
        (sequence, r"m.onnx: output 'list' is seq\(tensor\(float\)\), which is not a tensor"),
        (optional, r"m.onnx: input 'maybe' is optional\(tensor.*so that it is a plain tensor"),
    ],
)
def test_value_that_is_not_a_tensor_is_refused_with_the_way_to_fix_it(
    make_file: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    path = make_file(tmp_path / "m.onnx")
    with pytest.raises(ModelLoadError, match=message):
        load(path)


def unknown_operator(path: Path) -> Path:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="ai.onnx.ml")
    return models.save(path, [node], [models.value("x")], [models.value("y")])


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a\x3a\x00", None])
def test_file_that_is_not_a_model_is_refused_by_its_name(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"cannot load m\.onnx: ") as raised:
        load(path)
    assert "ONNXRuntimeError" not in raised.value.message
    assert "\n" not in raised.value.message


def test_operator_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="Frobnicate"):
        load(unknown_operator(tmp_path / "m.onnx"))


def test_model_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.ir_version = 999
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError, match="IR version"):
        load(path)


# -- what goes wrong while running --------------------------------------------------------------


def test_input_that_the_model_refuses_is_the_callers_error(tmp_path: Path) -> None:
    session = load(models.gather(tmp_path / "m.onnx"))
    with pytest.raises(EdgeRuntimeError, match=r"indices element out of data bounds") as raised:
        session.run(["y"], {"x": np.array([3], "<i8")})
    assert isinstance(raised.value, InvalidTensorError)
    assert "ONNXRuntimeError" not in raised.value.message
    assert ".cc" not in raised.value.message
    assert session.run(["y"], {"x": np.array([2], "<i8")})[0].tolist() == [30.0]


@pytest.mark.parametrize("datatype", ["FP32", "BF16"])
def test_whatever_is_fed_only_our_errors_leave(datatype: str, tmp_path: Path) -> None:
    session = load(models.identity(tmp_path / "m.onnx", datatype))
    wrong: list[dict[str, Array]] = [
        {},
        {"x": np.zeros((1, 3), "<f4")},
        {"x": np.zeros((1, 2), object)},
        {"x": np.zeros((1, 2), "<c16")},
    ]
    for feeds in wrong:
        with pytest.raises(EdgeRuntimeError):
            session.run(["y"], feeds)


# -- settings -----------------------------------------------------------------------------------


def test_missing_providers_are_left_out_and_told() -> None:
    wanted = ["CUDAExecutionProvider", CPU_PROVIDER, "NoSuchProvider"]
    assert select_providers(wanted) == (
        (CPU_PROVIDER,),
        ("CUDAExecutionProvider", "NoSuchProvider"),
    )


def test_cpu_provider_always_ends_the_list() -> None:
    other = next(
        name for name in onnxruntime.get_available_providers() if name != CPU_PROVIDER
    )  # the wheel has Azure's, which needs no hardware
    assert select_providers([CPU_PROVIDER, other, other]) == ((other, CPU_PROVIDER), ())
    assert select_providers([]) == ((CPU_PROVIDER,), ())


def test_only_options_that_change_results_belong_to_the_digest() -> None:
    plain = SessionSettings(intra_op_threads=4, memory_arena=True, options={"a": "1"})
    assert plain.result_options == {"a": "1"}
    precise = SessionSettings(precise_int8=True)
    assert precise.result_options == {"session.x64quantprecision": "1"}


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            print('telemetry', os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import edge_runtime.session\n"
    )
    clean = {key: text for key, text in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "telemetry 1"


def test_closed_session_leaves_no_thread(tmp_path: Path) -> None:
    def threads() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    path = models.two_inputs(tmp_path / "m.onnx")
    before = threads()
    session = Session.load(path, SessionSettings(intra_op_threads=4))
    started = threads() - before
    assert len(started) == 3  # the caller's own is the fourth
    session.close()
    # Linux lists a thread for a moment longer than whoever joins it waits.
    eventually(lambda: not started & threads(), "the end of its threads")


def test_closed_session_gives_its_memory_back(tmp_path: Path) -> None:
    path = models.slow(tmp_path / "m.onnx", size=2048, layers=1)  # 16 MiB of weights
    process = psutil.Process()
    release_memory()
    before = process.memory_info().rss
    session = load(path)
    session.run(["y"], {"x": np.zeros((1, 2048), "<f4")})
    grown = process.memory_info().rss - before
    session.close()
    release_memory()
    left = process.memory_info().rss - before
    assert grown > 16 * 2**20
    assert left < grown / 4

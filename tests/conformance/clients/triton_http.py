"""Triton's HTTP client against a daemon with the models of ``tests.protocol_models``.

Usage: triton_http.py HOST:PORT
"""

# ruff: noqa: ANN401 - the client's types are not in this environment

import sys
from typing import Any

import ml_dtypes
import numpy as np
from reporting import refused, report
from tritonclient import http
from tritonclient.utils import InferenceServerException

TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
TEXT = np.array([["é", "a\0b"], ["", "null"]], np.object_)


def example(name: str) -> Any:
    """Give an array of a datatype."""
    return TEXT if name == "BYTES" else np.array([[0, 1], [1, 0]]).astype(TYPES[name])


def entry(name: str, datatype: str, array: Any, *, binary: bool = True) -> Any:
    """Make an input."""
    made = http.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def pair(*, binary: bool = True) -> list[Any]:
    """Make the inputs of the model ``two``."""
    arrays = {"a": np.float32([[5, 6]]), "b": np.float32([[1, 2]])}
    return [entry(name, "FP32", array, binary=binary) for name, array in arrays.items()]


def equal(found: Any, array: Any) -> bool:
    """Compare; text comes back as bytes from binary and as str from JSON."""
    if array.dtype == np.object_:
        texts = [item.decode() if isinstance(item, bytes) else item for item in found.ravel()]
        return texts == array.ravel().tolist() and found.shape == array.shape
    return found.dtype == array.dtype and found.tobytes() == array.tobytes()


def check_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("two")
    assert client.is_model_ready("two", "1")
    assert not client.is_model_ready("two", "2")
    assert not client.is_model_ready("nobody")


def check_metadata(client: Any) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "edge-runtime"
    assert "binary_tensor_data" in server["extensions"]
    assert "cuda_shared_memory" not in server["extensions"]
    model = client.get_model_metadata("two", "1")
    assert model["name"] == "two"
    assert model["versions"] == ["1"]
    assert model["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": [-1, 2]}
    config = client.get_model_config("two")
    assert config["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": [2]}
    assert config["max_batch_size"] > 0


def check_every_datatype_in_binary(client: Any) -> None:
    for name in TYPES:
        array = example(name)
        result = client.infer(name, [entry("x", name, array)])
        assert equal(result.as_numpy("y"), array), name


def check_every_datatype_in_json(client: Any) -> None:
    outputs = [http.InferRequestedOutput("y", binary_data=False)]
    for name in TYPES.keys() - {"FP16", "BF16"}:
        array = example(name)
        result = client.infer(name, [entry("x", name, array, binary=False)], outputs=outputs)
        assert equal(result.as_numpy("y"), array), name


def check_half_precision_is_refused_in_json_answers(client: Any) -> None:
    outputs = [http.InferRequestedOutput("y", binary_data=False)]
    for name in ("FP16", "BF16"):
        inputs = [entry("x", name, example(name))]
        refused(
            lambda name=name, inputs=inputs: client.infer(name, inputs, outputs=outputs),
            InferenceServerException,
            f"output 'y' is {name}",
            "ask for binary",
        )


def check_empty_batch(client: Any) -> None:
    for name in ("FP32", "BYTES"):
        array = example(name)[:0]
        result = client.infer(name, [entry("x", name, array)])
        assert result.as_numpy("y").shape == (0, 2), name


def check_requested_outputs(client: Any) -> None:
    result = client.infer("two", pair(), outputs=[http.InferRequestedOutput("difference")])
    assert result.as_numpy("difference").tolist() == [[4, 4]]
    assert result.as_numpy("sum") is None
    every = client.infer("two", pair(binary=False))
    assert every.as_numpy("sum").tolist() == [[6, 8]]
    assert every.as_numpy("difference").tolist() == [[4, 4]]


def check_mixed_outputs(client: Any) -> None:
    outputs = [
        http.InferRequestedOutput("sum", binary_data=False),
        http.InferRequestedOutput("difference", binary_data=True),
    ]
    result = client.infer("two", pair(), outputs=outputs)
    assert result.as_numpy("sum").tolist() == [[6, 8]]
    assert result.as_numpy("difference").tolist() == [[4, 4]]


def check_classification(client: Any) -> None:
    array = np.float32([[0.25, 0.5]])
    for binary in (False, True):
        output = http.InferRequestedOutput("y", binary_data=binary, class_count=2)
        result = client.infer("labelled", [entry("x", "FP32", array)], outputs=[output])
        expected = np.array([["0.500000:1:yes", "0.250000:0:no"]], np.object_)
        assert equal(result.as_numpy("y"), expected), binary


def check_id_version_and_parameters(client: Any) -> None:
    result = client.infer(
        "two",
        pair(),
        model_version="1",
        request_id="mine",
        priority=1,
        timeout=10_000_000,
        parameters={"custom": "x"},
    )
    answer = result.get_response()
    assert answer["id"] == "mine"
    assert (answer["model_name"], answer["model_version"]) == ("two", "1")


def check_many_at_once(client: Any) -> None:
    waiting = [client.async_infer("two", pair()) for _ in range(50)]
    for request in waiting:
        assert request.get_result().as_numpy("sum").tolist() == [[6, 8]]


def check_statistics(client: Any) -> None:
    def count() -> int:
        (stats,) = client.get_inference_statistics("two")["model_stats"]
        assert stats["version"] == "1"
        return int(stats["inference_stats"]["success"]["count"])

    before = count()
    client.infer("two", pair())
    assert count() == before + 1
    assert len(client.get_inference_statistics()["model_stats"]) > 1


def check_repository_index(client: Any) -> None:
    index = client.get_model_repository_index()
    assert {"name": "two", "version": "1", "state": "READY"} in index


def check_load_is_refused_at_the_data_door(client: Any) -> None:
    for change in (client.load_model, client.unload_model):
        raised = refused(lambda change=change: change("two"), InferenceServerException, "admin")
        assert "403" in str(raised.status())
    assert client.is_model_ready("two")


def check_errors_say_what_is_wrong(client: Any) -> None:
    array = np.float32([[1, 2]])
    wrong: list[tuple[str, list[Any], str, str]] = [
        ("nobody", [entry("x", "FP32", array)], "404", "there is no model 'nobody'"),
        ("FP32", [entry("z", "FP32", array)], "400", "missing 'x'; unknown 'z'"),
        ("FP32", [entry("x", "FP64", np.float64([[1, 2]]))], "400", "the model takes FP32"),
        ("FP32", [entry("x", "FP32", array[:, :1])], "400", "has shape [1, 1]"),
        ("BYTES", [entry("x", "BYTES", np.array([[b"\xff", b""]], np.object_))], "400", "UTF-8"),
    ]
    for model, inputs, status, words in wrong:
        raised = refused(
            lambda model=model, inputs=inputs: client.infer(model, inputs),
            InferenceServerException,
            words,
        )
        assert status in str(raised.status()), raised
        assert client.is_server_live()


def check_what_is_not_served_is_told(client: Any) -> None:
    refused(
        lambda: client.infer("two", pair(), sequence_id=1, sequence_start=True),
        InferenceServerException,
        "sequences are not served here",
    )
    refused(client.get_system_shared_memory_status, InferenceServerException, "nothing at")


def main() -> None:
    """Run every check on one client, as a program would."""
    client = http.InferenceServerClient(sys.argv[1], concurrency=8)
    report(globals(), lambda check: check(client))
    client.close()


if __name__ == "__main__":
    main()

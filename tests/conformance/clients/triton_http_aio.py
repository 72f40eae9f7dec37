"""Triton's asyncio HTTP client against a daemon with the models of ``tests.protocol_models``.

Usage: triton_http_aio.py HOST:PORT
"""

# ruff: noqa: ANN401 - the client's types are not in this environment

import asyncio
import sys
from typing import Any

import numpy as np
import tritonclient.http.aio as http
from reporting import report
from tritonclient.utils import InferenceServerException


def entry(name: str, array: Any, datatype: str = "FP32", *, binary: bool = True) -> Any:
    """Make an input."""
    made = http.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def pair(*, binary: bool = True) -> list[Any]:
    """Make the inputs of the model ``two``."""
    arrays = {"a": np.float32([[5, 6]]), "b": np.float32([[1, 2]])}
    return [entry(name, array, binary=binary) for name, array in arrays.items()]


async def check_health_and_metadata(client: Any) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("two")
    assert not await client.is_model_ready("nobody")
    assert (await client.get_server_metadata())["name"] == "edge-runtime"
    assert (await client.get_model_metadata("two"))["platform"] == "onnxruntime_onnx"
    assert (await client.get_model_config("two"))["backend"] == "onnxruntime"
    assert (await client.get_inference_statistics("two"))["model_stats"]
    assert await client.get_model_repository_index()


async def check_infer_in_both_encodings(client: Any) -> None:
    for binary in (False, True):
        outputs = [http.InferRequestedOutput("sum", binary_data=binary)]
        result = await client.infer("two", pair(binary=binary), outputs=outputs)
        assert result.as_numpy("sum").tolist() == [[6, 8]]


async def check_large_tensor(client: Any) -> None:
    array = np.arange(2_000_000, dtype=np.float32).reshape(-1, 2)
    result = await client.infer("FP32", [entry("x", array)])
    assert result.as_numpy("y").tobytes() == array.tobytes()


async def check_many_at_once(client: Any) -> None:
    results = await asyncio.gather(*(client.infer("two", pair()) for _ in range(50)))
    assert all(result.as_numpy("sum").tolist() == [[6, 8]] for result in results)


async def check_error_says_what_is_wrong(client: Any) -> None:
    try:
        await client.infer("nobody", pair())
    except InferenceServerException as error:
        assert "there is no model 'nobody'" in str(error)  # noqa: PT017 - not a pytest test
    else:
        raise AssertionError


async def main() -> None:
    """Run every check on one client, as a program would."""
    loop = asyncio.get_running_loop()
    client = http.InferenceServerClient(sys.argv[1], conn_limit=8)
    checks = {name: check for name, check in globals().items() if name.startswith("check_")}
    # The report calls plainly: each check is run to its end on this loop's thread by a task.
    tasks = {check: loop.create_task(check(client)) for check in checks.values()}
    await asyncio.wait(tasks.values())
    report(checks, lambda check: tasks[check].result())
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())

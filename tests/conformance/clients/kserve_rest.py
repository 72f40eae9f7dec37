"""KServe's REST client against a daemon with the models of ``tests.protocol_models``.

Usage: kserve_rest.py URL [SOCKET]: with a socket, the same over httpx's Unix socket transport.
"""

# ruff: noqa: ANN401 - the client's types are not in this environment

import asyncio
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from reporting import report


def inputs(*, binary: bool) -> list[Any]:
    """Make the inputs of the model ``two``."""
    made = []
    for name, row in (("a", [5, 6]), ("b", [1, 2])):
        array = np.array([row], np.float32)
        entry = InferInput(name=name, shape=[1, 2], datatype="FP32")
        entry.set_data_from_numpy(array, binary_data=binary)
        made.append(entry)
    return made


async def check_health(client: Any, url: str) -> None:
    assert await client.is_server_live(url) is True
    assert await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, "two") is True
    assert await client.is_model_ready(url, "nobody") is False


async def check_infer_in_json(client: Any, url: str) -> None:
    request = InferRequest("two", inputs(binary=False), request_id="mine")
    answer = await client.infer(url, request, model_name="two")
    assert (answer.id, answer.model_name) == ("mine", "two")  # it does not read the version
    assert [output.name for output in answer.outputs] == ["sum", "difference"]
    assert answer.outputs[0].as_numpy().tolist() == [[6, 8]]


async def check_infer_in_binary(client: Any, url: str) -> None:
    parameters = {"binary_data_output": True}
    request = InferRequest("two", inputs(binary=True), parameters=parameters)
    answer = await client.infer(url, request, model_name="two")
    assert answer.outputs[0].as_numpy().tolist() == [[6, 8]]
    assert answer.outputs[1].as_numpy().tolist() == [[4, 4]]


async def check_half_precision(client: Any, url: str) -> None:
    array = np.array([[0.5, np.inf]], np.float16)
    entry = InferInput(name="x", shape=[1, 2], datatype="FP16")
    entry.set_data_from_numpy(array, binary_data=True)
    request = InferRequest("FP16", [entry], parameters={"binary_data_output": True})
    answer = await client.infer(url, request, model_name="FP16")
    assert answer.outputs[0].as_numpy().tolist() == array.tolist()


async def check_plain_dictionary(client: Any, url: str) -> None:
    entry = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}
    answer = await client.infer(url, {"inputs": [entry]}, model_name="FP32")
    assert answer.outputs[0].data == [1, 2, 3, 4]


async def check_text(client: Any, url: str) -> None:
    entry = InferInput(name="x", shape=[1, 2], datatype="BYTES")
    entry.set_data_from_numpy(np.array([["é", "null"]], np.object_), binary_data=False)
    answer = await client.infer(url, InferRequest("BYTES", [entry]), model_name="BYTES")
    assert answer.outputs[0].data == ["é", "null"]


async def check_error_says_what_is_wrong(client: Any, url: str) -> None:
    for model, words in (("nobody", "there is no model 'nobody'"), ("FP32", "unknown 'a', 'b'")):
        try:
            await client.infer(url, InferRequest(model, inputs(binary=False)), model_name=model)
        except httpx.HTTPStatusError as error:
            assert words in str(error), error  # noqa: PT017 - not a pytest test
        else:
            raise AssertionError(model)


async def main(url: str, socket: str | None) -> None:
    """Run every check on one client, as a program would."""
    transport = httpx.AsyncHTTPTransport(uds=socket) if socket else None
    client = InferenceRESTClient(RESTConfig(transport=transport, protocol="v2"))
    checks = {name: check for name, check in globals().items() if name.startswith("check_")}
    loop = asyncio.get_running_loop()
    tasks = {check: loop.create_task(check(client, url)) for check in checks.values()}
    await asyncio.wait(tasks.values())
    report(checks, lambda check: tasks[check].result())
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))

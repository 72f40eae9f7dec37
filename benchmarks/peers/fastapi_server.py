"""The denominator of every "x FastAPI" in this project: FastAPI, pydantic and uvicorn.

Written as a good FastAPI engineer would: ``async def`` (the model is short, a thread would cost
more), the models loaded once, bodies checked by pydantic, answers serialised by pydantic straight
to JSON bytes. ``benchmarks.servers`` runs it with one worker, uvloop, httptools and no access log.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from benchmarks.peers import MODELS_VARIABLE
from benchmarks.session import open_session

DATATYPES: Final[Mapping[str, str]] = {
    "FP32": "float32",
    "FP64": "float64",
    "INT32": "int32",
    "INT64": "int64",
}
NAMES: Final[Mapping[str, str]] = {dtype: name for name, dtype in DATATYPES.items()}


class InputTensor(BaseModel):
    """One input of a request; ``data`` is flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[float]


class OutputTensor(BaseModel):
    """One output of an answer."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferRequest(BaseModel):
    """The body of an inference request (Open Inference Protocol v2)."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[InputTensor]


class InferResponse(BaseModel):
    """The body of an answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class Ready(BaseModel):
    """The body of a readiness answer."""

    ready: bool


def create_app() -> FastAPI:
    """Make the application; the models come from the environment."""
    app = FastAPI()
    pairs = (pair.split("=", 1) for pair in os.environ[MODELS_VARIABLE].split(";"))
    sessions = {name: open_session(path) for name, path in pairs}
    outputs = {
        name: [output.name for output in session.get_outputs()]
        for name, session in sessions.items()
    }

    @app.get("/v2/health/ready")
    async def ready() -> Ready:
        return Ready(ready=True)

    @app.post("/v2/models/{name}/infer", response_model_exclude_none=True)
    async def infer(name: str, body: InferRequest) -> InferResponse:
        session = sessions.get(name)
        if session is None:
            raise HTTPException(404, f"no model {name!r}")
        try:
            feeds = {
                tensor.name: np.array(tensor.data, DATATYPES[tensor.datatype]).reshape(tensor.shape)
                for tensor in body.inputs
            }
        except (KeyError, ValueError) as error:
            raise HTTPException(400, f"inputs: {error}") from error
        results = session.run(None, feeds)
        return InferResponse(
            model_name=name,
            model_version="1",
            id=body.id,
            outputs=[
                OutputTensor(
                    name=output,
                    shape=list(array.shape),
                    datatype=NAMES[array.dtype.name],
                    data=array.ravel().tolist(),
                )
                for output, array in zip(outputs[name], results, strict=True)
            ],
        )

    return app

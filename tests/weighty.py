"""Real daemons whose models are heavy enough to be seen in the memory of a process."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.daemons import Answer, Daemon, daemon
from tests.models import save, value
from tests.wire import numbers

MIB = 1 << 20
MODEL_MIB = 24
SLACK_BYTES = 6 * MIB  # what requests themselves leave behind
X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [10, 20]}
#: Nothing but the models themselves takes memory or time.
PLAIN = {
    "EDGE_RUNTIME__BATCHING__ENABLED": "false",
    "EDGE_RUNTIME__ENGINE__GRAPH_CACHE_BYTES": "0",
}


def weighty(path: Path, constant: float, mib: int = MODEL_MIB) -> Path:
    """``y = x + constant`` and a table of some MiB that ONNX Runtime cannot leave out."""
    table = np.full((mib * MIB // 8, 2), constant, np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["y"]),
    ]
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    tensors = [zero, numpy_helper.from_array(table, "table")]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def memory(running: Daemon, what: str) -> int:
    """Read ``Rss`` or ``Pss`` of a daemon, in bytes."""
    rollup = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text("ascii")
    line = next(line for line in rollup.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


def state(running: Daemon, name: str, version: str = "1") -> tuple[str, str]:
    entries = running.request("POST", "/v2/repository/index").json()
    return next(
        (entry["state"], entry.get("reason", ""))
        for entry in entries
        if (entry["name"], entry["version"]) == (name, version)
    )


def adds(running: Daemon, model: str) -> float:
    """Give what a model adds."""
    return numbers(running.infer(model, [X]))[0] - 10


def load(running: Daemon, name: str, what: str = "load") -> Answer:
    return running.request("POST", f"/v2/repository/models/{name}/{what}", admin=True)


def swap_of(running: Daemon, name: str = "m") -> str:
    text: str = running.request("GET", f"/v2/models/{name}").json()["properties"]["swap"]
    return text


def in_memory(running: Daemon, name: str) -> bool:
    return state(running, name) == ("READY", "")


class Sizes(NamedTuple):
    """What a daemon on this machine holds, in bytes.

    Attributes:
        own: With no model in memory, once it has run some.
        model: One model of ``MODEL_MIB`` more.
    """

    own: int
    model: int


@contextlib.contextmanager
def lazy(
    root: Path,
    constants: Mapping[str, float],
    budget_bytes: int = 0,
    settings: str = 'load = "request"',
    environment: Mapping[str, str] = PLAIN,
) -> Iterator[Daemon]:
    """Run a daemon whose models, of ``MODEL_MIB`` each, all have the same settings."""
    lines = [f"engine.memory_budget_bytes = {budget_bytes}"]
    for name, constant in constants.items():
        path = weighty(root / f"{name}.onnx", constant)
        lines += [f"[models.{name}]", f"path = '{path}'", settings]
    config = root / "c.toml"
    config.write_text("\n".join(lines), "utf-8")
    with daemon("--config", str(config), environment=environment) as running:
        yield running


def measure(root: Path) -> Sizes:
    """Look what a daemon holds on this machine."""
    with lazy(root, {"m": 1.0, "n": 2.0}) as running:
        assert adds(running, "m") == 1.0
        one = memory(running, "Rss")
        assert adds(running, "n") == 2.0
        model = memory(running, "Rss") - one
        return Sizes(one - model, model)

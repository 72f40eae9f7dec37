"""The models that TensorFlow Serving's documents speak of, and some for what they do not say."""

from pathlib import Path

from onnx import TensorProto, helper

from tests import models
from tests.protocol_models import write_repository


def write_configuration(root: Path) -> Path:
    """Write a repository with every model of this file, and of ``protocol_models``.

    ``three`` has the versions 1, 2, 10 and one that cannot be loaded, and the label ``first``.
    """
    folder = root / "models"
    write_repository(folder)
    half_plus_three(folder / "half_plus_three" / "123" / "model.onnx")
    sensors(folder / "sensors" / "1" / "model.onnx")
    strings(folder / "strings" / "1" / "model.onnx")
    uneven(folder / "uneven" / "1" / "model.onnx")
    for number in (1, 2, 10):
        half_plus_three(folder / "three" / str(number) / "model.onnx", float(number))
    broken = folder / "three" / "11" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(b"no model")
    config = root / "c.toml"
    config.write_text(
        f"repositories = ['{folder}']\n[models.three]\naliases = {{ first = 1 }}\n"
        "version_policy = { all = true }\n"
    )
    return config


def half_plus_three(path: Path, offset: float = 3.0) -> Path:
    """``y = x / 2 + 3``, FP32 ``[batch]``: the model of TensorFlow Serving's documents."""
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["m"]),
        helper.make_node("Add", ["m", "c"], ["y"]),
    ]
    constants = [
        helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5]),
        helper.make_tensor("c", TensorProto.FLOAT, [1], [offset]),
    ]
    ends = [models.value("x", shape=("batch",))], [models.value("y", shape=("batch",))]
    return models.save(path, nodes, *ends, constants)


def sensors(path: Path) -> Path:
    """Three named inputs of three shapes, given back as they are: the documents' other example."""
    ends: list[tuple[str, str, models.Shape]] = [
        ("tag", "BYTES", ("n",)),
        ("signal", "FP32", ("n", 5)),
        ("sensor", "INT64", ("n", 2, 2)),
    ]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in ends]
    outputs = [models.value(f"{name}_out", datatype, shape) for name, datatype, shape in ends]
    return models.save(path, nodes, [models.value(*each) for each in ends], outputs)


def strings(path: Path) -> Path:
    """Strings given back twice: as text and, by its name, as bytes."""
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("text", "text_bytes")]
    outputs = [models.value(name, "BYTES", ("n",)) for name in ("text", "text_bytes")]
    return models.save(path, nodes, [models.value("x", "BYTES", ("n",))], outputs)


def uneven(path: Path) -> Path:
    """Two outputs whose first axes differ: ``[n, 2]`` and its transpose."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
    ]
    outputs = [models.value("y"), models.value("t", shape=(2, "batch"))]
    return models.save(path, nodes, [models.value("x")], outputs)

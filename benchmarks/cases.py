"""What is asked of the servers: request bodies and the answers they must give.

Made once by a child process (``python -m benchmarks.cases FOLDER``), because it needs numpy and
ONNX Runtime and the process that measures must not; everybody else reads the files.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Images = npt.NDArray[np.float32]

DIGITS: Final = "digits"
THUMBNAIL: Final = "thumbnail"
PICTURES: Final = ("squeezenet", "resnet50")
"""Take pictures of full size."""

MODELS_FILE: Final = "models.json"

_EXAMPLES: Final = Path(__file__).parents[1] / "examples" / "digits"
_DIGIT_COUNT: Final = 16
_PICTURE_COUNT: Final = 4
_TILE_SIDE: Final = 28
_DECIMALS: Final = 6
"""Digits after the point in JSON bodies; the tensors are rounded to them before use."""


def prepare(folder: Path) -> None:
    """Write model files, request bodies and expected answers.

    Args:
        folder: The cache folder; networks made earlier are kept.
    """
    import numpy as np  # noqa: PLC0415

    from benchmarks.networks import network  # noqa: PLC0415

    models = {DIGITS: _EXAMPLES / "digits-int8.onnx"}
    models |= {name: network(name, folder) for name in (*PICTURES, THUMBNAIL)}
    with np.load(_EXAMPLES / "test.npz") as data:
        _write_case(folder, DIGITS, models[DIGITS], data["image"][:_DIGIT_COUNT])
    for name in PICTURES:
        _write_case(folder, name, models[name], _pictures(_PICTURE_COUNT))
    thumbnails = _pictures(_PICTURE_COUNT)[:, :, ::_TILE_SIDE, ::_TILE_SIDE]
    _write_case(folder, THUMBNAIL, models[THUMBNAIL], thumbnails)
    paths = {name: str(path) for name, path in models.items()}
    (folder / MODELS_FILE).write_text(json.dumps(paths), "utf-8")


def _pictures(count: int) -> "Images":
    """Draw coarse coloured tiles under fine noise, 1x3x224x224 each, between 0 and 1."""
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(7)
    tiles = np.kron(rng.random((count, 3, 8, 8)), np.ones((1, 1, _TILE_SIDE, _TILE_SIDE)))
    noise = rng.random((count, 3, 224, 224))
    return np.round(0.8 * tiles + 0.2 * noise, _DECIMALS).astype(np.float32)


def _write_case(folder: Path, name: str, model: Path, images: "Images") -> None:
    """Write one model's requests, a row each, and what an in-process session answers."""
    from benchmarks.session import open_session  # noqa: PLC0415

    session = open_session(model)
    tensor = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    target = folder / "cases" / name
    target.mkdir(parents=True, exist_ok=True)
    expected: list[dict[str, list[float]]] = []
    header_bytes = 0
    for index, image in enumerate(images):
        row = image[None]
        described: dict[str, Any] = {"name": tensor, "shape": row.shape, "datatype": "FP32"}
        numbers = [round(value, _DECIMALS) for value in row.ravel().tolist()]
        text = _compact({"inputs": [described | {"data": numbers}]})
        (target / f"json-{index}.body").write_bytes(text)
        parameters = {"binary_data_size": row.nbytes}
        header = _compact(
            {
                "parameters": {"binary_data_output": True},
                "inputs": [described | {"parameters": parameters}],
            }
        )
        header_bytes = len(header)
        (target / f"binary-{index}.body").write_bytes(header + row.tobytes())
        results = session.run(None, {tensor: row})
        expected.append(
            {key: array.ravel().tolist() for key, array in zip(outputs, results, strict=True)}
        )
    facts = {"header_bytes": header_bytes, "expected": expected, "input": tensor}
    facts |= {"shape": images[:1].shape}
    (target / "case.json").write_text(json.dumps(facts), "utf-8")


def _compact(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """Write JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))

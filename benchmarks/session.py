"""The one-thread session that every contender but the daemon opens, so that all are equal."""

from pathlib import Path
from typing import Any

import onnxruntime


def open_session(path: Path | str) -> Any:  # noqa: ANN401 - onnxruntime is untyped for mypy here
    """Open a model with one thread a run and no spinning, otherwise as anybody would.

    Args:
        path: The ONNX file.

    Returns:
        An ``onnxruntime.InferenceSession``.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

"""The only import of ONNX Runtime's sessions in this program: load a model file, and run it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self

# ONNX Runtime's Linux wheels report usage over the network unless this is set before the import
# (its docs/Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

from edge_runtime.datatypes import BF16, BY_ORT, BYTES
from edge_runtime.errors import ModelLoadError
from edge_runtime.external_data import external_files
from quantize.errors import StepFailedError
from quantize.signature import Array, Signature, TensorInfo

Level = Literal["all", "basic", "none"]

RUNTIME_VERSION: Final[str] = onnxruntime.__version__
SATURATION_SAFE: Final[Mapping[str, str]] = MappingProxyType({"session.x64quantprecision": "1"})
"""Session option that keeps U8S8 products exact on x86 CPUs without VNNI, at the price of time."""

WEIGHTS_SUFFIX: Final = ".data"
"""What is put behind a model file's name for the file of its external weights."""

_NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})
_LOG_FATAL: Final = 4  # errors are raised and translated here; printing them too says it twice
_ONE_FILE_BYTES_MAX: Final = 3 << 29  # 1.5 GB: protobuf ends at 2, and a rewritten graph may grow
_MESSAGE_CHARACTERS_MAX: Final = 500
_WEIGHTS_NAME: Final = "session.optimized_model_external_initializers_file_name"
_WEIGHTS_LEAST: Final = "session.optimized_model_external_initializers_min_size_in_bytes"
_SOURCE_PATHS: Final = re.compile(r"/\S*/onnxruntime/\S+:\d+ ?")  # of the machine that built it
_LEVELS: Final = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

# Sessions that ONNX Runtime's own quantisers open have no other way to be told.
onnxruntime.set_default_logger_severity(_LOG_FATAL)


class Runner:
    """A loaded model; closes itself at the end of a ``with``.

    Attributes:
        name: Of its file, for messages.
        signature: What the model takes and gives.
    """

    def __init__(self, session: Any, name: str, profile: Path | None) -> None:  # noqa: ANN401 - untyped library
        self._session = session
        self._profile = profile
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _LOG_FATAL
        self.name = name
        self.signature = Signature(
            tuple(_tensor(node, "input", name) for node in session.get_inputs()),
            tuple(_tensor(node, "output", name) for node in session.get_outputs()),
        )
        self._every = [output.name for output in self.signature.outputs]

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Compute outputs.

        Args:
            feeds: An array for every input, by its name.
            outputs: Names of the outputs to give back; ``None``: all.

        Returns:
            Outputs by name, in the order asked for.

        Raises:
            StepFailedError: ONNX Runtime refused the arrays or failed on the way.
        """
        names = self._every if outputs is None else list(outputs)
        try:
            arrays: list[Array] = self._session.run(names, feeds, self._options)
        except Exception as error:  # onnxruntime's errors share no base
            raise StepFailedError(f"{self.name}: a run failed: {one_line(error)}") from error
        return dict(zip(names, arrays, strict=True))

    def close(self) -> None:
        """Let go of the model's memory and write the profile; doing it twice does nothing."""
        session, self._session = self._session, None
        if session is not None and self._profile is not None:
            # ONNX Runtime adds the time to the name it is given.
            Path(session.end_profiling()).replace(self._profile)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_runner(
    path: Path,
    *,
    threads: int = 1,
    optimize: Level = "all",
    options: Mapping[str, str] = _NO_OPTIONS,
    profile: Path | None = None,
) -> Runner:
    """Load a model for the CPU, as the daemon would: threads that do not spin, arena on.

    Args:
        path: ONNX file; external weights are found beside it.
        threads: Threads of one run.
        optimize: How far ONNX Runtime rewrites the graph while it loads.
        options: More session configuration entries.
        profile: Where ``close`` leaves a JSON profile of every node's time; ``None``: none.

    Raises:
        StepFailedError: The file is missing or cannot be loaded, or gives or takes what is not a
            plain tensor; one line that names the file.
    """
    settings = _session_options(threads, optimize, options)
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile)
    return Runner(_session(path, settings, "load"), path.name, profile)


def optimized_copy(path: Path, destination: Path, level: Literal["basic"] = "basic") -> None:
    """Save a model as ONNX Runtime rewrites it, in operators that every CPU has.

    Higher levels fuse into operators of the CPU they run on, so they are not offered.

    Args:
        path: ONNX file.
        destination: File to write. Weights of a model that one file cannot hold go beside it,
            into a file with ``.data`` behind its name.
        level: ``basic``: constant folding, redundant nodes, fusions that need no special operator.

    Raises:
        StepFailedError: The model cannot be loaded or written; nothing is left at
            ``destination``.
    """
    weights = destination.with_name(destination.name + WEIGHTS_SUFFIX)
    options = {}
    if _stored_bytes(path) > _ONE_FILE_BYTES_MAX:
        options = {_WEIGHTS_NAME: weights.name, _WEIGHTS_LEAST: "1024"}
    settings = _session_options(1, level, options)
    settings.optimized_model_filepath = str(destination)
    try:
        _session(path, settings, "optimise")
    except BaseException:
        destination.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)
        raise


def one_line(error: Exception, folder: Path | None = None) -> str:
    """Put ONNX Runtime's text into one line, without source paths and status codes.

    Args:
        error: Anything it raised.
        folder: Of the files it was given: they are named without it, as reports travel.

    Returns:
        One line of at most 500 characters; never empty.
    """
    line = " ".join(str(error).split()) or type(error).__name__
    prefix, mark, rest = line.partition(" : ")
    if mark and prefix.startswith("[ONNXRuntimeError]"):
        line = rest.partition(" : ")[2].partition(" : ")[2] or rest
    if folder is not None:
        for named in {str(folder), str(folder.absolute()), str(folder.resolve())}:
            if os.path.isabs(named):  # noqa: PTH117 - a string
                line = line.replace(named.rstrip(os.sep) + os.sep, "")
    return _SOURCE_PATHS.sub("", line)[:_MESSAGE_CHARACTERS_MAX]


def _session_options(threads: int, level: Level, entries: Mapping[str, str]) -> Any:  # noqa: ANN401 - untyped library
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = _LEVELS[level]
    options.log_severity_level = _LOG_FATAL
    # Threads that spin for work take the cores that the other model of a comparison needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _session(path: Path, options: Any, doing: str) -> Any:  # noqa: ANN401 - untyped library
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base
        reason = one_line(error, path.parent)
        raise StepFailedError(f"cannot {doing} {path.name}: {reason}") from error


def _tensor(node: Any, what: str, file_name: str) -> TensorInfo:  # noqa: ANN401 - untyped library
    datatype = BY_ORT.get(node.type)
    if datatype is None or datatype is BF16:
        raise StepFailedError(
            f"{file_name}: {what} {node.name!r} is {node.type}, which numpy cannot hold; export "
            "the model so that it is a plain tensor (float32 in place of bfloat16)"
        )
    dtype = np.dtype(object if datatype is BYTES else datatype.numpy)
    # ONNX Runtime gives an int for a fixed axis, a name or None for a varying one.
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in node.shape)
    return TensorInfo(node.name, dtype, shape)


def _stored_bytes(path: Path) -> int:
    """Add up a model's file and its external weights; 0 where loading must say what is wrong."""
    try:
        files = [path, *(path.parent / name for name in external_files(path, path.name))]
        return sum(file.stat().st_size for file in files)
    except (OSError, ModelLoadError):
        return 0

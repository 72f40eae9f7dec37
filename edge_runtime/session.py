"""The only import of onnxruntime: load a model, run it, and say what went wrong in our words."""

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# ONNX Runtime's Linux wheels report usage over the network unless this is set before the import
# (its docs/Privacy.md). A daemon without a network needs no second reason.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

from edge_runtime.datatypes import BF16, BY_ORT, BYTES, Datatype
from edge_runtime.errors import (
    EdgeRuntimeError,
    InvalidTensorError,
    ModelFailedError,
    ModelLoadError,
)
from edge_runtime.mapped_weights import MappedWeights
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec

RUNTIME_VERSION: Final[str] = onnxruntime.__version__
CPU_PROVIDER: Final = "CPUExecutionProvider"
_WEIGHTS_NAME: Final = "session.optimized_model_external_initializers_file_name"
_LOG_FATAL: Final = 4  # errors are raised and translated here; printing them too says it twice

_source_paths: Final = re.compile(r"/\S*/onnxruntime/\S+:\d+ ")  # of the machine that built it

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a model is loaded.

    Attributes:
        providers: Execution providers in order of preference.
        intra_op_threads: Threads of one run, at least 1.
        memory_arena: Whether ONNX Runtime keeps freed memory for the next run.
        precise_int8: Whether to avoid the 16-bit saturation of U8S8 products on x86 CPUs without
            VNNI (``session.x64quantprecision``); changes results there, nothing elsewhere.
        options: Session configuration entries from the manifest.
    """

    providers: tuple[str, ...] = (CPU_PROVIDER,)
    intra_op_threads: int = 1
    memory_arena: bool = False
    precise_int8: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def result_options(self) -> dict[str, str]:
        """The options that can change results: they belong into a model's digest."""
        result = dict(self.options)
        if self.precise_int8:
            result["session.x64quantprecision"] = "1"
        return result


def select_providers(wanted: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose among the installed execution providers.

    Args:
        wanted: In order of preference.

    Returns:
        Those to use (the CPU provider always last), and those that are not installed.
    """
    installed = set(onnxruntime.get_available_providers())
    used = [name for name in dict.fromkeys(wanted) if name in installed and name != CPU_PROVIDER]
    missing = tuple(name for name in wanted if name not in installed)
    return (*used, CPU_PROVIDER), missing


class Session:
    """A loaded model. ``run`` may be called from several threads at once.

    Attributes:
        signature: What the model takes and gives, as its file declares.
        run: ``run(output_names, feeds)`` gives the outputs in that order; ``feeds`` fit the
            signature (``BF16`` as ``<u2``). Raises ``InvalidTensorError`` where ONNX Runtime
            blames the input's values, ``ModelFailedError`` for everything else.
        providers: The execution providers that really serve it.
    """

    __slots__ = ("_options", "_session", "_weights", "providers", "run", "signature")

    def __init__(self, session: Any, signature: Signature) -> None:  # noqa: ANN401 - untyped library
        self._session = session
        self._weights: MappedWeights | None = None
        # One object for every run: ONNX Runtime only reads it.
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _LOG_FATAL
        self.signature = signature
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        uses_bf16 = _uses_bf16((*signature.inputs, *signature.outputs.values()))
        self.run: Run = self._run_values if uses_bf16 else self._run_arrays

    @classmethod
    def load(
        cls,
        path: Path,
        settings: SessionSettings,
        *,
        is_optimized: bool = False,
        save_to: Path | None = None,
        weights_name: str = "",
    ) -> "Session":
        """Load a model file.

        Args:
            path: ONNX file; its external weights are found beside it.
            settings: How to load it.
            is_optimized: Whether its graph was saved by this version of ONNX Runtime on this CPU,
                and needs no optimisation.
            save_to: Where to save the optimised graph; ``None``: nowhere.
            weights_name: File beside it that the weights of an optimised graph are saved to, and
                mapped from; empty: whatever the graph says.

        Raises:
            ModelLoadError: The file is missing, is not a model, uses an operator that is not
                here, or gives something that is not a tensor; or the graph cannot be saved.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.enable_cpu_mem_arena = settings.memory_arena
        options.log_severity_level = _LOG_FATAL
        # Threads that spin for work keep a core hot between requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        for key, value in settings.result_options.items():
            options.add_session_config_entry(key, value)
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_DISABLE_ALL if is_optimized else levels.ORT_ENABLE_ALL
        )
        if save_to is not None:
            options.optimized_model_filepath = str(save_to)
            options.add_session_config_entry(_WEIGHTS_NAME, weights_name)
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=list(settings.providers)
            )
        except Exception as error:  # onnxruntime's errors share no base
            raise ModelLoadError(f"cannot load {path.name}: {_first_line(error)}") from error
        loaded = cls(session, _signature(session, path.name))
        if is_optimized and weights_name:
            with contextlib.suppress(OSError):  # it has none, or somebody removed them just now
                loaded._weights = MappedWeights(path.with_name(weights_name))
        return loaded

    def terminate(self) -> None:
        """Make runs that go on end after the node they are in; they and later ones fail."""
        self._options.terminate = True

    def close(self) -> None:
        """Let go of the model's memory; nothing may run any more."""
        weights, self._weights = self._weights, None
        if weights is not None:
            weights.drop_pages()
        del self._session
        del self.run
        if weights is not None:
            weights.close()

    def _run_arrays(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        try:
            outputs: list[Array] = self._session.run(names, feeds, self._options)
        except Exception as error:  # onnxruntime's errors share no base
            raise _run_error(error) from error
        return outputs

    def _run_values(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Run on OrtValues: numpy has no bfloat16, and plain ``run`` refuses it."""
        try:
            values = {
                spec.name: _ort_value(feeds[spec.name], spec.datatype)
                for spec in self.signature.inputs
            }
            outputs = self._session.run_with_ort_values(names, values, self._options)
            return [
                _array(value, self.signature.outputs[name].datatype)
                for name, value in zip(names, outputs, strict=True)
            ]
        except Exception as error:  # onnxruntime's errors share no base
            raise _run_error(error) from error


def release_memory() -> None:
    """Give freed heap pages back to the system; ONNX Runtime does not (its pull 32107)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _signature(session: Any, file_name: str) -> Signature:  # noqa: ANN401 - untyped library
    inputs = [_spec(node, "input", file_name) for node in session.get_inputs()]
    outputs = [_spec(node, "output", file_name) for node in session.get_outputs()]
    # BF16 runs on OrtValues only (_run_values), and those cannot be made of strings.
    if BYTES in {spec.datatype for spec in inputs} and _uses_bf16((*inputs, *outputs)):
        raise ModelLoadError(
            f"{file_name}: ONNX Runtime cannot feed strings to a model that has BF16 inputs or "
            "outputs; export the model so that those are FP32"
        )
    return Signature(inputs, outputs)


def _uses_bf16(specs: Sequence[TensorSpec]) -> bool:
    return any(spec.datatype is BF16 for spec in specs)


def _spec(node: Any, what: str, file_name: str) -> TensorSpec:  # noqa: ANN401 - untyped library
    datatype = BY_ORT.get(node.type)
    if datatype is None:
        advice = "export the model so that it is a plain tensor"
        if node.type.startswith("seq("):
            advice = (
                "for a scikit-learn classifier, convert with "
                "options={'zipmap': False} (skl2onnx makes a ZipMap by default)"
            )
        raise ModelLoadError(
            f"{file_name}: {what} {node.name!r} is {node.type}, which is not a tensor "
            f"that the protocol can carry; {advice}"
        )
    # ONNX Runtime gives an int for a fixed axis, a name or None for a varying one.
    shape = tuple(size if isinstance(size, int) and size >= 0 else VARIABLE for size in node.shape)
    symbols = tuple(size if isinstance(size, str) else None for size in node.shape)
    return TensorSpec(node.name, datatype, shape, symbols)


def _ort_value(array: Array, datatype: Datatype) -> Any:  # noqa: ANN401 - untyped library
    if datatype is BF16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, datatype.onnx)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _array(value: Any, datatype: Datatype) -> Array:  # noqa: ANN401 - untyped library
    if datatype is not BF16:
        array: Array = value.numpy()
        return array
    # numpy and DLPack both refuse bfloat16; the bits are copied out before the value is freed.
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.ndarray(tuple(value.shape()), datatype.numpy, raw)


def _run_error(error: Exception) -> EdgeRuntimeError:
    said = _first_line(error)
    failed: EdgeRuntimeError
    # The class is matched by name: the module that holds it is private.
    if type(error).__name__ == "InvalidArgument":
        failed = InvalidTensorError(f"the model refused the input: {said}")
    else:
        failed = ModelFailedError(f"the model failed while running: {said}")
    # Which node it was is in front; behind may be an index or a shape that an input held.
    node, mark, rest = said.partition("Status Message: ")
    failed.quoted = rest if mark else node
    return failed


def _first_line(error: Exception) -> str:
    """Take the sentence out of ONNX Runtime's text, without its source paths and status noise."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    prefix, separator, rest = line.partition(" : ")
    if separator and prefix.startswith("[ONNXRuntimeError]"):
        line = rest.partition(" : ")[2].partition(" : ")[2] or rest
    return _source_paths.sub("", line)[:500]

"""``edge-runtime bundle create``: a model file becomes a bundle that a device can judge."""

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from edge_runtime.bundle import bundle_from_directory, bundle_from_model_file, verify
from edge_runtime.cli.bundle_files import check_place, new_bundle
from edge_runtime.cli.bundle_goldens import answers_of, completed, read_given, tolerances
from edge_runtime.cli.signing import read_keys
from edge_runtime.cli.terminal import printable
from edge_runtime.digest import file_sha256
from edge_runtime.errors import ArtifactError, ConfigError
from edge_runtime.external_data import operators, opset
from edge_runtime.goldens import ENDING, Golden, check_outputs, encode
from edge_runtime.hardware import CpuFacts, cpu_facts
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Acceptance,
    Comparison,
    File,
    Manifest,
    Runtime,
    TensorDescription,
    Tolerance,
    Variant,
    write,
)
from edge_runtime.session import RUNTIME_VERSION, Session, SessionSettings
from edge_runtime.tensors import VARIABLE, Signature, TensorSpec
from edge_runtime.trust.signatures import write_signatures

VARIANT: Final = "as-is"
MODEL_FILE: Final = "model.onnx"
GOLDENS_FOLDER: Final = "goldens"
LABELS_BYTES_MAX: Final = 2**20


class _Made(NamedTuple):
    """What was written."""

    manifest: Manifest
    data: bytes
    computed: tuple[str, ...]


def create(options: argparse.Namespace) -> str:
    """Make a bundle.

    Args:
        options: Of the command.

    Returns:
        What was made, for a person.

    Raises:
        ConfigError: The options, the model, the data or the place are not good.
        ArtifactError: The model does not give what the goldens say.
    """
    output = Path(options.output)
    check_place(output, force=options.force)
    keys = read_keys(options.keys)
    labels = dict(_read_labels(options.labels))
    created = _created(os.environ)
    with new_bundle(output) as folder:
        with _as_bad_input():
            variant = _copied(Path(options.model), options.name, options.version, folder)
        made = _filled(folder, variant, labels, created, options)
        if keys:
            signatures = write_signatures(key.sign(made.data) for key in keys)
            (folder / SIGNATURE_FILE).write_bytes(signatures)
    return _summary(output, made, len(keys))


def _filled(
    folder: Path,
    variant: Variant,
    labels: Mapping[str, tuple[str, ...]],
    created: str,
    options: argparse.Namespace,
) -> _Made:
    """Run the model, and write goldens and manifest."""
    cpu = cpu_facts()
    with _as_bad_input():
        session = Session.load(folder / variant.file, session_settings(variant, cpu))
    try:
        signature = session.signature
        given = read_given(options.goldens, signature)
        goldens, computed = completed(given, session.run, signature)
        made_of = operators(folder / variant.file)
        allowed = tolerances(options.tolerance, goldens, signature, made_of)
        acceptance = Acceptance(
            tuple(_golden(each, folder) for each in goldens),
            allowed,
            None,
            options.latency_budget,
            options.memory_budget,
            _comparison(options.agreement_floor),
        )
        manifest = Manifest(
            name=options.name,
            version=options.version,
            created=created,
            inputs=tuple(_description(spec) for spec in signature.inputs),
            outputs=tuple(
                _description(spec, labels.get(name, ())) for name, spec in signature.outputs.items()
            ),
            variants=(variant,),
            runtime=Runtime(_release(), opset(folder / variant.file)),
            acceptance=acceptance,
        )
        _check_labels(labels, signature)
        _check_given(given, manifest, session)
    finally:
        session.close()
    with _as_bad_input():
        data = write(manifest)
        (folder / MANIFEST_FILE).write_bytes(data)
        verify(bundle_from_directory(folder, options.name))
    return _Made(manifest, data, computed)


def session_settings(variant: Variant, cpu: CpuFacts, threads: int = 1) -> SessionSettings:
    """Say how a daemon runs a variant on a CPU, with one thread unless more are asked for."""
    return SessionSettings(
        intra_op_threads=threads,
        precise_int8=cpu.arch == "x86_64" and not cpu.vnni,
        options=variant.session_options,
    )


@contextmanager
def _as_bad_input() -> Iterator[None]:
    """Files that were given to make a bundle of are input, and not yet somebody's release."""
    try:
        yield
    except ArtifactError as error:
        raise ConfigError(error.message) from error


def _copied(model: Path, name: str, version: int, folder: Path) -> Variant:
    """Copy the model and its external weights; what is described is the copy."""
    source = bundle_from_model_file(model, name, version)
    target = folder / VARIANT
    target.mkdir()
    shutil.copyfile(model, target / MODEL_FILE)
    copied = _described(target / MODEL_FILE, folder)
    weights = []
    for file in source.manifest.variants[0].files:
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        if (target / file.path).exists():
            raise ConfigError(
                f"{model} keeps weights in {file.path!r}, which is the model's own name in a "
                "bundle; rename them"
            )
        shutil.copyfile(model.parent / file.path, target / file.path)
        weights.append(_described(target / file.path, folder))
    return Variant(VARIANT, copied.path, copied.sha256, copied.size_bytes, tuple(weights))


def _golden(golden: Golden, folder: Path) -> File:
    path = folder / GOLDENS_FOLDER / f"{golden.name}{ENDING}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(golden))
    return _described(path, folder)


def _described(path: Path, folder: Path) -> File:
    return File(path.relative_to(folder).as_posix(), file_sha256(path), path.stat().st_size)


def _description(spec: TensorSpec, labels: tuple[str, ...] = ()) -> TensorDescription:
    return TensorDescription(spec.name, spec.datatype.name, spec.shape, labels=labels)


def _comparison(agreement_floor: float | None) -> Comparison:
    return Comparison() if agreement_floor is None else Comparison(agreement_floor)


def _check_given(given: Sequence[Golden], manifest: Manifest, session: Session) -> None:
    """Refuse goldens that this very model does not reach: no device would."""
    for golden in given:
        answers = answers_of(golden, session.run, [*session.signature.outputs])
        for check in check_outputs(golden, answers, manifest):
            if not check.passed:
                raise ArtifactError(
                    f"{check.sentence} on this machine; no device would take the bundle: give "
                    "other goldens, leave that output out of them, or a wider --tolerance"
                )


def _read_labels(asked: Sequence[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for output, file in asked:
        try:
            with Path(file).open("rb") as stream:
                data = stream.read(LABELS_BYTES_MAX + 1)
            text = data.decode("utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file} is not UTF-8 text") from error
        if len(data) > LABELS_BYTES_MAX:
            raise ConfigError(f"{file} has more than {LABELS_BYTES_MAX} bytes; is it a list?")
        yield output, tuple(line.strip() for line in text.splitlines() if line.strip())


def _check_labels(labels: Mapping[str, tuple[str, ...]], signature: Signature) -> None:
    for output, names in labels.items():
        spec = signature.outputs.get(output)
        if spec is None:
            raise ConfigError(
                f"--labels: {output!r} is not an output; there are {', '.join(signature.outputs)}"
            )
        size = spec.shape[-1] if spec.shape else 1
        if size not in {VARIABLE, len(names)}:
            raise ConfigError(
                f"--labels: {output!r} has {size} classes along its last axis, the file has "
                f"{len(names)} names"
            )


def _created(environment: Mapping[str, str]) -> str:
    """Give the time for the manifest: now, or what makes the bundle reproducible.

    Source:
        The specification of SOURCE_DATE_EPOCH of the Reproducible Builds project.
    """
    stated = environment.get("SOURCE_DATE_EPOCH", "")
    try:
        when = datetime.fromtimestamp(int(stated), UTC) if stated else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError("$SOURCE_DATE_EPOCH is not a number of seconds since 1970") from error
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _release() -> str:
    """Name the oldest ONNX Runtime that is known to run the model: this one's minor release."""
    return ".".join(RUNTIME_VERSION.split(".")[:2])


def _summary(output: Path, made: _Made, signatures: int) -> str:
    manifest = made.manifest
    size_bytes = sum(file.size_bytes for file in manifest.files())
    goldens = manifest.acceptance.goldens
    count = len(manifest.files())
    what = f"{manifest.name} version {manifest.version}"
    lines = [f"{output}: {what}, {count} files, {size_bytes} bytes"]
    if made.computed:
        lines.append(
            f"  outputs of {', '.join(made.computed)}: what the model answers here (onnxruntime "
            f"{RUNTIME_VERSION}, {cpu_facts().description})"
        )
    lines += [f"  tolerance of {_allowed(each)}" for each in manifest.acceptance.tolerances]
    if not goldens:
        lines.append("  no goldens: devices run it on made-up inputs and compare nothing")
    lines.append(f"  signed by {signatures} keys" if signatures else "  not signed")
    return "\n".join(printable(line) for line in lines)


def _allowed(tolerance: Tolerance) -> str:
    name = tolerance.output or "every output"
    if not tolerance.atol and not tolerance.rtol:
        return f"{name}: equal"
    return f"{name}: {tolerance.atol:g} + {tolerance.rtol:g} of the golden's value"

"""The bundle manifest: what a model version is, in the one format every program reads and writes.

The schema is the structs of ``manifest_schema``, all to be imported from here;
``python -m edge_runtime.manifest > docs/schemas/manifest.schema.json`` publishes it. Unknown
fields are ignored, so old devices read new manifests; what an old device must not ignore is named
in ``required_features``. A model file named by an operator gets a synthetic manifest in memory;
``check_complete`` tells a published one from it. Loads no numpy.
"""

import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edge_runtime.errors import ManifestError
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest_schema import (
    FEATURES,
    FILE_NAME,
    MANIFEST_FILE,
    MAX_BYTES,
    MAX_VERSION,
    MODEL_NAME,
    SCHEMA_VERSION,
    SESSION_OPTIONS,
    SIGNATURE_FILE,
    VERSION,
    WORDS,
    Acceptance,
    Accuracy,
    Batching,
    Comparison,
    Defaults,
    File,
    Manifest,
    Metric,
    Provenance,
    Requires,
    Runtime,
    TensorDescription,
    Tolerance,
    Variant,
)

__all__ = [
    "FEATURES",
    "MANIFEST_FILE",
    "MAX_BYTES",
    "MAX_VERSION",
    "MODEL_NAME",
    "SCHEMA_VERSION",
    "SESSION_OPTIONS",
    "SIGNATURE_FILE",
    "VERSION",
    "Acceptance",
    "Accuracy",
    "Batching",
    "Comparison",
    "Defaults",
    "File",
    "Manifest",
    "Metric",
    "Provenance",
    "Requires",
    "Runtime",
    "TensorDescription",
    "Tolerance",
    "Variant",
    "check_complete",
    "check_file_name",
    "check_model_name",
    "choose_variant",
    "json_schema",
    "parse_version",
    "read",
    "schema_text",
    "write",
]


class _Head(msgspec.Struct, frozen=True):
    """What decides whether the rest can be understood at all."""

    schema_version: Annotated[int, Meta(ge=1)] = SCHEMA_VERSION
    required_features: tuple[str, ...] = ()


def read(data: bytes, origin: str) -> Manifest:
    """Read a manifest and check all that can be checked without its files.

    Args:
        data: The file's exact bytes, at most ``MAX_BYTES``.
        origin: Where they come from, for messages.

    Raises:
        ManifestError: Not a manifest this program understands; the message names the field.
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(f"{origin}: over {MAX_BYTES} bytes, the limit for a manifest")
    try:
        text = data.decode("utf-8")
        head = msgspec.json.decode(text, type=_Head)
        if head.schema_version > SCHEMA_VERSION:
            raise ManifestError(
                f"{origin}: schema_version {head.schema_version} is newer than {SCHEMA_VERSION}, "
                "the newest this program reads; update it"
            )
        for feature in head.required_features:
            if feature not in FEATURES:
                raise ManifestError(
                    f"{origin}: needs the feature {feature!r}, which this program does not have; "
                    "update it"
                )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ManifestError(f"{origin}: {_in_words(str(error))}") from error
    except RecursionError as error:
        raise ManifestError(f"{origin}: nested too deeply for a manifest") from error
    problem = _contradiction(manifest)
    if problem:
        raise ManifestError(f"{origin}: {problem}")
    return manifest


def write(manifest: Manifest) -> bytes:
    """Write a manifest: the same bytes for the same manifest, ready to be signed.

    Raises:
        ManifestError: ``read`` would refuse the result, or read something else.
    """
    origin = f"manifest of {manifest.name} version {manifest.version}"
    try:
        compact = msgspec.json.encode(manifest, order="deterministic")
    except (TypeError, ValueError, OverflowError) as error:
        raise ManifestError(f"{origin}: cannot be written as JSON: {error}") from error
    data = msgspec.json.format(compact, indent=2) + b"\n"
    if read(data, origin) != manifest:
        raise ManifestError(f"{origin}: does not read back as itself; check the types of its parts")
    return data


def check_complete(manifest: Manifest, origin: str) -> None:
    """Check that a manifest states what a published bundle must: tensors, digests and sizes.

    Args:
        manifest: A manifest that ``read`` accepted.
        origin: Where it comes from, for messages.

    Raises:
        ManifestError: Something is missing; the message names it.
    """
    for field in ("variants", "inputs", "outputs"):
        if not getattr(manifest, field):
            raise ManifestError(f"{origin}: {field}: a published bundle must list them")
    for file in manifest.files():
        if not file.sha256 or not file.size_bytes:
            raise ManifestError(f"{origin}: {file.path}: needs its sha256 and size_bytes")


def check_model_name(name: str) -> None:
    """Check the rule for names of models.

    Raises:
        ManifestError: The name breaks it.
    """
    if not re.search(MODEL_NAME, name):
        raise ManifestError(f"{name!r} is not a model name: {WORDS[MODEL_NAME]}")


def check_file_name(name: str) -> None:
    """Check the rule for paths within a bundle.

    Raises:
        ManifestError: The path breaks it.
    """
    if not re.search(FILE_NAME, name):
        raise ManifestError(f"{name!r} is not {WORDS[FILE_NAME]}")


def parse_version(text: str) -> int:
    """Read a version as it stands on the wire and in folder names.

    Raises:
        ManifestError: Not a whole number from 1 to 2**63-1 without leading zeros.
    """
    if not re.search(VERSION, text) or int(text) > MAX_VERSION:
        raise ManifestError(f"{text!r} is not a version: a whole number from 1, no leading zeros")
    return int(text)


def choose_variant(manifest: Manifest, cpu: CpuFacts) -> tuple[Variant, str]:
    """Take the first variant whose requirements a CPU meets.

    Returns:
        The variant, and the reason in one sentence for a person.

    Raises:
        ManifestError: No variant runs on this CPU; says why for each.
    """
    passed_over: list[str] = []
    for variant in manifest.variants:
        lacks = _lacks(variant.requires, cpu)
        if lacks:
            passed_over.append(f"{variant.name} needs {' and '.join(lacks)}, which it lacks")
            continue
        needs = [word for word in (variant.requires.arch, *variant.requires.cpu_flags) if word]
        reasons = [f"needs {' and '.join(needs)}, which this CPU has"] if needs else []
        if passed_over:
            reasons.insert(0, f"the first of {len(manifest.variants)} variants this CPU can run")
        elif not needs:
            count = len(manifest.variants)
            reasons = [f"the first of {count} variants" if count > 1 else "the only variant"]
        return variant, f"{variant.name}: {'; '.join([*reasons, *passed_over])}"
    raise ManifestError(
        f"no variant of {manifest.name} version {manifest.version} runs on this CPU "
        f"({cpu.description}): {'; '.join(passed_over) or 'the manifest lists none'}"
    )


def json_schema() -> dict[str, Any]:
    """Build the published JSON Schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Edge Runtime bundle manifest",
        **msgspec.json.schema(Manifest),
    }


def schema_text() -> str:
    """Write the JSON Schema as the file ``docs/schemas/manifest.schema.json`` holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=True) + "\n"


def _lacks(requires: Requires, cpu: CpuFacts) -> list[str]:
    """List what a CPU lacks of what a variant requires."""
    has = cpu.flags | ({"vnni"} if cpu.vnni else frozenset())
    arch = [requires.arch] if requires.arch not in {"", cpu.arch} else []
    return arch + [flag for flag in requires.cpu_flags if flag not in has]


def _contradiction(manifest: Manifest) -> str:
    """Return what is wrong across fields, or nothing."""
    outputs = [tensor.name for tensor in manifest.outputs]
    tolerances = [tolerance.output for tolerance in manifest.acceptance.tolerances]
    for field, names in (
        ("inputs", [tensor.name for tensor in manifest.inputs]),
        ("outputs", outputs),
        ("variants", [variant.name for variant in manifest.variants]),
        ("acceptance.tolerances", tolerances),
    ):
        repeated = _repeated(names)
        if repeated is not None:
            return f"{field}: {repeated!r} is there twice"
    for name in tolerances if outputs else ():
        if name and name not in outputs:
            return f"acceptance.tolerances: {name!r} is not an output"
    for index, variant in enumerate(manifest.variants):
        for key in variant.session_options:
            if key not in SESSION_OPTIONS:
                return f"variants[{index}].session_options: {key!r} may not be set by a manifest"
    accuracy = manifest.provenance.accuracy
    if accuracy and not accuracy.low <= accuracy.value <= accuracy.high:
        return "provenance.accuracy: the value is not between low and high"
    try:
        datetime.fromisoformat(manifest.created or "2000-01-01")
    except ValueError as error:
        return f"created: {error}"
    return _file_contradiction(manifest)


def _file_contradiction(manifest: Manifest) -> str:
    """Return what is wrong across the named files, or nothing."""
    facts = {file.path: file for file in manifest.files()}
    named = [file for variant in manifest.variants for file in variant.reads()]
    for file in [*named, *manifest.acceptance.goldens]:
        if file != facts[file.path]:
            return f"{file.path}: named twice with different sha256 or size_bytes"
        if file.path in {MANIFEST_FILE, SIGNATURE_FILE}:
            return f"{file.path}: the manifest cannot name itself or its signature"
        parts = file.path.split("/")
        if any("/".join(parts[:length]) in facts for length in range(1, len(parts))):
            return f"{file.path}: another file has the name of its folder"
    return ""


def _repeated(names: Iterable[str]) -> str | None:
    """Return the first name that is there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _in_words(text: str) -> str:
    """Turn msgspec's ``... - at `$.variants[0].file``` into ``variants[0].file: ...``."""
    for pattern, words in WORDS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", words)
    message, separator, path = text.rpartition(" - at `$")
    if not separator:
        return text
    return f"{path.rstrip('`').lstrip('.') or 'top level'}: {message}"


if __name__ == "__main__":
    sys.stdout.write(schema_text())

"""``edge-runtime bundle``: make a bundle, look into it, sign it, verify it."""

import argparse
from pathlib import Path

from edge_runtime.cli.bundle_files import Head, add_signature, read_head
from edge_runtime.cli.signing import read_keys
from edge_runtime.cli.terminal import print_json, printable, say, table
from edge_runtime.errors import SignatureError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.manifest import Manifest, TensorDescription
from edge_runtime.trust.signatures import Signature, read_signatures, write_signatures


def run(options: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        ConfigError: Something that was given cannot be used.
        ArtifactError: The bundle is not good.
    """
    match options.action:
        case "create":
            # Only here: it loads onnxruntime, which looking into a bundle does not need.
            from edge_runtime.cli.bundle_create import create  # noqa: PLC0415

            print(create(options))
            return ExitCode.DONE
        case "verify":
            return _verify(options)
        case "sign":
            return _sign(Path(options.bundle), options)
        case _:
            return _show(Path(options.bundle), as_json=options.json)


def _verify(options: argparse.Namespace) -> int:
    from edge_runtime.cli.bundle_verify import report, verify_bundle  # noqa: PLC0415 - onnxruntime

    found = verify_bundle(Path(options.bundle), options.keyring)
    if options.json:
        print_json(found)
    else:
        print("\n".join(printable(line) for line in report(found).splitlines()))
    return ExitCode.DONE if found.good else ExitCode.FAILED


def _sign(path: Path, options: argparse.Namespace) -> int:
    keys = read_keys(options.keys)
    head = read_head(path)
    ours = {key.key_id for key in keys}
    kept = [each for each in _signatures(head) if each.key_id not in ours]
    add_signature(path, write_signatures([*kept, *(key.sign(head.data) for key in keys)]))
    manifest = head.manifest
    say(
        f"signed {manifest.name} version {manifest.version} with {len(ours)} keys; "
        f"{len(kept)} other signatures stay"
    )
    return ExitCode.DONE


def _signatures(head: Head) -> tuple[Signature, ...]:
    return () if head.signature is None else read_signatures(head.signature, "manifest.sig")


def _show(path: Path, *, as_json: bool) -> int:
    head = read_head(path)
    problem = ""
    keys: list[str] = []
    try:
        keys = [each.key_id for each in _signatures(head)]
    except SignatureError as error:
        problem = error.message
    if as_json:
        print_json({"manifest": head.manifest, "key_ids": keys, "signature_problem": problem})
        return ExitCode.DONE
    signed = ", ".join(key[:12] for key in keys) or problem or "nobody"
    lines = [*_described(head.manifest), f"signed by {signed} (not verified)"]
    print("\n".join(printable(line) for text in lines for line in text.splitlines()))
    return ExitCode.DONE


def _described(manifest: Manifest) -> list[str]:
    lines = [f"{manifest.name} version {manifest.version}, created {manifest.created or 'unknown'}"]
    for title, tensors in (("takes", manifest.inputs), ("gives", manifest.outputs)):
        lines += [f"{title} {_tensor(each)}" for each in tensors]
    needs = manifest.runtime
    lines.append(
        f"needs onnxruntime {needs.onnxruntime_min or 'of any version'}, is opset {needs.opset}"
    )
    acceptance = manifest.acceptance
    for tolerance in acceptance.tolerances:
        name = tolerance.output or "every output"
        lines.append(f"tolerance of {name}: {tolerance.atol:g} + {tolerance.rtol:g} of the value")
    if acceptance.metric is not None:
        lines.append(f"score {acceptance.metric.name} at least {acceptance.metric.floor:g}")
    if acceptance.latency_budget_s:
        lines.append(f"run at most {acceptance.latency_budget_s:g} s")
    if acceptance.memory_budget_bytes:
        lines.append(f"memory at most {acceptance.memory_budget_bytes} bytes")
    floor = acceptance.comparison.agreement_floor
    lines.append(f"agreement with the version before it at least {floor:g}")
    rows = [
        (file.path, str(file.size_bytes), file.sha256[:12], _role(manifest, file.path))
        for file in manifest.files()
    ]
    return [*lines, table(("FILE", "BYTES", "SHA-256", "IS"), rows)]


def _role(manifest: Manifest, path: str) -> str:
    for variant in manifest.variants:
        if path == variant.file:
            needs = " ".join([variant.requires.arch, *variant.requires.cpu_flags]).strip()
            return f"variant {variant.name}{f', needs {needs}' if needs else ''}"
        if any(path == file.path for file in variant.files):
            return f"weights of {variant.name}"
    return "golden"


def _tensor(tensor: TensorDescription) -> str:
    sizes = ", ".join("?" if size < 0 else str(size) for size in tensor.shape)
    more = [f"{len(tensor.labels)} labels"] if tensor.labels else []
    more += [word for word in (tensor.units, tensor.meaning) if word]
    notes = f" ({', '.join(more)})" if more else ""
    return f"{tensor.name} {tensor.datatype} [{sizes}]{notes}"

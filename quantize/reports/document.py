"""``report.json``: everything that was asked for, tried, measured and decided, as one document.

Whatever else is shown of a search is made from it, on any machine and at any later time.
"""

import math
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from edge_runtime.bundle import unreadable
from edge_runtime.hardware import CpuFacts, usable_cpus
from edge_runtime.manifest import Requires
from quantize.errors import BadInputError
from quantize.records import PassResult, Record, Sensitivity, Split, Trial
from quantize.settings import Settings

SCHEMA_VERSION: Final = 1
REPORT_FILE: Final = "report.json"
SIGNAL_TO_NOISE_DB_MAX: Final = 300.0
"""What stands for "no difference at all", because JSON has no infinity."""

Ending = Literal["met", "floor-not-reached", "not-faster"]
"""``not-faster`` is also not smaller, and not leaner, where that is the goal."""

_PACKAGES: Final = ("onnxruntime", "onnx", "onnxslim", "onnxsim", "numpy", "scipy", "matplotlib")


class Host(Record, frozen=True, kw_only=True):
    """The machine of a search.

    Attributes:
        cpu: One line for a person.
        arch: As ``platform.machine()`` spells it.
        vnni: Whether one instruction does an int8 dot product.
        cpus: CPUs that the process could keep busy.
        system: Operating system and its release.
    """

    cpu: str
    arch: str
    vnni: bool
    cpus: int
    system: str


class SourceModel(Record, frozen=True, kw_only=True):
    """The model that was given.

    Attributes:
        sha256: Digest of the model and its external weights.
        size_bytes: Of the file and its external weights.
        opset: Version of the default operator set, as the file came.
        nodes: Nodes of its graph.
        operators: Nodes by operator type.
    """

    sha256: str
    size_bytes: int
    opset: int
    nodes: int
    operators: dict[str, int] = msgspec.field(default_factory=dict)


class Shipped(Record, frozen=True, kw_only=True):
    """A variant of the bundle, in the order in which devices look at them.

    Attributes:
        name: Of the variant, for example ``int8-vnni``.
        trial: Name of the trial it is, or of the baseline.
        file: The model file's path in the bundle.
        size_bytes: Of the model file and its external weights.
        requires: What a CPU must have.
    """

    name: str
    trial: str
    file: str
    size_bytes: int
    requires: Requires = Requires()


class Report(Record, frozen=True, kw_only=True):
    """A search, from what was asked to what was decided.

    Attributes:
        schema_version: Of this document.
        ending: How it ended.
        created: When, RFC 3339.
        seconds: How long it took.
        stopped_early: What was left untried and why (a time budget); empty: nothing.
        settings: Every one, with the defaults.
        metric: The metric that ``settings.metric`` came to.
        target: The CPU class that ``settings.target`` came to.
        measured_here: Whether this machine is of that class, so that times are measured.
        source: The model that was given.
        host: The machine.
        versions: Of the packages that took part, by name.
        passes: What became of the rewriting steps.
        split: How the samples were divided.
        baseline: The optimised float model: what the others are compared with.
        trials: All candidates, in the order they were tried.
        pareto: Names of accepted trials that no other is better than in every respect.
        chosen: Name of the trial that the goal prefers; empty: none.
        shipped: Variants of the bundle; empty: nothing was shipped.
        sensitivity: Groups of nodes, the worst first.
        next_steps: What to do now, most promising first.
        notes: What else a reader must know, such as goldens that were left out.
    """

    schema_version: int = SCHEMA_VERSION
    ending: Ending
    created: str
    seconds: float
    stopped_early: str = ""
    settings: Settings
    metric: str
    target: str
    measured_here: bool
    source: SourceModel
    host: Host
    versions: dict[str, str]
    passes: tuple[PassResult, ...] = ()
    split: Split
    baseline: Trial
    trials: tuple[Trial, ...] = ()
    pareto: tuple[str, ...] = ()
    chosen: str = ""
    shipped: tuple[Shipped, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    next_steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def this_host(cpu: CpuFacts) -> Host:
    """Describe this machine.

    Args:
        cpu: As ``edge_runtime.hardware.cpu_facts`` gives it.
    """
    system = f"{platform.system()} {platform.release()}"
    return Host(
        cpu=cpu.description, arch=cpu.arch, vnni=cpu.vnni, cpus=usable_cpus(), system=system
    )


def installed_versions() -> dict[str, str]:
    """Give the versions of the packages that take part, and of Python; without importing them."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def encode(report: Report) -> bytes:
    """Write the document: the same bytes for the same report.

    Numbers that JSON does not have are taken out, and it is said where: a report must not be lost
    because one candidate gave infinities.
    """
    compact = msgspec.json.encode(_finite(report), order="deterministic")
    return msgspec.json.format(compact, indent=2) + b"\n"


def read_report(path: Path) -> Report:
    """Read a report.

    Args:
        path: ``report.json``, or the folder that holds it.

    Raises:
        BadInputError: It is not there, or not a report that this program understands.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    try:
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{unreadable(str(file), error)}; give the folder that edge-quantize wrote"
        ) from error
    try:
        report = msgspec.json.decode(data, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(
            f"{file} is not a report of this version of edge-quantize: {error}; make it again"
        ) from error
    if report.schema_version != SCHEMA_VERSION:
        raise BadInputError(
            f"{file} has schema_version {report.schema_version}, this program reads "
            f"{SCHEMA_VERSION}; use the edge-quantize that wrote it"
        )
    return report


def trial_named(report: Report, name: str) -> Trial | None:
    """Find a trial, or the baseline, by its name.

    Args:
        report: Where to look.
        name: Of the trial.
    """
    return next((each for each in (report.baseline, *report.trials) if each.name == name), None)


def _finite(report: Report) -> Report:
    limit = SIGNAL_TO_NOISE_DB_MAX
    groups = tuple(
        msgspec.structs.replace(
            group,
            signal_to_noise_db=-limit
            if math.isnan(group.signal_to_noise_db)
            else min(max(group.signal_to_noise_db, -limit), limit),
        )
        for group in report.sensitivity
    )
    return msgspec.structs.replace(
        report,
        baseline=_finite_trial(report.baseline),
        trials=tuple(_finite_trial(trial) for trial in report.trials),
        sensitivity=groups,
    )


def _finite_trial(trial: Trial) -> Trial:
    measured = {"search": trial.search, "held_out": trial.held_out, "latency": trial.latency}
    bad = [name for name, found in measured.items() if not _all_finite(found)]
    if not bad:
        return trial
    said = f"{' and '.join(bad)} left out: not finite numbers"
    reason = f"{trial.reason}; {said}" if trial.reason else said
    return msgspec.structs.replace(trial, reason=reason, **dict.fromkeys(bad))


def _all_finite(record: Record | None) -> bool:
    numbers: list[Any] = list(msgspec.structs.astuple(record)) if record else []
    return all(math.isfinite(number) for number in numbers if isinstance(number, float))

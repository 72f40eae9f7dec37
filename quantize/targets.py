"""CPU classes that a bundle can be made for, and whether this CPU is one of them. Pure."""

from dataclasses import dataclass
from typing import Final

from edge_runtime.hardware import CpuFacts
from quantize.errors import BadInputError


@dataclass(frozen=True, slots=True)
class Target:
    """A class of CPUs.

    Attributes:
        name: As the command line spells it.
        arch: Word of ``platform.machine()``; empty: any.
        vnni: Whether it multiplies int8 and adds to int32 in one instruction; ``None``: either.
    """

    name: str
    arch: str
    vnni: bool | None

    @property
    def saturates(self) -> bool:
        """Whether one of its CPUs may cut off the 16-bit sums of two U8S8 products."""
        return self.arch in {"", "x86_64"} and self.vnni is not True


TARGETS: Final = {
    target.name: target
    for target in (
        Target("x86-64", "x86_64", vnni=False),
        Target("x86-64-vnni", "x86_64", vnni=True),
        Target("arm64", "aarch64", vnni=False),
        Target("arm64-dotprod", "aarch64", vnni=True),
        Target("portable", "", vnni=None),
    )
}
AUTO: Final = "auto"


def resolve(name: str, cpu: CpuFacts) -> Target:
    """Find the target that a name means.

    Args:
        name: One of ``TARGETS``, or ``auto`` for the class of ``cpu``; of an architecture that
            no target is for, ``auto`` is ``portable``.
        cpu: Facts about this CPU.

    Raises:
        BadInputError: There is no such target.
    """
    if name != AUTO:
        if name not in TARGETS:
            raise BadInputError(f"no target {name!r}; choose one of {', '.join((AUTO, *TARGETS))}")
        return TARGETS[name]
    for target in TARGETS.values():
        if target.arch == cpu.arch and target.vnni is cpu.vnni:
            return target
    return TARGETS["portable"]


def matches_this_cpu(target: Target, cpu: CpuFacts) -> bool:
    """Say whether latency measured on a CPU tells anything about a target.

    A CPU that can do more than the target does not count: its int8 kernels are other ones.

    Args:
        target: What the bundle is for.
        cpu: Facts about this CPU.
    """
    return target.arch in {"", cpu.arch} and target.vnni in {None, cpu.vnni}

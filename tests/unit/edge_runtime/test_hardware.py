"""The CPU's facts and the CPUs that are ours."""

from pathlib import Path

import pytest

from edge_runtime import hardware

X86 = """\
processor\t: 0
model name\t: AMD EPYC
flags\t\t: fpu avx2 avx512_vnni

processor\t: 1
model name\t: AMD EPYC
flags\t\t: fpu avx2 avx512_vnni sse9
"""
ARM = """\
processor\t: 0
Features\t: fp asimd asimddp

processor\t: 1
Features\t: fp asimd

Model\t\t: Raspberry Pi 5
"""


def test_x86_flags_are_those_every_core_has() -> None:
    facts = hardware.parse_cpu_info(X86, "x86_64")
    assert facts.arch == "x86_64"
    assert facts.flags == {"fpu", "avx2", "avx512_vnni"}
    assert facts.vnni
    assert facts.description == "x86_64, AMD EPYC, with VNNI"


def test_arm_features_are_read_and_a_small_core_without_dot_product_counts() -> None:
    facts = hardware.parse_cpu_info(ARM, "aarch64")
    assert facts.flags == {"fp", "asimd"}
    assert not facts.vnni
    assert "Raspberry Pi 5" in facts.description


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "asimddp"])
def test_each_encoding_of_the_int8_dot_product_is_recognised(flag: str) -> None:
    assert hardware.has_vnni(["fpu", flag])
    assert not hardware.has_vnni(["fpu", "avx512f"])


def test_an_unreadable_cpu_has_no_flags_and_an_architecture_in_linux_words() -> None:
    facts = hardware.parse_cpu_info("", "arm64")
    assert facts == hardware.CpuFacts(
        arch="aarch64",
        flags=frozenset(),
        vnni=False,
        description="aarch64, unnamed CPU, without VNNI",
    )


def test_this_machine_has_facts_and_at_least_one_cpu() -> None:
    assert hardware.cpu_facts().arch
    assert hardware.usable_cpus() >= 1


def test_the_tightest_quota_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    leaf = tmp_path / "system.slice" / "edge.service"
    leaf.mkdir(parents=True)
    (leaf / "cpu.max").write_text("max 100000\n")
    (leaf.parent / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert hardware.cgroup_quota("0::/system.slice/edge.service\n", tmp_path) == 1.5


def test_a_version_1_quota_is_found_beside_an_empty_version_2(tmp_path: Path) -> None:
    folder = tmp_path / "cpu,cpuacct" / "docker"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("50000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    membership = "4:memory:/docker\n3:cpu,cpuacct:/docker\n0::/\n"
    assert hardware.cgroup_quota(membership, tmp_path) == 0.5


def test_a_container_sees_its_quota_at_the_mount_point(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert hardware.cgroup_quota("0::/host/only/path\n", tmp_path) == 2.0
    assert hardware.cgroup_quota("0::/../sibling\n", tmp_path) == 2.0


@pytest.mark.parametrize("text", ["max 100000", "", "broken", "-1 100000", "1 0", "1 2 3"])
def test_what_is_no_quota_limits_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert hardware.cgroup_quota("0::/\n", tmp_path) is None
    assert hardware.cgroup_quota("garbage", tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [(4, None, 4), (4, 1.5, 2), (4, 0.2, 1), (2, 8.0, 2), (0, None, 1), (4, 2.0, 2)],
)
def test_usable_cpus_are_the_smaller_rounded_up(
    affinity: int, quota: float | None, expected: int
) -> None:
    assert hardware.cpus_within(affinity, quota) == expected

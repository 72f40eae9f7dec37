"""Buckets: the same number everywhere, and stages that only grow."""

import json
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fleet.documents.cohort import BUCKETS, admits, bucket, default_salt
from fleet.documents.plan import Plan, Stage

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "buckets.json").read_text("utf-8"))
devices = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


def _plan(shares: list[int], stage: int = 0, *, named: tuple[str, ...] = ()) -> Plan:
    return Plan(
        rollout="r",
        sequence=1,
        model="m",
        version=1,
        salt="salt",
        stages=tuple(Stage(permyriad=share) for share in shares),
        stage=stage,
        devices=named,
    )


def test_buckets_are_those_of_the_vectors() -> None:
    assert len(VECTORS) == 20
    for each in VECTORS:
        assert bucket(each["salt"], each["device"]) == each["bucket"], each


def test_the_vectors_are_those_of_sha256sum() -> None:
    for each in VECTORS[:3]:
        text = f"{each['salt']}|{each['device']}"
        done = subprocess.run(["sha256sum"], input=text.encode(), check=True, capture_output=True)
        assert int(done.stdout[:8], 16) % 10_000 == each["bucket"]


def test_nobody_is_in_a_stage_of_none_and_everybody_in_a_stage_of_all() -> None:
    for number in range(200):
        assert not admits(_plan([0, 10_000]), f"d{number}")
        assert admits(_plan([0, 10_000], 1), f"d{number}")


@given(devices, st.lists(st.integers(0, BUCKETS), min_size=2, max_size=5))
def test_a_later_stage_holds_all_of_an_earlier_one(device: str, shares: list[int]) -> None:
    shares.sort()
    held = [admits(_plan(shares, stage), device) for stage in range(len(shares))]
    assert held == sorted(held)


@given(devices)
def test_a_device_that_is_named_is_always_in(device: str) -> None:
    assert admits(_plan([0], named=(device,)), device)


def test_a_stage_holds_about_its_share_and_another_salt_other_devices() -> None:
    names = [f"pump-{number:05}" for number in range(20_000)]
    held = {name for name in names if bucket("spring", name) < 500}
    others = {name for name in names if bucket("autumn", name) < 500}
    assert 850 < len(held) < 1150  # 1000 expected, deviation 31
    assert len(held & others) < 100  # 50 expected


def test_the_default_salt_is_the_one_by_which_devices_hold_the_signed_ceiling() -> None:
    # Devices in the field hold ceilings by these: they never change.
    assert default_salt("m", 1) == "f99e6988f8bf402e"
    assert default_salt("resnet@2:x", 2**62) == "24f80db24a1c8635"

"""perf_analyzer: NVIDIA's load generator, which reads metadata, configuration and statistics."""

import os

import pytest

from tests.conformance.peers import environment, run

pytestmark = pytest.mark.conformance

QUICK = [
    *("--measurement-mode", "count_windows", "--measurement-request-count", "50"),
    *("--measurement-interval", "500", "--max-trials", "3", "--stability-percentage", "999"),
]


def perf_analyzer(*arguments: str) -> str:
    """Run it with the libraries that its wheel does not bring."""
    folder = environment("perf")
    libraries = [
        *folder.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib"),
        *folder.glob("lib/system/usr/lib/*-linux-gnu"),
    ]
    paths = os.pathsep.join(map(str, libraries))
    command = [str(folder / "bin" / "perf_analyzer"), *arguments, *QUICK]
    return run(command, {"LD_LIBRARY_PATH": paths})


@pytest.mark.parametrize(
    "options", [["--concurrency-range", "1:2"], ["-b", "2"]], ids=["concurrency", "batch"]
)
def test_perf_analyzer_measures_digits(address: str, options: list[str]) -> None:
    printed = perf_analyzer("-m", "digits", "-u", address, "-i", "http", *options)
    assert "Throughput:" in printed
    assert "Inference count:" in printed  # from our statistics

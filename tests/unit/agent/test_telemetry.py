"""What the device tells about itself fits its messages, adds up, and leaves out what it lacks."""

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.batches import BATCH_BYTES_MAX, batches
from agent.telemetry.host import Host, read_host
from agent.telemetry.link_class import default_interfaces, is_metered
from agent.telemetry.runtime_numbers import Durations, RuntimeNumbers, Version, read_runtime
from edge_runtime.protocol.sketch_schemas import OutputSketch, VersionSketches

EXPOSITION = """\
# TYPE edge_runtime_start_time_seconds gauge
edge_runtime_start_time_seconds 1000.5
# TYPE edge_runtime_connections gauge
edge_runtime_connections 3
# TYPE edge_runtime_requests_total counter
edge_runtime_requests_total{model="m",version="1",outcome="success"} 7
edge_runtime_requests_total{model="m",version="1",outcome="failure"} 0
edge_runtime_requests_total{model="unused",version="1",outcome="success"} 0
# TYPE edge_runtime_request_duration_seconds histogram
edge_runtime_request_duration_seconds_bucket{model="m",version="1",le="0.000016"} 2
edge_runtime_request_duration_seconds_bucket{model="m",version="1",le="0.000032"} 2
edge_runtime_request_duration_seconds_bucket{model="m",version="1",le="0.000064"} 6
edge_runtime_request_duration_seconds_bucket{model="m",version="1",le="+Inf"} 7
edge_runtime_request_duration_seconds_sum{model="m",version="1"} 0.5
edge_runtime_request_duration_seconds_count{model="m",version="1"} 7
"""


def test_numbers_of_the_daemon_keep_their_buckets_and_leave_out_empty_ones() -> None:
    numbers = read_runtime(EXPOSITION)
    assert numbers.started_s == 1000.5
    assert numbers.gauges == {"connections": 3}
    (version,) = numbers.versions
    assert (version.model, version.version) == ("m", "1")
    assert version.counters == {"requests.success": 7}
    assert version.durations == {
        "request": Durations(sum_s=0.5, counts=[(16, 2), (64, 4), (None, 1)])
    }


def test_what_is_no_exposition_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^"):
        read_runtime("{")


def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    host = read_host(tmp_path, "metered", time.time())
    assert host.memory_bytes > host.memory_available_bytes > 0
    assert host.disk_bytes >= host.disk_free_bytes > 0
    assert host.agent_memory_bytes > 0
    assert host.is_metered


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert read_host(tmp_path / "gone", "auto", 0.0).disk_bytes == 0


ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
{first}\t00000000\t0101A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("first", "metric", "metered"),
    [("wwan0", 100, True), ("wwan0", 700, False), ("ppp0", 0, True), ("eth1", 0, False)],
)
def test_bytes_cost_money_where_the_preferred_route_is_a_modem(
    tmp_path: Path, first: str, metric: int, *, metered: bool
) -> None:
    routes = tmp_path / "route"
    routes.write_text(ROUTES.format(first=first, metric=metric))
    assert is_metered("auto", default_interfaces(routes)) is metered
    assert is_metered("metered", default_interfaces(routes))
    assert not is_metered("unmetered", default_interfaces(routes))


def test_a_device_without_a_network_has_no_costs(tmp_path: Path) -> None:
    assert not is_metered("auto", default_interfaces(tmp_path / "no"))


VERSIONS = st.builds(
    Version,
    model=st.text(max_size=20),
    version=st.text("123", max_size=3),
    counters=st.dictionaries(st.text(max_size=30), st.integers(0, 2**50), max_size=40),
    durations=st.dictionaries(
        st.sampled_from(["request", "queue", "compute"]),
        st.builds(Durations, counts=st.lists(st.tuples(st.integers(1), st.integers(1)))),
    ),
)
SKETCHES = st.builds(
    VersionSketches,
    model=st.text(max_size=20),
    version=st.just("1"),
    digest=st.just("0" * 64),
    outputs=st.lists(
        st.builds(
            OutputSketch,
            name=st.text(max_size=20),
            rows=st.just(1),
            counts=st.dictionaries(st.text(max_size=20), st.integers(1, 2**40), max_size=30),
        ),
        max_size=3,
    ),
)


@given(st.lists(VERSIONS, max_size=8), st.lists(SKETCHES, max_size=6), st.integers(1, 60))
def test_batches_fit_and_say_everything_once(
    versions: list[Version], sketches: list[VersionSketches], repeat: int
) -> None:
    runtime = RuntimeNumbers(started_s=5.0, versions=versions * repeat)
    found = list(batches(Host(), runtime, sketches, at_s=9.0, interval_s=60.0))
    assert all(len(msgspec.json.encode(batch)) <= BATCH_BYTES_MAX for batch in found)
    assert {batch["at_s"] for batch in found} == {9.0}
    told = [each for batch in found for each in batch.get("runtime", {}).get("versions", [])]
    assert told == msgspec.to_builtins(runtime.versions)
    shown = [each for batch in found for each in batch.get("sketches", [])]
    assert shown == msgspec.to_builtins([each for each in sketches if each.outputs])


def test_a_daemon_that_is_away_leaves_the_host() -> None:
    (batch,) = batches(Host(memory_bytes=1), None, [], at_s=1.0, interval_s=60.0)
    assert batch == {"at_s": 1.0, "interval_s": 60.0, "host": {"memory_bytes": 1}}

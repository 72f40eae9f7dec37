"""A daemon that dies of something that is no version's fault: the service is not taken away."""

import time
from pathlib import Path

import pytest

from tests.daemons import eventually
from tests.integration.test_release_crashes import (
    OTHER,
    QUICKLY,
    commit,
    crash,
    device,
    explained,
    reach,
    status_of,
)
from tests.models import add_constant
from tests.release_device import Device, bundle

pytestmark = pytest.mark.integration


def test_a_version_is_not_suspected_after_the_daemon_idled_for_long(tmp_path: Path) -> None:
    suspicion = {"committed_crashes_max": 1, "crash_suspect_s": 2.0}
    with device(tmp_path, **suspicion, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v2", 2), 2)
        since_s = time.monotonic()
        eventually(lambda: time.monotonic() - since_s > 2.5, "it idles")
        crash(on)
        assert (on.status().active, on.status().releases[0].crashes) == (2, 0)
        crash(on)
        assert on.status().active == 2, "nor later"


def test_deaths_from_outside_cost_an_update_and_not_the_service(tmp_path: Path) -> None:
    with Device(tmp_path, committed_crashes_max=2, **QUICKLY) as on:
        for version in (1, 2):
            commit(on, bundle(tmp_path / f"v{version}", version), version)
        crash(on, 2)
        assert on.ended(2).cause == "crashed"
        assert on.status().active == 1
        crash(on, 5)
        status = on.status()
        assert (status.active, status.disabled) == (1, "")
        assert on.ask().version == "1"
        assert "It is not taken back for the daemon's deaths" in explained(on)
        kept = next(each for each in status.releases if each.version == 1)
        assert (kept.state, kept.cause, kept.crashes) == ("committed", "crashed", 2)
        died = [row for row in on.history() if (row.version, row.event) == (1, "died")]
        assert len(died) == 2
        assert "it dies of something else, so this version stays" in died[-1].reason
        assert "it dies of something else" in on.daemon.log()
        commit(on, bundle(tmp_path / "v3", 3), 3)
        assert (on.status().previous, on.ask().version) == (1, "3")


def test_with_another_model_in_memory_a_version_taken_back_is_not_called_bad(
    tmp_path: Path,
) -> None:
    seed = add_constant(tmp_path / "n.onnx", 1.0)
    path = bundle(tmp_path / "v2", 2)
    more = f'[models.{OTHER}]\npath = "{seed}"\n'
    with device(tmp_path, more=more, committed_crashes_max=1, **QUICKLY) as on:
        commit(on, path, 2)
        on.restart()
        crash(on)
        release = on.ended(2)
        assert release.cause == "crashed"
        assert f"it may have been {OTHER} version 1" in release.reason
        assert on.status().bad == []
        commit(on, path, 2)


def test_nothing_is_disabled_after_taking_another_model_back_did_not_help(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "n.onnx", 1.0)
    more = f'[models.{OTHER}]\npath = "{seed}"\n'
    with Device(tmp_path, more=more, committed_crashes_max=1, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v1", 1), 1)
        on.stage(bundle(tmp_path / "n2", 2, name=OTHER))
        reach(on, OTHER, "committed")
        crash(on, 4)
        assert status_of(on, OTHER).active_source == "seed", "the one committed last went back"
        assert (on.status().active, on.status().disabled) == (1, "")
        assert on.ask().version == "1"

"""Where `release rollback` leads when there is no version to go back to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import eventually
from tests.integration.test_release_by_hand import run
from tests.integration.test_release_crashes import QUICKLY, commit, crash
from tests.release_device import MODEL, Device, bundle

pytestmark = pytest.mark.integration


@pytest.fixture
def reverted(tmp_path: Path) -> Iterator[Device]:
    """Run a device on which versions 1 to 3 were committed, and 3 was reverted."""
    with Device(tmp_path, committed_crashes_max=1, **QUICKLY) as on:
        for version in (1, 2, 3):
            commit(on, bundle(tmp_path / f"v{version}", version), version)
        assert on.order("revert", to=2).status == 200
        yield on


def test_a_rollback_after_a_revert_does_not_leave_nothing(reverted: Device) -> None:
    refused = reverted.order("rollback")
    assert refused.status == 409, refused.body
    said = refused.json()["error"]
    assert "version 2" in said
    assert "--disable" in said
    assert "`--to` takes 1" in said
    status = reverted.status()
    assert (status.active, status.disabled, status.override) == (2, "", None)
    assert reverted.ask().version == "2"


def test_nor_does_one_after_a_crash_loop(tmp_path: Path) -> None:
    with Device(tmp_path, committed_crashes_max=1, **QUICKLY) as on:
        for version in (1, 2):
            commit(on, bundle(tmp_path / f"v{version}", version), version)
        crash(on)
        assert on.status().active == 1
        # The release that goes back by itself may still be at it.
        eventually(lambda: on.order("rollback").status == 409, "the refusal")
        assert on.ask().version == "1"


def test_a_rollback_may_lead_to_any_version_that_was_committed(reverted: Device) -> None:
    for version in (2, 3, 4):
        refused = reverted.order("rollback", to=version)
        assert refused.status == 409, refused.body
        assert "`to` takes 1" in refused.json()["error"]
    assert reverted.status().active == 2
    code, _, said = run(reverted, "release", "rollback", MODEL, "--to", "1")
    assert code == 0, said
    status = reverted.status()
    assert (status.active, status.previous) == (1, None)
    assert status.override is not None
    assert reverted.ask().version == "1"
    reverted.restart()
    assert reverted.ask().version == "1"


def test_a_rollback_disables_where_somebody_says_so(reverted: Device) -> None:
    both = reverted.order("rollback", to=1, disable=True)
    assert both.status == 400, both.body
    code, _, said = run(reverted, "release", "rollback", MODEL, "--disable")
    assert code == 0, said
    assert "version 2 was rolled back" in reverted.status().disabled
    assert reverted.ask().status == 503


def test_disable_leaves_nothing_although_there_is_a_previous_version(tmp_path: Path) -> None:
    with Device(tmp_path, **QUICKLY) as on:
        for version in (1, 2):
            commit(on, bundle(tmp_path / f"v{version}", version), version)
        # At once: committed is stored before the release has tidied up.
        assert on.order("rollback", disable=True).status == 200
        assert on.ask().status == 503
        commit(on, bundle(tmp_path / "v3", 3), 3)
        assert on.ask().version == "3"


def test_a_release_under_way_goes_back_to_the_active_version_only(tmp_path: Path) -> None:
    with Device(tmp_path, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v1", 1), 1)
        on.stage(bundle(tmp_path / "v2", 2), mode="manual")
        on.reach(2, "staged")
        for more in ({"to": 1}, {"disable": True}):
            refused = on.order("rollback", **more)
            assert refused.status == 409, refused.body
            assert "under way" in refused.json()["error"]
        assert on.order("rollback").status == 200
        assert on.ask().version == "1"

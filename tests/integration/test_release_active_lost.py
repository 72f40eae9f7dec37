"""An active version that cannot be loaded any more keeps neither the daemon nor a release out."""

from pathlib import Path

import pytest

from tests.release_device import Device, signed_bundle
from tests.signing import keyring

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("order", ["automatic", "manual"])
def test_a_device_whose_active_version_lost_its_key_takes_the_next_release(
    tmp_path: Path, order: str
) -> None:
    first = tmp_path / "keyring.json"
    first.write_bytes(keyring(["ann"], version=1).write())
    with Device(tmp_path, managed=True, keyring=str(first), shadow_s=0.0, weights=[100]) as on:
        on.stage(signed_bundle(tmp_path / "v1", 1, "ann"))
        assert on.ended(1).state == "committed"
        following = keyring(["eve"], version=2, signed_by=["ann", "eve"]).write()
        target = "/admin/keyring?force=true"
        assert on.daemon.request("POST", target, following, admin=True).status == 200
        on.restart()
        assert on.ask().status != 200, "its key is gone, so it is not loaded"
        on.stage(signed_bundle(tmp_path / "v2", 2, "eve"), mode=order)
        if order == "manual":
            on.reach(2, "staged")
            assert on.order("promote").status == 200
            on.reach(2, "probation", "committed")
        assert on.ended(2).state == "committed"
        assert on.ask().version == "2"

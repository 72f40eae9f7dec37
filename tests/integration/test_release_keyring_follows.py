"""A package brings a newer keyring to a device that has one: it counts if it follows, else not."""

from pathlib import Path

import pytest

from tests.models import add_constant
from tests.release_device import Device
from tests.signing import keyring

pytestmark = pytest.mark.integration


def test_a_packaged_keyring_is_followed_at_the_start_or_the_log_says_why_not(
    tmp_path: Path,
) -> None:
    packaged = tmp_path / "keyring.json"
    packaged.write_bytes(keyring(["ann"]).write())
    more = '[models.other]\npath = "' + str(add_constant(tmp_path / "m.onnx", 1.0)) + '"\n'
    with Device(tmp_path, managed=True, keyring=str(packaged), more=more) as on:
        second = keyring(["ann", "bob"], version=2, signed_by=["ann"]).write()
        assert on.daemon.request("POST", "/admin/keyring", second, admin=True).status == 200
        third = keyring(["bob"], version=3, signed_by=["bob"])
        packaged.write_bytes(third.write())
        on.restart(serves=False)
        trust = on.status_of_all().trust
        assert (trust.keyring_version, trust.threshold) == (3, 1)
        packaged.write_bytes(keyring(["eve"], version=4).write())
        on.restart(serves=False)
        assert on.status_of_all().trust.keyring_version == 3
        assert "the keyring of release.keyring is not taken" in on.daemon.log()
        assert "signed by 0 keys of the present keyring" in on.daemon.log()

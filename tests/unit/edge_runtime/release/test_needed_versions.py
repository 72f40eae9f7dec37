"""Which versions a device could not do without, and which of them a keyring would orphan."""

from pathlib import Path

import pytest

from edge_runtime.bundle import Bundle
from edge_runtime.manifest import Manifest
from edge_runtime.release.needed_versions import (
    Head,
    NeededVersion,
    needed_versions,
    orphans,
    would_orphan,
)
from edge_runtime.release.records import Slots
from tests.release_records import release
from tests.signing import keyring, signed

MANIFEST = b'{"of": "a version"}'


def configured(version: int, *, is_bundle: bool = True) -> Bundle:
    manifest = Manifest(name="m", version=version, inputs=(), outputs=(), variants=())
    return Bundle(manifest, Path(f"/models/m/{version}"), "0" * 64 if is_bundle else "")


def test_active_previous_shares_and_what_is_under_way_are_needed_each_once() -> None:
    slots = Slots(
        model="m",
        active=3,
        active_source="store",
        previous=1,
        previous_source="seed",
        traffic={"3": 80, "2": 20},
    )
    bundles = {("m", 1): configured(1), ("other", 7): configured(7)}
    found = needed_versions([slots], [release("m", 4)], bundles)
    assert found == [
        NeededVersion("m", 3, "active"),
        NeededVersion("m", 1, "previous", Path("/models/m/1")),
        NeededVersion("m", 4, "under way"),
        NeededVersion("other", 7, "active", Path("/models/m/7")),
        NeededVersion("m", 2, "with a share of the traffic"),
    ]


def test_a_bare_file_which_nobody_can_sign_is_not_asked_for() -> None:
    assert needed_versions([], [], {("m", 1): configured(1, is_bundle=False)}) == []


@pytest.mark.parametrize(
    ("head", "is_lost"),
    [
        ((MANIFEST, signed(MANIFEST, "ann")), True),
        ((MANIFEST, signed(MANIFEST, "ann", "eve")), False),
        ((MANIFEST, signed(MANIFEST, "bob")), False),
        ((MANIFEST, None), False),
        (None, False),
    ],
    ids=["by the old key", "by both", "by neither", "not at all", "cannot be read"],
)
def test_a_keyring_orphans_what_only_the_present_one_lets_in(
    head: Head | None, *, is_lost: bool
) -> None:
    needed = [NeededVersion("m", 1, "active")]
    found = orphans(needed, lambda _: head, keyring(["eve"], version=2), keyring(["ann"]))
    assert found == (needed if is_lost else [])
    if is_lost:
        told = would_orphan(2, found)
        assert told.startswith("too few keys of keyring version 2 signed m version 1 (active)")
        assert "release versions that its keys signed" in told


def test_without_a_present_keyring_whatever_it_does_not_let_in_is_an_orphan() -> None:
    needed = [NeededVersion("m", 1, "active"), NeededVersion("m", 2, "previous")]
    heads = {1: (MANIFEST, signed(MANIFEST, "ann")), 2: (MANIFEST, None)}
    found = orphans(needed, lambda each: heads[each.version], keyring(["ann"]))
    assert found == [needed[1]]

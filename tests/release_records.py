"""Records of releases with little said, for tests of the journal and what stands on it."""

from typing import Any

from edge_runtime.release.records import Release, Transition

MANIFEST = "a" * 64
NOW_S = 1_700_000_000.0
BOOT = "boot-1"


def release(model: str = "digits", version: int = 2, **more: Any) -> Release:  # noqa: ANN401 - any field
    """Make a release that was just installed."""
    told = {
        "manifest_sha256": MANIFEST,
        "state": "installed",
        "created_s": NOW_S,
        "updated_s": NOW_S,
    }
    return Release(model=model, version=version, **{**told, **more})


def transition(before: Release | None, after: Release, event: str = "begin") -> Transition:
    """Tell of a change of a release."""
    return Transition.between(
        before, after, event, digest="d" * 64, wall_s=NOW_S, awake_s=5.0, boot_id=BOOT
    )


def note(model: str = "digits", **more: Any) -> Transition:  # noqa: ANN401 - any field
    """Tell of something that is no release's."""
    told = {"event": "hold", "wall_s": NOW_S, "awake_s": 5.0, "boot_id": BOOT}
    return Transition(model=model, **{**told, **more})

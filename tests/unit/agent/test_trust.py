"""The pure parts of trust: floors of versions, complaints, reasons, dates of certificates."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api import exceptions
from tuf.ngclient import Updater

from agent.errors import (
    ConfigError,
    Distrust,
    NetworkError,
    RefusedError,
    StateError,
    TooLargeError,
    TooSlowError,
    TrustError,
)
from agent.records.floors import VersionFloor
from agent.settings.device import Repository as RepositorySettings
from agent.trust.complaints import Complaints
from agent.trust.fetcher import FolderFetcher, role_of
from agent.trust.places import Places, places_of
from agent.trust.reasons import translated
from agent.trust.reference_time import judge_expiry_by
from agent.trust.tls import EARLY_S, Dates, check_dates
from agent.trust.version_floors import ANY_AUTHORITY, risen, way_back
from tests.tuf_attacks import DAY_S, TufRepository

VERSIONS = st.dictionaries(
    st.sampled_from(["root", "timestamp", "snapshot", "releases"]), st.integers(1, 9), min_size=4
)


@given(old=VERSIONS, new=VERSIONS, same_keys=st.booleans())
def test_a_set_goes_back_if_and_only_if_a_version_of_the_same_keys_falls(
    old: dict[str, int], new: dict[str, int], *, same_keys: bool
) -> None:
    floors = risen({}, old, "keys")
    back = way_back(floors, new, "keys" if same_keys else "other keys")
    fallen = {role for role in old if new[role] < old[role]}
    if not same_keys:
        fallen &= {"root"}
    assert bool(back) == bool(fallen)
    if not back:
        floors |= risen(floors, new, "keys" if same_keys else "other keys")
        assert {role: floor.version for role, floor in floors.items()} == new
        assert risen(floors, new, "keys" if same_keys else "other keys") == {}


def test_a_role_that_is_gone_is_a_way_back() -> None:
    floors = {"root": VersionFloor(1, ANY_AUTHORITY), "releases": VersionFloor(2, "keys")}
    assert "releases is gone" in way_back(floors, {"root": 1}, "keys")
    assert way_back(floors, {"root": 1}, "other keys") == ""


def test_a_complaint_is_news_once_until_all_is_well() -> None:
    complaints = Complaints()
    expired = TrustError(Distrust.EXPIRED, "x")
    mixed = TrustError(Distrust.MIXED, "x")
    told = [complaints.is_new(error) for error in (expired, expired, mixed, expired, mixed)]
    assert told == [True, False, True, False, False]
    assert complaints.settle()
    assert not complaints.settle()
    assert complaints.is_new(expired)


@pytest.mark.parametrize(
    ("url", "role"),
    [
        ("http://h/m/timestamp.json", ("timestamp", None)),
        ("http://h/m/12.root.json", ("root", 12)),
        ("http://h/m/3.a%2Fb.c.json", ("a/b.c", 3)),
        ("file:///m/1.1.json", ("1", 1)),
        ("http://h/m/role.x.json", ("role.x", None)),
    ],
)
def test_role_and_version_are_read_from_urls(url: str, role: tuple[str, int | None]) -> None:
    assert role_of(url) == role


@dataclass
class Asked:
    """What was asked for last."""

    role: str = "releases"
    version: int | None = 2
    data: bytes = b'{"signed": {"version": 2}}'


@pytest.mark.parametrize(
    ("error", "asked", "reason"),
    [
        (exceptions.ExpiredMetadataError("x"), Asked(), Distrust.EXPIRED),
        (exceptions.UnsignedMetadataError("x"), Asked(), Distrust.THRESHOLD),
        (exceptions.LengthOrHashMismatchError("x"), Asked(), Distrust.WRONG_HASH),
        (exceptions.DownloadLengthMismatchError("x"), Asked(), Distrust.TOO_LARGE),
        (TooLargeError("x"), Asked(), Distrust.TOO_LARGE),
        (TooSlowError("x"), Asked(), Distrust.TOO_SLOW),
        (exceptions.RepositoryError("x"), Asked(), Distrust.MALFORMED),
        (exceptions.BadVersionNumberError("x"), Asked(), Distrust.ROLLED_BACK),
        (exceptions.BadVersionNumberError("x"), Asked(version=None), Distrust.ROLLED_BACK),
        (exceptions.BadVersionNumberError("x"), Asked(version=3), Distrust.MIXED),
        (exceptions.BadVersionNumberError("x"), Asked(data=b"["), Distrust.MIXED),
    ],
)
def test_each_error_of_tuf_has_one_reason(error: Exception, asked: Asked, reason: Distrust) -> None:
    with pytest.raises(TrustError) as caught, translated(asked, "origin"):
        raise error
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (exceptions.DownloadHTTPError("x", 404), RefusedError),
        (exceptions.DownloadError("x"), NetworkError),
        (exceptions.SlowRetrievalError("x"), NetworkError),
        (OSError(28, "full"), StateError),
        (NetworkError("x"), NetworkError),
    ],
)
def test_what_is_no_fault_of_the_repository_is_not_blamed_on_it(
    error: Exception, ours: type[Exception]
) -> None:
    with pytest.raises(ours), translated(Asked(), "origin"):
        raise error


@given(
    begins_s=st.floats(-1e6, 1e6),
    length_s=st.floats(0, 1e6),
    now_s=st.floats(-1e6, 1e6),
    is_trusted=st.booleans(),
)
def test_dates_are_judged_by_the_clock_or_else_by_the_floor(
    begins_s: float, length_s: float, now_s: float, *, is_trusted: bool
) -> None:
    dates = Dates("x", begins_s, begins_s + length_s)
    floor_s = -1000.0
    expected = dates.ends_s >= (now_s if is_trusted else floor_s)
    expected = expected and not (is_trusted and begins_s > now_s + EARLY_S)
    accepted = False
    with contextlib.suppress(NetworkError):
        check_dates([dates], "host", now_s=now_s, floor_s=floor_s, is_trusted=is_trusted)
        accepted = True
    assert accepted is expected


def test_a_server_without_a_certificate_is_refused() -> None:
    with pytest.raises(NetworkError, match="no certificate"):
        check_dates([], "host", now_s=0.0, floor_s=0.0, is_trusted=False)


def test_tuf_judges_expiry_by_our_clock(tmp_path: Path) -> None:
    """The one private thing of python-tuf that is used is still there, and does what it did."""
    repository = TufRepository(tmp_path / "repository", days=30)
    served = tmp_path / "served"
    served.mkdir()
    for role in ("timestamp", "snapshot", "targets"):
        (served / f"{role}.json").write_bytes(repository.bytes_of(role))

    def refresh(days: float, folder: str) -> None:
        (tmp_path / folder).mkdir()
        updater = Updater(
            str(tmp_path / folder),
            "any:///",
            fetcher=FolderFetcher(served),
            bootstrap=repository.first_root.read_bytes(),
        )
        judge_expiry_by(updater, time.time() + days * DAY_S)
        updater.refresh()

    refresh(29, "fresh")
    refresh(-10_000, "early")
    with pytest.raises(exceptions.ExpiredMetadataError):
        refresh(31, "late")


def test_another_tuf_without_that_private_thing_is_noticed() -> None:
    class Other:
        _trusted_set = object()

    with pytest.raises(AttributeError, match="elsewhere"):
        judge_expiry_by(Other(), 0.0)  # type: ignore[arg-type]


def test_places_are_found_from_the_settings() -> None:
    settings = RepositorySettings(url="https://h/repo", mirrors=("http://lan/a", "http://b/"))
    assert places_of(settings) == Places(
        "https://h/repo/metadata/", "https://h/repo/artifacts/", ("http://lan/a/", "http://b/")
    )
    with pytest.raises(ConfigError, match="url"):
        places_of(RepositorySettings())

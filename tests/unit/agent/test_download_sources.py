"""Which server is asked next."""

import pytest

from agent.download.sources import Sources
from agent.errors import Distrust, RefusedError, TrustError

URLS = ["http://mirror-1/x", "http://mirror-2/x", "https://repository/x"]


def _urls(sources: Sources, *, whole: bool = True) -> list[str]:
    """Ask until it is time for a pause."""
    asked = []
    while (source := sources.next(whole=whole)) is not None:
        asked.append(source.url)
        sources.failed(source)
    return asked


def test_every_server_is_tried_before_a_pause() -> None:
    sources = Sources(URLS, {})
    assert _urls(sources) == URLS
    assert _urls(sources) == []
    sources.again()
    assert _urls(sources) == URLS


def test_who_refused_or_was_wrong_is_not_asked_again() -> None:
    sources = Sources(URLS, {})
    first = sources.next(whole=True)
    assert first is not None
    sources.refused(first, RefusedError(404, "no"))
    second = sources.next(whole=True)
    assert second is not None
    sources.wrong(second, "other bytes")
    sources.again()
    assert _urls(sources) == URLS[2:]


def test_the_repository_has_the_last_word() -> None:
    sources = Sources(URLS[1:], {})
    mirror, repository = sources.next(whole=True), None
    assert mirror is not None
    sources.wrong(mirror, "other bytes")
    repository = sources.next(whole=True)
    assert repository is not None
    with pytest.raises(RefusedError):
        sources.refused(repository, RefusedError(404, "no"))


def test_a_wrong_file_of_the_repository_is_distrust() -> None:
    sources = Sources(URLS[2:], {})
    repository = sources.next(whole=True)
    assert repository is not None
    with pytest.raises(TrustError) as error:
        sources.wrong(repository, "other bytes")
    assert error.value.reason is Distrust.WRONG_HASH


def test_who_gives_no_parts_is_asked_for_one_only_when_no_other_is_left() -> None:
    sources = Sources(URLS[1:], {})
    mirror = sources.next(whole=False)
    assert mirror is not None
    mirror.has_ranges = False
    assert _urls(sources, whole=False) == URLS[2:]
    sources.again()
    repository = sources.next(whole=False)
    assert repository is not None
    sources.refused(repository, RefusedError(404, "no"))
    assert _urls(sources, whole=False) == URLS[1:2]


def test_blame_needs_every_byte_from_one_server() -> None:
    sources = Sources(URLS, {})
    only = sources.only(frozenset({URLS[0]}))
    assert only is not None
    assert only.url == URLS[0]
    assert sources.only(frozenset({URLS[0], "disk"})) is None
    assert [one.url for one in sources.mirrors(frozenset(URLS[1:]))] == [URLS[1]]


def test_tags_are_of_one_url() -> None:
    sources = Sources(URLS, {URLS[1]: '"1"'})
    assert [one.tag for one in (sources.next(whole=True),) if one] == [""]

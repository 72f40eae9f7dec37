"""Mirrors are asked first and believed no more than anybody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.download.entity_tags import read_tags
from agent.download.notices import NoticeKind
from agent.errors import CanceledError
from tests.agent_downloads import World, noise, publish, world
from tests.hostile_http import Fault, hang_up, hostile_server, replace, status, truncate

pytestmark = pytest.mark.integration

DATA = noise(300_000)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def test_asks_mirrors_first(here: World, tmp_path: Path) -> None:
    file = publish(tmp_path / "mirror", DATA)
    with hostile_server(tmp_path / "mirror") as mirror:
        assert here.device(mirror.url).fetch(file) == DATA
    assert here.server.paths() == []


@pytest.mark.parametrize(
    "fault",
    [replace(noise(len(DATA), seed=1)), replace(DATA[:-1]), status(404), status(403)],
    ids=["bytes", "size", "404", "403"],
)
def test_a_mirror_with_another_file_is_set_aside_and_reported(
    here: World, tmp_path: Path, fault: Fault
) -> None:
    file = publish(here.web, DATA)
    with hostile_server(publish_folder(tmp_path)) as mirror:
        mirror.fault("*", fault)
        device = here.device(mirror.url)
        assert device.fetch(file) == DATA
        assert len(mirror.requests) == 1
        assert mirror.url in device.notices[0].text
    assert device.kinds() == [NoticeKind.MIRROR_SET_ASIDE]


def publish_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    publish(folder, DATA)
    return folder


def test_a_mirror_that_fails_in_the_middle_is_relieved_by_the_repository(
    here: World, tmp_path: Path
) -> None:
    file = publish(here.web, DATA)
    with hostile_server(publish_folder(tmp_path)) as mirror:
        mirror.fault("*", truncate(100_000))
        device = here.device(mirror.url)
        assert device.fetch(file) == DATA
    assert here.server.sent_bytes[file.path] == len(DATA) - 100_000
    assert device.notices == []


def test_a_mirror_whose_beginning_was_wrong_is_found_out(here: World, tmp_path: Path) -> None:
    file = publish(here.web, DATA)
    with hostile_server(publish_folder(tmp_path)) as mirror:
        mirror.fault("*", truncate(100_000))
        path = mirror.folder / file.url_path
        path.write_bytes(b"x" + DATA[1:])
        device = here.device(mirror.url)
        assert device.fetch(file) == DATA
    assert device.kinds() == [NoticeKind.MIRROR_SET_ASIDE]


def test_a_mirror_with_tags_only_of_its_own_is_no_danger_to_another(
    here: World, tmp_path: Path
) -> None:
    file = publish(here.web, DATA)
    with hostile_server(publish_folder(tmp_path)) as mirror:
        mirror.fault("*", truncate(100_000))
        device = here.device(mirror.url)
        device.fetch(file)
    assert "if-range" not in here.server.requests[0].headers


def test_a_mirror_that_is_away_is_not_waited_for_with_every_file(
    here: World, tmp_path: Path
) -> None:
    files = [publish(here.web, DATA[at:]) for at in range(3)]
    with hostile_server(publish_folder(tmp_path)) as mirror:
        mirror.fault("*", hang_up())
        device = here.device(mirror.url)
        for file in files:
            device.fetch(file)
        assert mirror.paths() == [files[0].path]
        # When the repository is away too, it is asked again.
        here.server.fault("*", status(503), times=1)
        mirror.heal()
        publish(tmp_path / "mirror", DATA[3:])
        device.fetch(publish(here.web, DATA[3:]))
        assert len(mirror.paths()) == 2
    assert device.kinds() == [NoticeKind.RETRYING]


def test_the_tags_of_all_servers_are_kept(here: World, tmp_path: Path) -> None:
    file = publish(here.web, DATA)
    with hostile_server(publish_folder(tmp_path)) as mirror:
        mirror.fault("*", truncate(100_000))
        here.server.fault("*", truncate(100_000))
        device = here.device(mirror.url)
        device.tell = lambda _: device.cancelled.set()
        with pytest.raises(CanceledError):
            device.fetch(file)
        tags = read_tags(device.downloads.part(file.sha256))
        assert sorted(tags) == sorted([mirror.url + file.path, here.server.url + file.path])

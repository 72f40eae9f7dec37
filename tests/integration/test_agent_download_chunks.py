"""Chunks that older files have are not downloaded again; a wrong one costs only itself."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.download.bundle_files import BundleFiles, OlderFile
from agent.download.indexes import ChunkIndexes
from agent.download.notices import NoticeKind
from agent.download.transfer import DAMAGED_MAX
from agent.errors import BudgetError, Distrust, TrustError
from fleet.documents.chunks import ChunkIndex, write_chunks
from fleet.repository.chunking import chunk_index
from tests.agent_downloads import World, chunked, noise, publish, sha256, world
from tests.hostile_http import hostile_server, ignore_range, replace, status, truncate

pytestmark = pytest.mark.integration

SIZE = 10_000
OLD = noise(30 * SIZE)
CHANGED = noise(2 * SIZE, seed=1)
NEW = (
    OLD[: 5 * SIZE] + CHANGED[:SIZE] + OLD[6 * SIZE : 20 * SIZE] + CHANGED[SIZE:] + OLD[21 * SIZE :]
)
OLD_INDEX, NEW_INDEX = chunked(OLD, SIZE), chunked(NEW, SIZE)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def test_only_what_is_new_is_downloaded(here: World) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    device.store.add(OLD)
    assert device.fetch(file, NEW_INDEX, [OLD_INDEX]) == NEW
    asked = [seen.headers["range"] for seen in here.server.requests]
    assert asked == ["bytes=50000-59999", "bytes=200000-209999"]
    assert device.budget.spent("artifact") == 2 * SIZE
    assert device.notices == []


def test_an_older_blob_in_the_same_folder_is_used_too(here: World) -> None:
    device = here.device()
    device.fetch(publish(here.web, OLD))
    spent = device.budget.spent()
    assert device.fetch(publish(here.web, NEW), NEW_INDEX, [OLD_INDEX]) == NEW
    assert device.budget.spent() == spent + 2 * SIZE


def test_a_chunk_that_comes_twice_is_downloaded_once(here: World) -> None:
    data = CHANGED[:SIZE] * 20
    device = here.device()
    assert device.fetch(publish(here.web, data), chunked(data, SIZE)) == data
    assert device.budget.spent("artifact") == SIZE


def test_a_damaged_older_file_costs_the_damaged_chunk(here: World) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    damaged = bytearray(OLD)
    damaged[10 * SIZE + 7] ^= 1
    device.store.add(OLD).write_bytes(damaged)
    assert device.fetch(file, NEW_INDEX, [OLD_INDEX]) == NEW
    assert device.budget.spent("artifact") == 3 * SIZE
    (notice,) = device.notices
    assert notice.kind is NoticeKind.REUSE_FAILED
    assert notice.bytes_more == SIZE


def test_an_older_file_that_is_cut_off_costs_what_it_lacks(here: World) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    device.store.add(OLD).write_bytes(OLD[: 29 * SIZE + 5])
    assert device.fetch(file, NEW_INDEX, [OLD_INDEX]) == NEW
    assert device.budget.spent("artifact") == 3 * SIZE


def test_the_budget_is_asked_again_when_reuse_fails(here: World) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    device.store.add(OLD).write_bytes(noise(len(OLD), seed=2))
    with pytest.raises(BudgetError):
        device.fetch(file, NEW_INDEX, [OLD_INDEX], rollout_bytes_max=3 * SIZE)
    assert NoticeKind.REUSE_FAILED in device.kinds()
    assert device.budget.spent() <= 3 * SIZE


def test_an_older_file_that_is_damaged_all_over_is_given_up(here: World) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    device.store.add(OLD).write_bytes(noise(len(OLD), seed=2))
    assert device.fetch(file, NEW_INDEX, [OLD_INDEX]) == NEW
    assert device.kinds() == [NoticeKind.REUSE_FAILED] * DAMAGED_MAX
    assert sum(notice.bytes_more for notice in device.notices) == len(NEW) - 2 * SIZE
    assert device.budget.spent("artifact") == len(NEW)


def test_it_is_said_when_no_older_file_is_here(here: World) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    assert device.fetch(file, NEW_INDEX, [OLD_INDEX]) == NEW
    (notice,) = device.notices
    assert (notice.kind, notice.bytes_more) == (NoticeKind.REUSE_FAILED, len(NEW))


def test_a_server_without_ranges_is_no_silent_full_download(here: World) -> None:
    file = publish(here.web, NEW)
    here.server.fault("*", ignore_range())
    device = here.device()
    device.store.add(OLD)
    with pytest.raises(BudgetError):
        device.fetch(file, NEW_INDEX, [OLD_INDEX], rollout_bytes_max=3 * SIZE)
    assert device.kinds() == [NoticeKind.FULL_DOWNLOAD]
    assert device.budget.spent() == 0
    assert device.fetch(file, NEW_INDEX, [OLD_INDEX]) == NEW


def test_goes_on_to_the_byte_in_the_middle_of_a_chunk(here: World) -> None:
    file = publish(here.web, NEW)
    here.server.fault("*", truncate(1234), times=1)
    device = here.device()
    device.store.add(OLD)
    assert device.fetch(file, NEW_INDEX, [OLD_INDEX]) == NEW
    assert here.server.requests[1].headers["range"] == "bytes=51234-59999"
    assert device.budget.spent("artifact") == 2 * SIZE


def test_a_wrong_chunk_of_a_mirror_costs_that_chunk(here: World, tmp_path: Path) -> None:
    file = publish(here.web, NEW)
    publish(tmp_path / "mirror", NEW)
    wrong = bytearray(NEW)
    wrong[17 * SIZE] ^= 1
    (tmp_path / "mirror" / file.url_path).write_bytes(wrong)
    with hostile_server(tmp_path / "mirror") as mirror:
        device = here.device(mirror.url)
        assert device.fetch(file, NEW_INDEX) == NEW
    assert here.server.requests[0].headers["range"] == f"bytes={17 * SIZE}-{len(NEW) - 1}"
    assert device.kinds() == [NoticeKind.MIRROR_SET_ASIDE]
    assert device.budget.spent() <= len(NEW) + 131_072


def test_wrong_chunks_of_the_repository_are_not_believed(here: World) -> None:
    file = publish(here.web, NEW)
    here.server.fault("*", replace(noise(len(NEW), seed=3)))
    device = here.device()
    device.store.add(OLD)
    with pytest.raises(TrustError) as error:
        device.fetch(file, NEW_INDEX, [OLD_INDEX])
    assert error.value.reason is Distrust.WRONG_HASH
    assert not device.downloads.blob(file.sha256).exists()


def test_an_index_of_another_file_is_refused(here: World) -> None:
    with pytest.raises(TrustError) as error:
        here.device().fetch(publish(here.web, NEW), OLD_INDEX)
    assert error.value.reason is Distrust.MIXED
    assert here.server.paths() == []


def test_an_index_that_does_not_make_up_the_file_is_told_and_not_used(here: World) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    device.store.add(OLD)
    lying = ChunkIndex(file_sha256=file.sha256, file_size=file.size, chunks=OLD_INDEX.chunks)
    assert device.fetch(file, lying, [OLD_INDEX]) == NEW
    assert device.kinds() == [NoticeKind.REUSE_FAILED]
    assert device.notices[0].bytes_more == len(NEW)


def test_content_defined_chunks_find_bytes_that_moved(here: World, tmp_path: Path) -> None:
    old = noise(3_000_000, seed=4)
    new = old[:1_000_000] + b"a few bytes more" + old[1_000_000:]
    indexes = []
    for name, data in (("old", old), ("new", new)):
        (tmp_path / name).write_bytes(data)
        indexes.append(chunk_index(tmp_path / name, sha256(data)))
    device = here.device()
    device.store.add(old)
    assert device.fetch(publish(here.web, new), indexes[1], [indexes[0]]) == new
    assert device.budget.spent() < 600_000


def test_any_old_file_gives_the_new_one(here: World) -> None:
    choose = random.Random(5)  # noqa: S311 - the same every time
    device = here.device()
    for _ in range(25):
        cuts = sorted(choose.randrange(len(OLD)) for _ in range(6))
        new = noise(choose.randrange(1, 9000), seed=choose.randrange(1000)).join(
            (OLD[cuts[0] : cuts[1]], OLD[cuts[2] : cuts[3]], OLD[cuts[4] : cuts[5]])
        )
        size = choose.randrange(100, 20_000)
        device.store.add(OLD)
        assert device.fetch(publish(here.web, new), chunked(new, size), [chunked(OLD, size)]) == new


def _files(device_folder: Path) -> ChunkIndexes:
    return ChunkIndexes(device_folder / "chunks")


def test_the_index_comes_with_the_file_and_is_kept_for_the_next(here: World) -> None:
    device = here.device()
    indexes = _files(device.folder)
    bring = BundleFiles(device.downloads, indexes)
    old, new = publish(here.web, OLD), publish(here.web, NEW)
    old_index = publish(here.web, write_chunks(OLD_INDEX), "old.chunks")
    new_index = publish(here.web, write_chunks(NEW_INDEX), "new.chunks")
    bring.fetch(old, old_index, [], device.order())
    before = device.budget.spent()
    coming = bring.prepare(new, new_index, [OlderFile(old.sha256)], device.order())
    assert coming.cost_bytes == 2 * SIZE
    path = bring.bring(coming, device.order())
    assert path.read_bytes() == NEW
    assert device.budget.spent() == before + 2 * SIZE + new_index.size
    assert device.notices == []
    indexes.sweep({new.sha256})
    assert indexes.of(new.sha256) == NEW_INDEX
    assert indexes.of(old.sha256) is None


def test_the_index_of_an_older_file_is_fetched_when_it_is_not_kept(here: World) -> None:
    device = here.device()
    device.store.add(OLD)
    bring = BundleFiles(device.downloads, _files(device.folder))
    old_index = publish(here.web, write_chunks(OLD_INDEX), "old.chunks")
    new_index = publish(here.web, write_chunks(NEW_INDEX), "new.chunks")
    older = [OlderFile(OLD_INDEX.file_sha256, old_index)]
    bring.fetch(publish(here.web, NEW), new_index, older, device.order())
    assert device.budget.spent() == 2 * SIZE + old_index.size + new_index.size


def test_a_missing_index_is_told_and_the_budget_asked_for_the_whole_file(here: World) -> None:
    device = here.device()
    device.store.add(OLD)
    bring = BundleFiles(device.downloads, _files(device.folder))
    new_index = publish(here.web, write_chunks(NEW_INDEX), "new.chunks")
    here.server.fault("*.chunks", status(404))
    older = [OlderFile(OLD_INDEX.file_sha256)]
    coming = bring.prepare(publish(here.web, NEW), new_index, older, device.order(3 * SIZE))
    assert coming.cost_bytes == len(NEW)
    with pytest.raises(BudgetError):
        bring.bring(coming, device.order(3 * SIZE))
    assert device.kinds() == [NoticeKind.REUSE_FAILED] * 2


def test_a_kept_index_that_was_damaged_is_fetched_again(here: World) -> None:
    device = here.device()
    indexes = _files(device.folder)
    new = publish(here.web, NEW)
    new_index = publish(here.web, write_chunks(NEW_INDEX), "new.chunks")
    indexes.keep(new.sha256, write_chunks(NEW_INDEX)[:-3])
    BundleFiles(device.downloads, indexes).prepare(new, new_index, [], device.order())
    assert indexes.of(new.sha256) == NEW_INDEX

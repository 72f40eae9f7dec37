"""Any row of faults, with restarts between them: the file comes, whole, and is paid for once."""

import random
from pathlib import Path

import pytest

from agent.errors import CanceledError, TrustError
from tests.agent_downloads import chunked, noise, publish, world
from tests.hostile_http import (
    PIECE_BYTES,
    Fault,
    hang_up,
    hostile_server,
    ignore_range,
    replace,
    reset,
    status,
    truncate,
    wrong_range,
)

pytestmark = pytest.mark.integration

SIZE = 20_000
OLD = noise(40 * SIZE)
NEW = OLD[: 9 * SIZE] + noise(12 * SIZE, seed=1) + OLD[21 * SIZE : 30 * SIZE] + noise(3000, seed=2)
NEW_BYTES = 12 * SIZE + 3000


def _fault(choose: random.Random) -> Fault:
    after = choose.randrange(3 * SIZE)
    return choose.choice(
        [truncate(after), reset(after), hang_up(), status(500), status(429), wrong_range(after + 1)]
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("reuse", [False, True], ids=["whole", "chunks"])
def test_a_bad_network_costs_time_and_no_byte(tmp_path: Path, seed: int, *, reuse: bool) -> None:
    choose = random.Random(seed)  # noqa: S311 - the same every time
    with world(tmp_path) as here:
        file = publish(here.web, NEW)
        chunks, older = (chunked(NEW, SIZE), [chunked(OLD, SIZE)]) if reuse else (None, [])
        skip = 0
        for _ in range(12):
            skip += choose.randrange(2)
            here.server.fault("*", _fault(choose), times=1, skip=skip)
        spent = 0
        for _ in range(50):
            device = here.device()
            device.store.add(OLD)
            left = choose.randrange(1, 4)
            device.tell = lambda _, device=device, left=left: (  # type: ignore[misc]
                device.cancelled.set() if len(device.notices) >= left else None
            )
            try:
                assert device.fetch(file, chunks, older) == NEW
            except CanceledError:
                device.close()
                continue
            spent = device.budget.spent("artifact")
            break
        assert spent >= (NEW_BYTES if reuse else len(NEW))
        # A server that told a wrong range is asked for all, which costs at most that each time.
        fulls = [seen for seen in here.server.requests if "range" not in seen.headers]
        assert spent <= (1 + len(fulls)) * (len(NEW) + PIECE_BYTES)


@pytest.mark.parametrize("seed", range(8))
def test_mirrors_that_lie_cost_no_wrong_byte(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311 - the same every time
    with world(tmp_path) as here, hostile_server(here.web) as one, hostile_server(here.web) as two:
        file = publish(here.web, NEW)
        wrong = bytearray(NEW)
        wrong[choose.randrange(len(NEW))] ^= 1
        lies = [replace(bytes(wrong)), ignore_range(), truncate(choose.randrange(len(NEW)))]
        for mirror in (one, two):
            mirror.fault("*", choose.choice(lies))
        here.server.fault("*", _fault(choose), times=2)
        device = here.device(one.url, two.url)
        chunks = chunked(NEW, SIZE) if choose.random() < 0.5 else None
        assert device.fetch(file, chunks) == NEW


def test_a_repository_that_lies_is_told_and_believed_again_when_it_is_right(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as here:
        file = publish(here.web, NEW)
        wrong = bytearray(NEW)
        wrong[15 * SIZE] ^= 1
        here.server.fault("*", replace(bytes(wrong)))
        device = here.device()
        with pytest.raises(TrustError):
            device.fetch(file, chunked(NEW, SIZE))
        kept = device.downloads.part(file.sha256).stat().st_size
        assert kept == 15 * SIZE
        here.server.heal()
        here.server.forget()
        assert device.fetch(file, chunked(NEW, SIZE)) == NEW
        assert here.server.sent_bytes[file.path] == len(NEW) - kept

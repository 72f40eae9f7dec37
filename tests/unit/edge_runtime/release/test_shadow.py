"""The shadow samples sparingly, copies once, and hands over what comparisons show."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.release.compare import Comparison, OutputComparison
from edge_runtime.release.evidence import Observation
from edge_runtime.release.shadow import Shadow, digest_of, observed, size_of
from edge_runtime.release.trial_messages import Compared
from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array
from tests.fakes import WAIT_S, FakeLoader, bundle

X = {"x": np.ones((1, 2), np.float32)}
FINE = Compared(comparison=Comparison(), active_s=0.1, candidate_s=0.2, cpu_s=0.5)
ACTIVE, CANDIDATE = (FakeLoader()(bundle("m", version)) for version in (1, 2))
CANDIDATE.on_trial = True


class Bench:
    """A shadow whose clock a test turns, and whose comparisons it ends.

    Attributes:
        now_s: The time.
        asked: Inputs of the comparisons that were begun.
        seen: What they showed.
    """

    def __init__(self, *, cpu_share: float = 1.0, version: str = "") -> None:
        self.now_s = 100.0
        self.asked: list[Mapping[str, Array]] = []
        self.seen: list[Observation] = []
        self._answers: asyncio.Queue[Compared | Exception] = asyncio.Queue()
        self._moved = asyncio.Event()
        self.shadow = Shadow(
            self._compare,
            self._observe,
            block_s=1.0,
            cpu_share=cpu_share,
            version=version,
            bytes_max=1_000_000,
            clock=lambda: self.now_s,
            jitter=lambda: 0.0,
        )

    async def _compare(self, feeds: Mapping[str, Array]) -> Compared:
        self.asked.append(feeds)
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _observe(self, observation: Observation) -> None:
        self.seen.append(observation)

    def offer(self, feeds: Mapping[str, Array] = X, loaded: LoadedVersion = ACTIVE) -> bool:
        """Offer a request as the request path does; tell whether it was taken."""
        before = self.shadow.taken
        if self.shadow.wants(loaded):
            self.shadow.take(loaded, feeds)
        return self.shadow.taken > before

    async def end(self, answer: Compared | Exception = FINE) -> None:
        """End the comparison that goes on."""
        self._answers.put_nowait(answer)
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "shadow"]
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait([task])


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.shadow.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "shadow"]


# -- sampling ------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_one_comparison_at_a_time_and_one_a_block(bench: Bench) -> None:
    assert bench.offer()
    bench.now_s += 50
    assert not bench.offer(), "the first one goes on"
    await bench.end()
    assert bench.offer()
    await bench.end()
    bench.now_s += 0.999
    assert not bench.offer(), "the block goes on"
    bench.now_s += 0.001
    assert bench.offer()
    await bench.end()
    assert [each.at_s for each in bench.seen] == [100.0, 150.0, 151.0]


@pytest.mark.asyncio
async def test_comparisons_take_no_more_than_their_share_of_the_cpu() -> None:
    bench = Bench(cpu_share=0.1)
    assert bench.offer()
    await bench.end(Compared(comparison=Comparison(), cpu_s=3.0))
    bench.now_s += 29.9
    assert not bench.offer()
    bench.now_s += 0.1
    assert bench.offer()
    await bench.shadow.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(("version", "wanted"), [("", (True, False)), ("2", (False, True))])
async def test_only_the_version_that_is_compared_with_is_sampled(
    version: str, wanted: tuple[bool, bool]
) -> None:
    shadow = Bench(version=version).shadow
    assert (shadow.wants(ACTIVE), shadow.wants(CANDIDATE)) == wanted


@pytest.mark.asyncio
async def test_inputs_are_copied_before_the_client_writes_on(bench: Bench) -> None:
    theirs = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert bench.offer({"x": theirs.T})
    theirs[:] = -1
    await bench.end()
    (feeds,) = bench.asked
    assert feeds["x"].tolist() == [[0, 2], [1, 3]]
    assert feeds["x"].flags.c_contiguous
    assert feeds["x"].flags.owndata


@pytest.mark.asyncio
async def test_inputs_that_are_too_large_are_passed_over_and_counted(bench: Bench) -> None:
    assert not bench.offer({"x": np.zeros(250_001, np.float32)})
    assert bench.shadow.too_large == 1
    assert not bench.offer(), "it had its turn"
    bench.now_s += 1
    assert bench.offer({"x": np.zeros(200_000, np.float32)})
    await bench.end()
    assert len(bench.seen) == 1


@pytest.mark.asyncio
async def test_a_program_that_asks_in_a_rhythm_is_not_always_the_one_seen() -> None:
    jitters = iter([0.0, 1.0, 0.5])
    bench = Bench()
    bench.shadow._jitter = lambda: next(jitters)
    due = []
    for _ in range(3):
        while not bench.shadow.wants(ACTIVE):
            bench.now_s += 0.125
        due.append(bench.now_s)
        bench.offer()
        await bench.end(Compared(comparison=Comparison()))
    assert due == [100.0, 101.0, 102.25]
    await bench.shadow.close()


# -- what comes of it ----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_equal_inputs_have_equal_digests(bench: Bench) -> None:
    for value in (1, 2, 1):
        bench.offer({"x": np.full(3, value)})
        await bench.end()
        bench.now_s += 1
    one, two, again = [each.input_digest for each in bench.seen]
    assert one == again != two


@pytest.mark.asyncio
async def test_a_comparison_that_says_nothing_is_counted_and_not_observed(bench: Bench) -> None:
    bench.offer()
    await bench.end(Compared(skipped="warming up"))
    assert bench.seen == []
    assert (bench.shadow.skipped, bench.shadow.skipped_why) == (1, "warming up")


@pytest.mark.asyncio
async def test_a_defect_is_logged_and_sampling_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.offer()
    await bench.end(RuntimeError("defect"))
    assert "nobody foresaw" in caplog.text
    assert bench.seen == []
    assert bench.shadow.skipped == 1
    bench.now_s += 1
    assert bench.offer()
    await bench.end()
    assert len(bench.seen) == 1


@pytest.mark.asyncio
async def test_after_the_end_nothing_is_wanted_and_nothing_observed(bench: Bench) -> None:
    bench.offer()
    await asyncio.sleep(0)
    assert bench.asked
    await bench.shadow.close()
    bench.now_s += 100
    assert not bench.offer()
    assert bench.seen == []
    await bench.shadow.close()


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (FINE, (False, False, False, 1.0)),
        (Compared(active_error="no"), (True, False, False, 0.0)),
        (Compared(candidate_error="no"), (False, True, False, 0.0)),
        (Compared(crashed="candidate"), (False, True, False, 0.0)),
        (Compared(crashed="active"), (True, False, False, 0.0)),
        (
            Compared(
                comparison=Comparison(
                    outputs=(OutputComparison(name="y", agreement=0.5, candidate_bad=True),)
                )
            ),
            (False, False, True, 0.5),
        ),
    ],
)
def test_an_observation_says_what_both_did(
    found: Compared, shown: tuple[bool, bool, bool, float]
) -> None:
    observation = observed(found, 7.0, b"digest")
    assert observation is not None
    assert shown == (
        observation.is_error_active,
        observation.is_error_candidate,
        observation.is_bad,
        observation.agrees,
    )
    assert (observation.at_s, observation.input_digest) == (7.0, b"digest")
    assert (observation.active_s, observation.candidate_s) == (found.active_s, found.candidate_s)


def test_a_comparison_without_anything_to_compare_shows_nothing() -> None:
    assert observed(Compared(), 0.0, b"") is None


# -- digests -------------------------------------------------------------------------------------

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.bool_]), hnp.array_shapes(min_dims=0, min_side=0)
)


@given(st.dictionaries(st.text(max_size=3), ARRAYS, max_size=3), st.data())
def test_digests_tell_inputs_apart_and_nothing_else(
    feeds: dict[str, Array], data: st.DataObject
) -> None:
    twin = {name: feeds[name].copy(order="F") for name in reversed(list(feeds))}
    assert digest_of(twin) == digest_of(feeds)
    assert size_of(twin) == size_of(feeds) >= 0
    others = [name for name, array in feeds.items() if array.size]
    if others:
        changed = data.draw(st.sampled_from(others))
        array = twin[changed] = np.array(twin[changed], order="C")
        array.reshape(-1).view(np.uint8)[0] ^= 1
        assert digest_of({**feeds, changed: array}) != digest_of(feeds)


@given(st.lists(st.binary(max_size=3), max_size=4), st.lists(st.binary(max_size=3), max_size=4))
def test_digests_of_texts_know_where_each_ends(one: list[bytes], two: list[bytes]) -> None:
    def feeds(texts: list[bytes]) -> dict[str, Array]:
        array = np.empty(len(texts), object)
        array[:] = texts
        return {"x": array}

    assert (digest_of(feeds(one)) == digest_of(feeds(two))) == (one == two)
    assert size_of(feeds(one)) == sum(map(len, one))


def test_shapes_and_datatypes_are_part_of_a_digest() -> None:
    arrays = [np.zeros(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int32)]
    assert len({digest_of({"x": array}) for array in arrays}) == 3

"""The shadow: inputs of real requests, copied and compared beside the request path.

Sparing by construction: one comparison at a time, at most one in a time block, and after each one
a pause that keeps its CPU time within the share. What comes meanwhile is not kept: requests of one
block are much alike, so a queue of them would be memory without evidence. While nothing is asked,
there is no task and no timer.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import numpy as np

from edge_runtime.release.evidence import Observation
from edge_runtime.release.trial_messages import Compared
from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array

_log = logging.getLogger(__name__)

BYTES_MAX: Final = 67_108_864
"""Largest inputs that are copied: that takes milliseconds on the loop's thread, once a block."""

_INLINE_BYTES: Final = 131_072  # what is smaller is hashed sooner than a thread would wake up
_JITTER: Final = 0.25  # of a block: programs that ask in a rhythm must not always be the one seen

Feeds = Mapping[str, Array]
Compare = Callable[[Feeds], Awaitable[Compared]]
Observe = Callable[[Observation], None]


class Shadow:
    """Samples the requests of one version of a model; a ``tap.Tap``.

    Args:
        compare: Runs both versions on the same inputs; called with arrays that nobody writes to.
        observe: Takes what came of each comparison that says something.
        block_s: Least time from one comparison to the next, in seconds.
        cpu_share: Share of one CPU that comparisons take at most.
        version: Whose requests are sampled; empty: every version's that is not on trial.
        bytes_max: Largest inputs that are copied, in bytes.
        clock: Time awake, in seconds.
        jitter: Gives a number from 0 to 1, for the time between two comparisons.

    Attributes:
        taken: Requests whose inputs were copied.
        too_large: Requests that were passed over because of ``bytes_max`` or for lack of memory.
        skipped: Comparisons that said nothing.
        skipped_why: Why the last one of them did not; empty: there was none.
    """

    def __init__(
        self,
        compare: Compare,
        observe: Observe,
        *,
        block_s: float,
        cpu_share: float,
        version: str = "",
        bytes_max: int = BYTES_MAX,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._compare = compare
        self._observe = observe
        self._block_s = block_s
        self._cpu_share = cpu_share
        self._version = version
        self._bytes_max = bytes_max
        self._clock = clock
        self._jitter = jitter
        self._is_closed = False
        self._is_busy = False
        self._due_s = clock()
        self._task: asyncio.Task[None] | None = None
        self.taken = 0
        self.too_large = 0
        self.skipped = 0
        self.skipped_why = ""

    # -- the request path ----------------------------------------------------------------------

    def wants(self, loaded: LoadedVersion) -> bool:
        """Tell whether to copy the inputs of the next request of a version."""
        if self._is_busy or self._clock() < self._due_s:
            return False
        return loaded.version == self._version if self._version else not loaded.on_trial

    def take(self, loaded: LoadedVersion, feeds: Feeds) -> None:  # noqa: ARG002 - the interface
        """Copy the inputs of a request, and have them compared when this turn of the loop is over.

        Args:
            loaded: The version that will run on them.
            feeds: Arrays by input name.
        """
        at_s = self._clock()
        self._due_s = at_s + self._block_s * (1 + _JITTER * self._jitter())
        size = size_of(feeds)
        try:
            if size > self._bytes_max:
                raise MemoryError  # noqa: TRY301 - the same as none to be had
            copies = {name: np.array(array, order="C") for name, array in feeds.items()}
        except MemoryError:
            self.too_large += 1
            return
        self.taken += 1
        self._is_busy = True
        work = self._work(at_s, copies, size)
        self._task = asyncio.get_running_loop().create_task(work, name="shadow")

    # -- beside it -----------------------------------------------------------------------------

    async def close(self) -> None:
        """Sample nothing any more; a comparison that goes on is given up, and not observed."""
        self._is_closed = self._is_busy = True
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    async def _work(self, at_s: float, feeds: Feeds, size: int) -> None:
        try:
            if size <= _INLINE_BYTES:
                digest = digest_of(feeds)
            else:
                digest = await asyncio.to_thread(digest_of, feeds)
            found = await self._compare(feeds)
            self._due_s = max(self._due_s, at_s + found.cpu_s / self._cpu_share)
            observation = observed(found, at_s, digest)
            if self._is_closed:
                return
            if observation is None:
                self._skip(found.skipped)
            else:
                self._observe(observation)
        except Exception:  # noqa: BLE001 - the outermost frame of a task; it is logged
            _log.exception("a comparison failed in a way nobody foresaw")
            self._skip("it failed in a way nobody foresaw; the log says why")
            took_s = self._clock() - at_s  # nobody knows how much of it was CPU time
            self._due_s = max(self._due_s, at_s + took_s / self._cpu_share)
        finally:
            self._is_busy = self._is_closed

    def _skip(self, why: str) -> None:
        self.skipped += 1
        self.skipped_why = why


def observed(found: Compared, at_s: float, input_digest: bytes) -> Observation | None:
    """Say what a comparison shows; pure.

    Args:
        found: What both versions did.
        at_s: When the inputs came, in awake seconds.
        input_digest: Tells them from others.

    Returns:
        What may count as evidence; ``None``: there is nothing to learn from it.
    """
    comparison = found.comparison
    is_error_active = bool(found.active_error) or found.crashed == "active"
    is_error_candidate = bool(found.candidate_error) or found.crashed == "candidate"
    if found.skipped or (comparison is None and not (is_error_active or is_error_candidate)):
        return None
    return Observation(
        at_s=at_s,
        input_digest=input_digest,
        is_error_active=is_error_active,
        is_error_candidate=is_error_candidate,
        is_bad=comparison is not None and comparison.is_bad,
        agrees=comparison.agreement if comparison is not None else 0.0,
        active_s=found.active_s,
        candidate_s=found.candidate_s,
    )


def size_of(feeds: Feeds) -> int:
    """Add up the bytes of inputs; texts count with their lengths."""
    return sum(
        sum(map(len, array.flat)) if array.dtype == object else array.nbytes
        for array in feeds.values()
    )


def digest_of(feeds: Feeds) -> bytes:
    """Hash inputs: names, datatypes, shapes and elements, so that only equal ones are equal.

    Args:
        feeds: Arrays by input name.

    Returns:
        SHA-256, 32 bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(feeds):
        array = feeds[name]
        digest.update(f"{name}\0{array.dtype.str}{array.shape}\0".encode("utf-8", "surrogatepass"))
        if array.dtype == object:
            for each in array.flat:
                element = each if isinstance(each, bytes) else str(each).encode()
                digest.update(len(element).to_bytes(8, "little") + element)
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()

"""What a step of a release ends with, and what it works with."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from edge_runtime.manifest import Manifest
from edge_runtime.release.awake import AwakeClock
from edge_runtime.release.journal import Journal
from edge_runtime.release.policy import Thresholds
from edge_runtime.release.records import Release
from edge_runtime.release.serving import Serving
from edge_runtime.release.states import Cause, Event
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings import Release as Settings
from edge_runtime.tap import Tap

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.release.trial import Trial
    from edge_runtime.store.store import Store

_Result = TypeVar("_Result")


class Outcome(NamedTuple):
    """How a step ended.

    Attributes:
        event: What the table of transitions is asked with.
        cause: Why, where something went wrong.
        reason: Why, as a sentence.
        numbers: What was measured.
        changes: Fields of the release that become known with it.
        is_sure: Whether it is this version's fault, where that is not told by the cause.
    """

    event: Event
    cause: Cause | None = None
    reason: str = ""
    numbers: Mapping[str, Any] = {}
    changes: Mapping[str, Any] = {}
    is_sure: bool = True


class MakeTrial(Protocol):
    """Prepares to try a candidate out in processes of its own."""

    def __call__(
        self, candidate: "Bundle", active: LoadedVersion | None, variant: str = "", /
    ) -> "Trial":
        """Prepare; nothing runs yet.

        Args:
            candidate: Installed in the store.
            active: What answers now; ``None``: nothing does.
            variant: The candidate's, as it was chosen; empty: to be chosen.
        """
        ...


@dataclass
class Means:
    """What the releases of a device share.

    Attributes:
        settings: How releases are judged.
        thresholds: What a release must reach.
        journal: What is stored; used on its own thread, through ``keep``.
        serving: What answers.
        store: Installed versions.
        clock: Awake time.
        boot_id: Of this boot.
        make_trial: Prepares to try a candidate out.
        digests: Names what a bundle's variants would compute with here, by variant.
        taps: Where copies of inputs are taken, by model.
        keep: Does something on the journal's thread, and waits a bounded time for it.
    """

    settings: Callable[[], Settings]
    thresholds: Callable[[Release], Thresholds]
    journal: Journal
    serving: Serving
    store: "Store"
    clock: AwakeClock
    boot_id: str
    make_trial: MakeTrial
    digests: Callable[[Manifest], Mapping[str, str]]
    taps: dict[str, Tap]
    keep: "Keep"


class Keep(Protocol):
    """Does something on the journal's thread."""

    def __call__(self, work: Callable[[], _Result], /) -> Awaitable[_Result]:
        """Do it, and give its result; ``StorageError`` where the disk does not answer in time."""
        ...

    def patiently(self, work: Callable[[], _Result], /) -> "asyncio.Future[_Result]":
        """Do it, however long it takes."""
        ...


@dataclass
class Progress:
    """What a release under way can tell, and what it may be told.

    Attributes:
        release: As it is stored.
        is_held: Whether a local hold keeps it from going on.
        changed: Set when a hold or an order came.
        judged: What the evidence said last: sentences.
        numbers: What the evidence said last: measurements.
        problem: Why nothing moves now; empty: nothing is wrong.
        is_agreement_proven: Whether the shadow has proven the floor since the daemon started.
        trouble: Why comparisons are missing; empty: none are.
    """

    release: Release
    is_held: Callable[[], bool]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    judged: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    trouble: str = ""
    is_agreement_proven: bool = False

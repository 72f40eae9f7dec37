"""The parts that bring updates, put together; starts nothing."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from agent import locations
from agent.clock import Clock
from agent.device.bundles import Bundles
from agent.device.conditions import Conditions
from agent.device.importing import Importing
from agent.device.local_contents import LocalContents
from agent.device.plans import PlanLooking
from agent.device.remarks import Remarks
from agent.device.reports import NoReports, Reports
from agent.device.runtime import Runtime
from agent.download.downloads import Downloads
from agent.download.import_folder import ImportFolder
from agent.download.indexes import ChunkIndexes
from agent.download.notices import Progress
from agent.elapsed_time import ElapsedTime
from agent.errors import StateError
from agent.member import Member
from agent.messaging import Messaging
from agent.records.budget import Budget
from agent.records.file import RecordsFile
from agent.records.floors import Floors
from agent.records.updates import Update, Updates
from agent.runtime_client.handover import Handover
from agent.trust.http import open_http
from agent.trust.places import places_of
from agent.trust.repository import Following, Repository
from agent.trust.room import unlimited
from agent.update.deadlines import Deadlines
from agent.update.machine import UpdateMachine
from fleet.documents.paths import ARTIFACTS_FOLDER

_log = logging.getLogger(__name__)

OnProgress = Callable[[Update, str, Progress], None]
"""Told how far a file of an update is."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What bringing updates stands on.

    Attributes:
        member: Who the device is.
        file: agent.db.
        clock: Tells the time.
        elapsed: Counts how much of it has passed.
        budget: Counts bytes.
        runtime: The daemon.
        handover: Its hand-over socket.
        conditions: How the device is.
        messaging: The way to the fleet.
        updates: What is remembered of updates.
        on_progress: Told how far a file of an update is.
    """

    member: Member
    file: RecordsFile
    clock: Clock
    elapsed: ElapsedTime
    budget: Budget
    runtime: Runtime
    handover: Handover
    conditions: Conditions
    messaging: Messaging
    updates: Updates
    on_progress: OnProgress


@dataclass(frozen=True, kw_only=True)
class UpdateParts:
    """What brings updates.

    Attributes:
        repository: What is believed.
        looking: Decides about plans.
        machine: Takes updates further.
    """

    repository: Repository
    looking: PlanLooking
    machine: UpdateMachine


def update_parts(ground: Ground) -> UpdateParts | None:
    """Put together what brings updates; ``None``: nothing says by what to judge them.

    Raises:
        AgentError: A part cannot be built.
    """
    config = ground.member.config
    if not (config.repository.url or config.repository.root):
        return None
    # Without a network, releases come in files: see `edge-agent import`.
    url = config.repository.url or imported_url(ground.member)
    repository = believing(ground, url)
    looking = PlanLooking(
        config.device.channel,
        repository,
        ground.runtime,
        ground.updates,
        ground.conditions,
        ground.elapsed,
    )
    remarks = Remarks(ground.member.state)
    messaging = ground.messaging
    reports = Reports(messaging.outbox, messaging.topics, remarks, ground.runtime, messaging.wake)
    machine = UpdateMachine(
        updates=ground.updates,
        downloads=_bundles(ground, repository, remarks),
        device=ground.runtime,
        plans=looking,
        reports=reports if config.mqtt.brokers else NoReports(),
        deadlines=Deadlines(
            download_s=config.updates.download_s,
            handover_s=config.updates.handover_s,
            verdict_s=config.updates.verdict_s,
        ),
        now_s=ground.clock.wall_s,
        elapsed_s=ground.elapsed.now_s,
        poll_s=ground.member.config.runtime.poll_s,
    )
    return UpdateParts(repository=repository, looking=looking, machine=machine)


def imported_url(member: Member) -> str:
    """Give the URL of what was imported last."""
    return (member.state / locations.IMPORTED).absolute().as_uri()


def importing(ground: Ground) -> Importing:
    """Make what takes an import that is laid out."""
    folder = ImportFolder(ground.member.state / locations.IMPORTED)
    return Importing(folder, lambda url: believing(ground, url))


def believing(ground: Ground, url: str) -> Repository:
    """Make what believes a repository.

    Args:
        ground: What it stands on.
        url: Where the repository is.
    """
    config = ground.member.config
    settings = msgspec.structs.replace(config.repository, url=url)
    is_here = url.startswith("file:")
    return Repository(
        ground.member.state / "tuf",
        settings,
        Floors(ground.file),
        ground.clock,
        _nothing if is_here else _counter(ground.budget),
        room=unlimited if is_here else lambda: ground.budget.room("metadata"),
        following=Following(config.device.channel, config.device.fleet),
    )


def _bundles(ground: Ground, repository: Repository, remarks: Remarks) -> Bundles:
    config, state = ground.member.config, ground.member.state
    local = LocalContents(ground.handover, state / locations.IMPORTED / ARTIFACTS_FOLDER)
    servers: list[str] = []
    if config.repository.url:
        places = places_of(config.repository)
        servers = [*places.mirrors, places.artifacts]
    downloads = Downloads(
        state / "blobs",
        open_http(config.repository, ground.clock),
        servers,
        settings=config.downloads,
        budget=ground.budget,
        have=local.open,
    )
    return Bundles(
        state / "updates",
        repository=repository,
        downloads=downloads,
        indexes=ChunkIndexes(state / "chunks"),
        handover=ground.handover,
        installed=lambda: {
            model: standing.installed for model, standing in ground.runtime.standings().items()
        },
        remarks=remarks,
        on_progress=ground.on_progress,
    )


def _counter(budget: Budget) -> Callable[[int], None]:
    """Count bytes of metadata; that the disk does not take the count stops no refresh."""

    def count(size: int) -> None:
        try:
            budget.spend("metadata", size)
        except StateError as error:
            _log.warning("bytes were not counted: %s", error.message)

    return count


def _nothing(size: int) -> None:
    """Count nothing: it came from this disk."""

"""Puts the agent together from its configuration; starts nothing."""

import fcntl
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agent import locations
from agent.clock import Clock
from agent.config import Config
from agent.device.bundles import Bundles
from agent.device.conditions import Conditions
from agent.device.local_contents import LocalContents
from agent.device.plans import PlanLooking
from agent.device.reports import NoReports, Reports
from agent.device.runtime import Runtime
from agent.download.downloads import Downloads
from agent.download.indexes import ChunkIndexes
from agent.download.notices import Progress
from agent.enrolment.membership import Membership, read_membership, unpack
from agent.errors import ConfigError, StateError
from agent.identity import DeviceKey, device_key
from agent.member_settings import completed, machine_id, named
from agent.messaging import Messaging
from agent.pause import Pause
from agent.records import budget, command_floor, floors, outbox_rows, updates
from agent.records.file import RecordsFile
from agent.runtime_client.admin import Admin
from agent.runtime_client.handover import Handover
from agent.settings.device import LinkClass
from agent.settings.device import Repository as RepositorySettings
from agent.telemetry.link_class import default_interfaces, is_metered
from agent.telemetry.sampling import Sampling
from agent.topics import Topics
from agent.trust.http import open_http
from agent.trust.places import places_of
from agent.trust.repository import Following, Repository
from agent.update.deadlines import Deadlines
from agent.update.machine import UpdateMachine
from edge_runtime.hardware import CpuFacts, cpu_facts
from fleet.documents.paths import ARTIFACTS_FOLDER

_log = logging.getLogger(__name__)

LOCK: Final = "agent.lock"
SCHEMAS: Final = (
    updates.SCHEMA,
    floors.SCHEMA,
    budget.SCHEMA,
    outbox_rows.SCHEMA,
    command_floor.SCHEMA,
)


@dataclass(frozen=True)
class Member:
    """A device that knows who it is.

    Attributes:
        config: With what enrolment knows put in.
        state: Its folder.
        membership: What enrolment left; ``None``: nothing.
    """

    config: Config
    state: Path
    membership: Membership | None


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The agent's parts.

    Attributes:
        member: Who it is.
        lock: Descriptor that keeps a second agent out.
        file: agent.db.
        clock: Tells the time.
        budget: Counts bytes.
        key: Signs.
        cpu: The processor.
        pause: Whether updates are paused.
        admin: The daemon's admin socket.
        runtime: The daemon, as updates need it.
        sampling: Measures.
        conditions: How the device is.
        messaging: MQTT.
        repository: What is believed; ``None``: none is configured.
        looking: Decides about plans; ``None``: there is no repository.
        updates: What is remembered of updates.
        machine: Takes updates further; ``None``: there is no repository.
        imported: Makes what believes the files that were imported last.
    """

    member: Member
    lock: int
    file: RecordsFile
    clock: Clock
    budget: budget.Budget
    key: DeviceKey
    cpu: CpuFacts
    pause: Pause
    admin: Admin
    runtime: Runtime
    sampling: Sampling
    conditions: Conditions
    messaging: Messaging
    repository: Repository | None
    looking: PlanLooking | None
    updates: updates.Updates
    machine: UpdateMachine | None
    imported: Callable[[], Repository]

    def close(self) -> None:
        """Let go of files; what was never started is not stopped."""
        self.budget.settle()
        self.file.close()
        os.close(self.lock)


def member(config: Config) -> Member:
    """Find out who this device is.

    Args:
        config: As the owner wrote it.

    Raises:
        ConfigError: It belongs to no fleet, or what enrolment left cannot be read.
        StateError: The disk refused.
    """
    state = locations.state_directory(config.state_dir)
    locations.make_state_directory(state)
    membership = read_membership(state)
    paths = ("", "", "")
    if membership is not None:
        ca, certificate, root = unpack(state, membership)
        paths = str(ca), str(certificate), str(root)
    return Member(named(completed(config, membership, paths), machine_id()), state, membership)


def lock_state(state: Path) -> int:
    """Keep a second agent out of a state folder.

    Returns:
        A descriptor; closing it lets others in.

    Raises:
        ConfigError: Another agent has it.
        StateError: The disk refused.
    """
    path = state / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another edge-agent uses {state}: ask it (`edge-agent status`), or stop it first"
        ) from error
    return descriptor


def assemble(
    who: Member,
    *,
    on_message: Callable[[], None],
    on_connected: Callable[[], None],
    on_progress: Callable[[updates.Update, str, Progress], None],
) -> Assembly:
    """Build everything.

    Args:
        who: See ``member``.
        on_message: Called when something came; must not block.
        on_connected: Called when the broker is there; must not block.
        on_progress: Told how far a file of an update is.

    Raises:
        AgentError: A part cannot be built.
    """
    lock = lock_state(who.state)
    try:
        return _assembled(who, lock, on_message, on_connected, on_progress)
    except BaseException:
        os.close(lock)
        raise


def _assembled(
    who: Member,
    lock: int,
    on_message: Callable[[], None],
    on_connected: Callable[[], None],
    on_progress: Callable[[updates.Update, str, Progress], None],
) -> Assembly:
    config, state = who.config, who.state
    file = RecordsFile(state / locations.DATABASE, SCHEMAS)
    clock = Clock(floors.Floors(file), config.device.clock_is_trusted)
    link = _link_class(config.device.link)
    downloads = config.downloads
    limits: dict[LinkClass, int] = {
        "unmetered": downloads.month_bytes,
        "metered": downloads.metered_month_bytes,
    }
    money = budget.Budget(file, clock.wall_s, link, limits)
    key = device_key(state)
    cpu = cpu_facts()
    pause = Pause(state)
    admin_path = locations.admin_socket(config.runtime.admin_socket)
    admin = Admin(admin_path, config.runtime.timeout_s)
    handover = Handover(
        locations.handover_socket(config.runtime.handover_socket, admin_path),
        config.runtime.timeout_s,
        config.runtime.handover_s,
    )
    runtime = Runtime(admin, handover)
    sampling = Sampling(
        config.telemetry,
        state=state,
        link=config.device.link,
        admin=admin,
        wall_s=clock.wall_s,
    )
    conditions = Conditions(
        config.device,
        config.updates,
        reserve_bytes=downloads.reserve_bytes,
        cpu=cpu,
        host=sampling.host,
        clock=clock,
        pause=pause,
    )
    topics = Topics(config.device.fleet, config.device.id)
    messaging = Messaging(
        config.mqtt,
        config.outbox,
        file=file,
        folder=locations.runtime_directory(state),
        topics=topics,
        key=key,
        clock=clock,
        budget=money,
        on_message=on_message,
        on_connected=on_connected,
    )
    kept = updates.Updates(file)
    kept = updates.Updates(file)
    repository = looking = machine = None
    here = (state / locations.IMPORTED).absolute().as_uri()

    def believing(settings: RepositorySettings) -> Repository:
        return Repository(
            state / "tuf",
            settings,
            floors.Floors(file),
            clock,
            _counter(money) if settings.url != here else _nothing,
            following=Following(config.device.channel, config.device.fleet),
        )

    def imported() -> Repository:
        return believing(msgspec.structs.replace(config.repository, url=here))

    if config.repository.url or config.repository.root:
        # Without a network, releases come in files: see `edge-agent import`.
        url = config.repository.url or here
        repository = believing(msgspec.structs.replace(config.repository, url=url))
        looking = PlanLooking(config.device.channel, repository, runtime, kept, conditions)
        machine = UpdateMachine(
            updates=kept,
            downloads=_bundles(
                config,
                state,
                repository=repository,
                runtime=runtime,
                handover=handover,
                clock=clock,
                money=money,
                on_progress=on_progress,
            ),
            device=runtime,
            plans=looking,
            reports=Reports(messaging.outbox, topics) if config.mqtt.brokers else NoReports(),
            deadlines=Deadlines(
                download_s=config.updates.download_s,
                handover_s=config.updates.handover_s,
                verdict_s=config.updates.verdict_s,
            ),
            now_s=clock.wall_s,
        )
    return Assembly(
        member=who,
        lock=lock,
        file=file,
        clock=clock,
        budget=money,
        key=key,
        cpu=cpu,
        pause=pause,
        admin=admin,
        runtime=runtime,
        sampling=sampling,
        conditions=conditions,
        messaging=messaging,
        repository=repository,
        looking=looking,
        updates=kept,
        machine=machine,
        imported=imported,
    )


def _bundles(
    config: Config,
    state: Path,
    *,
    repository: Repository,
    runtime: Runtime,
    handover: Handover,
    clock: Clock,
    money: budget.Budget,
    on_progress: Callable[[updates.Update, str, Progress], None],
) -> Bundles:
    local = LocalContents(handover, state / locations.IMPORTED / ARTIFACTS_FOLDER)
    servers: list[str] = []
    if config.repository.url:
        places = places_of(config.repository)
        servers = [*places.mirrors, places.artifacts]
    downloads = Downloads(
        state / "blobs",
        open_http(config.repository, clock),
        servers,
        settings=config.downloads,
        budget=money,
        have=local.open,
    )
    return Bundles(
        state / "updates",
        repository=repository,
        downloads=downloads,
        indexes=ChunkIndexes(state / "chunks"),
        handover=handover,
        installed=lambda model: runtime.standing(model).installed,
        on_progress=on_progress,
    )


def _counter(money: budget.Budget) -> Callable[[int], None]:
    """Count bytes of metadata; that the disk does not take the count stops no refresh."""

    def count(size: int) -> None:
        try:
            money.spend("metadata", size)
        except StateError as error:
            _log.warning("bytes were not counted: %s", error.message)

    return count


def _nothing(size: int) -> None:
    """Count nothing: it came from this disk."""


def _link_class(link: str) -> Callable[[], LinkClass]:
    """Tell whether bytes cost money now."""

    def now() -> LinkClass:
        return "metered" if is_metered(link, default_interfaces()) else "unmetered"

    return now

"""Puts the agent together from its configuration; starts nothing."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent import locations
from agent.clock import Clock
from agent.clone_condition import CloneCondition
from agent.device.conditions import Conditions
from agent.device.importing import Importing
from agent.device.plans import PlanLooking
from agent.device.runtime import Runtime
from agent.elapsed_time import ElapsedTime
from agent.identity import DeviceKey, device_key
from agent.member import Member
from agent.messaging import Messaging
from agent.pause import Pause
from agent.records import budget, command_floor, elapsed, floors, outbox_rows, updates
from agent.records.file import RecordsFile
from agent.runtime_client.admin import Admin
from agent.runtime_client.handover import Handover
from agent.settings.device import LinkClass
from agent.state_lock import lock_state
from agent.telemetry.link_class import default_interfaces, is_metered
from agent.telemetry.sampling import Sampling
from agent.topics import Topics
from agent.trust.repository import Repository
from agent.update.machine import UpdateMachine
from agent.update_parts import Ground, OnProgress, importing, update_parts
from edge_runtime.hardware import CpuFacts, cpu_facts

SCHEMAS: Final = (
    updates.SCHEMA,
    floors.SCHEMA,
    elapsed.SCHEMA,
    budget.SCHEMA,
    outbox_rows.SCHEMA,
    command_floor.SCHEMA,
)


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The agent's parts.

    Attributes:
        member: Who it is.
        lock: Descriptor that keeps a second agent out.
        file: agent.db.
        clock: Tells the time.
        elapsed: Counts how much of it has passed.
        budget: Counts bytes.
        key: Signs.
        cpu: The processor.
        pause: Whether updates are paused.
        clone: Whether another device has this identity.
        admin: The daemon's admin socket.
        runtime: The daemon, as updates need it.
        sampling: Measures.
        conditions: How the device is.
        messaging: MQTT.
        repository: What is believed; ``None``: none is configured.
        looking: Decides about plans; ``None``: there is no repository.
        updates: What is remembered of updates.
        machine: Takes updates further; ``None``: there is no repository.
        importing: Takes an import that is laid out.
    """

    member: Member
    lock: int
    file: RecordsFile
    clock: Clock
    elapsed: ElapsedTime
    budget: budget.Budget
    key: DeviceKey
    cpu: CpuFacts
    pause: Pause
    clone: CloneCondition
    admin: Admin
    runtime: Runtime
    sampling: Sampling
    conditions: Conditions
    messaging: Messaging
    repository: Repository | None
    looking: PlanLooking | None
    updates: updates.Updates
    machine: UpdateMachine | None
    importing: Importing

    def close(self) -> None:
        """Let go of files; what was never started is not stopped."""
        with contextlib.ExitStack() as last:  # one that fails keeps no other from its turn
            last.callback(os.close, self.lock)
            last.callback(self.file.close)
            last.callback(self.elapsed.settle)
            last.callback(self.budget.settle)


@dataclass(frozen=True, kw_only=True)
class Bells:
    """Who is told what happens, on any thread; none may block.

    Attributes:
        on_message: Something came.
        on_connected: The broker is there.
        on_stranger: A birth is to be said for another with this device's signature.
        on_cloned: Another device was seen with this identity.
        on_progress: How far a file of an update is.
    """

    on_message: Callable[[], None] = lambda: None
    on_connected: Callable[[], None] = lambda: None
    on_stranger: Callable[[], None] = lambda: None
    on_cloned: Callable[[], None] = lambda: None
    on_progress: OnProgress = lambda _update, _file, _progress: None


def assemble(who: Member, bells: Bells) -> Assembly:
    """Build everything.

    Args:
        who: See ``agent.member``.
        bells: Who is told what happens.

    Raises:
        AgentError: A part cannot be built.
    """
    lock = lock_state(who.state)
    try:
        file = RecordsFile(who.state / locations.DATABASE, SCHEMAS)
        try:
            return _assembled(who, bells, lock, file)
        except BaseException:
            file.close()
            raise
    except BaseException:
        os.close(lock)
        raise


def _assembled(who: Member, bells: Bells, lock: int, file: RecordsFile) -> Assembly:
    config, state = who.config, who.state
    clock = Clock(floors.Floors(file), config.device.clock_is_trusted)
    passed = ElapsedTime(elapsed.Elapsed(file), clock.believed_s)
    money = _budget(who, file, clock)
    key, cpu, pause, clone = device_key(state), cpu_facts(), Pause(state), CloneCondition(state)
    admin, handover = _sockets(who)
    runtime = Runtime(admin, handover)
    sampling = Sampling(
        config.telemetry, state=state, link=config.device.link, admin=admin, wall_s=clock.wall_s
    )
    conditions = Conditions(
        config.device,
        config.updates,
        reserve_bytes=config.downloads.reserve_bytes,
        cpu=cpu,
        host=sampling.host,
        clock=clock,
        pause=pause,
        clone=clone,
    )
    ground = Ground(
        member=who,
        file=file,
        clock=clock,
        elapsed=passed,
        budget=money,
        runtime=runtime,
        handover=handover,
        conditions=conditions,
        messaging=_messaging(who, bells, file, key, clock, money, is_cloned=clone.stands()),
        updates=updates.Updates(file),
        on_progress=bells.on_progress,
    )
    updating = update_parts(ground)
    return Assembly(
        member=who,
        lock=lock,
        file=file,
        clock=clock,
        elapsed=passed,
        budget=money,
        key=key,
        cpu=cpu,
        pause=pause,
        clone=clone,
        admin=admin,
        runtime=runtime,
        sampling=sampling,
        conditions=conditions,
        messaging=ground.messaging,
        repository=None if updating is None else updating.repository,
        looking=None if updating is None else updating.looking,
        updates=ground.updates,
        machine=None if updating is None else updating.machine,
        importing=importing(ground),
    )


def _messaging(  # noqa: PLR0917 - what it is made of
    who: Member,
    bells: Bells,
    file: RecordsFile,
    key: DeviceKey,
    clock: Clock,
    money: budget.Budget,
    *,
    is_cloned: bool,
) -> Messaging:
    config = who.config
    return Messaging(
        config.mqtt,
        config.outbox,
        file=file,
        folder=locations.runtime_directory(who.state),
        topics=Topics(config.device.fleet, config.device.id),
        key=key,
        clock=clock,
        budget=money,
        on_message=bells.on_message,
        on_connected=bells.on_connected,
        on_stranger=bells.on_stranger,
        on_cloned=bells.on_cloned,
        is_cloned=is_cloned,
    )


def _budget(who: Member, file: RecordsFile, clock: Clock) -> budget.Budget:
    link, downloads = who.config.device.link, who.config.downloads
    limits: dict[LinkClass, int] = {
        "unmetered": downloads.month_bytes,
        "metered": downloads.metered_month_bytes,
    }

    def now() -> LinkClass:
        """Tell whether bytes cost money now."""
        return "metered" if is_metered(link, default_interfaces()) else "unmetered"

    return budget.Budget(file, clock.wall_s, now, limits)


def _sockets(who: Member) -> tuple[Admin, Handover]:
    settings = who.config.runtime
    path = locations.admin_socket(settings.admin_socket)
    handover = Handover(
        locations.handover_socket(settings.handover_socket, path),
        settings.timeout_s,
        settings.handover_s,
    )
    return Admin(path, settings.timeout_s), handover

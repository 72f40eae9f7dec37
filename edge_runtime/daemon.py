"""The composition root: builds every part, starts them in order, stops them in reverse.

Start: sockets, loop, doors, models, ready. Stop: doors, requests in flight, models, threads.
"""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from time import time
from typing import TYPE_CHECKING, Final

import uvloop

from edge_runtime import logs
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.metric_sources import Sources
from edge_runtime.api.request_log import RequestLog
from edge_runtime.binding import bind
from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.callers import admins, by_model, fleet
from edge_runtime.desired import Desired
from edge_runtime.doors import Doors
from edge_runtime.errors import ConfigError, StorageError
from edge_runtime.hardware import cpu_facts, usable_cpus
from edge_runtime.heap import share_heap
from edge_runtime.inference import Inference
from edge_runtime.listeners import BoundSocket
from edge_runtime.locations import PREDICTIONS_NAME, has_releases, state_directory
from edge_runtime.metrics import ServerStatistics
from edge_runtime.observers import Observers
from edge_runtime.priority import take_short_turns
from edge_runtime.scheduling import Scheduler
from edge_runtime.session import RUNTIME_VERSION
from edge_runtime.settings import Config, Log, needs_restart
from edge_runtime.systemd import Notifier

if TYPE_CHECKING:
    from edge_runtime.release.composition import Composition
    from edge_runtime.release.releases import Releases
    from edge_runtime.release_orders import Answers

_log = logging.getLogger(__name__)

TERMINATE_S: Final = 2.0  # after the drain: for runs that were told to end early
_NS: Final = 1e9

ReadConfig = Callable[[], Config]


def run(read_config: ReadConfig) -> bool:
    """Serve until SIGTERM or SIGINT.

    Args:
        read_config: Gives the resolved configuration; called again on SIGHUP.

    Returns:
        Whether every thread has ended. If not, a model is stuck in a run that cannot be cut, and
        the interpreter would wait for it: the process should end itself.

    Raises:
        ConfigError: The configuration is wrong, or there is nothing to serve.
        SocketError: A socket cannot be bound.
        ModelLoadError: None of the models could be loaded.
    """
    share_heap()
    take_short_turns()
    settings = read_config()
    logs.configure(settings.log)
    named = settings.models or settings.repositories or settings.release.managed
    if not named and not has_releases(state_directory(settings.state_dir, os.environ)):
        raise ConfigError(
            "there is nothing to serve: name a model file or a model repository; or set "
            "release.managed, and wait for a release"
        )
    # Bound here, before any thread exists: the umask belongs to the whole process.
    sockets = bind(settings)
    try:
        with (
            logs.queued(settings.log) as records,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(_serve(settings, read_config, sockets, records))
    finally:
        for bound in sockets:
            bound.close()


async def _serve(
    settings: Config,
    read_config: ReadConfig,
    sockets: list[BoundSocket],
    records: logs.RecordQueue,
) -> bool:
    daemon = Daemon(settings, read_config, sockets, records)
    await daemon.serve()
    return daemon.is_clean


class Daemon:
    """The running daemon. Made and used on its event loop's thread.

    Args:
        settings: The configuration.
        read_config: Reads it again.
        sockets: What to listen on, bound already.
        records: Writes the log.
    """

    def __init__(
        self,
        settings: Config,
        read_config: ReadConfig,
        sockets: list[BoundSocket],
        records: logs.RecordQueue,
    ) -> None:
        self._settings = settings
        self._read_config = read_config
        self._sockets = sockets
        self._cpus = usable_cpus()
        self._notifier = Notifier()
        self._statistics = ServerStatistics(time())
        self._records = records
        loop = asyncio.get_running_loop()
        self._request_log = RequestLog(loop, self._statistics, records.put)
        records.lost = self._request_log.lost
        self._doors: Doors | None = None
        self._handlers: Handlers | None = None
        self._callers = by_model(settings.models)
        self._admins, self._fleet = admins(settings.release), fleet(settings.release)
        self._inference: Inference | None = None
        cpu = cpu_facts()
        self._state = state_directory(settings.state_dir, os.environ)
        self._observers = Observers(self._state, self._statistics)
        self._redact = self._observers.check(settings)
        self._cache = PredictionCache(
            asyncio.get_running_loop(),
            settings.cache,
            self._state,
            runtime_version=RUNTIME_VERSION,
            cpu=cpu,
        )
        self._desired = Desired(settings, cpu, self._cpus)
        self._catalog = self._desired.catalog
        self._catalog.gone = self._cache.forget
        self._releases: Composition | None = None
        self._opening = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._started = asyncio.Event()
        self._stop = asyncio.Event()
        #: Whether every thread has ended.
        self.is_clean = False

    async def serve(self) -> None:
        """Start, serve until told to stop, drain, and free everything."""
        loop = asyncio.get_running_loop()
        engine = self._settings.engine
        scheduler = Scheduler(
            loop,
            threads=engine.pool_threads or self._cpus,
            inline_limit_ns=engine.inline_limit_s * _NS,
            queue_depth=engine.queue_depth,
        )
        self._inference = Inference(
            self._catalog, scheduler.submit, cache=self._cache, backlog=scheduler
        )
        self._inference.take_cache_settings(self._settings.models)
        self._observers.take(self._settings, self._inference, self._redact)
        self._inference.callers = self._callers
        self._inference.requests_per_user = self._settings.limits.requests_per_user
        handlers = Handlers(
            self._catalog,
            self._inference,
            self._statistics,
            self._desired.reload,
            self._settings.limits,
        )
        handlers.open_orders, handlers.open_answers = self._orders, self._answers
        handlers.admins, handlers.fleet = self._admins, self._fleet
        handlers.default_model = self._settings.default_model
        handlers.cache = self._cache
        handlers.journal = self._state / PREDICTIONS_NAME
        handlers.sources = Sources(self._catalog, self._statistics, scheduler, self._cache)
        self._configure_log(self._settings.log)
        self._handlers = handlers
        self._doors = doors = Doors(handlers, self._statistics, self._request_log)
        doors.add(self._sockets, self._settings.limits)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            await doors.listeners.start()
            if await self._unless_stopped(self._begin()):
                gc.freeze()  # what is alive now lives for long: collections need not look at it
                handlers.is_ready = True
                self._notifier.ready()
                for name, address in doors.listeners.addresses:
                    _log.info("listening on %s (%s)", address, name)
                self._notifier.keep_alive(loop, lambda: doors.listeners.are_open)
                self._started.set()
                await self._stop.wait()
        finally:
            handlers.is_ready = False
            self._notifier.stopping()
            for task in self._reloads:
                task.cancel()
            await doors.drain(self._settings.limits.drain_timeout_s)
            # Nobody waits for an answer any more; a load or a run that goes on gets a moment.
            self._catalog.terminate()
            runs_ended = await scheduler.close(TERMINATE_S)
            self._request_log.close()
            if self._releases is not None:
                await self._releases.end()
            models_ended = await self._catalog.close(TERMINATE_S)
            cache_ended = await self._cache.close(TERMINATE_S)
            kept = await asyncio.to_thread(self._observers.close, TERMINATE_S)
            self.is_clean = runs_ended and models_ended and cache_ended and kept
            if self.is_clean:
                _log.info("stopped")
            else:
                _log.error("stopped, while a run, a load of a model or a write does not end")

    async def _begin(self) -> None:
        """Load the models: those that releases brought, and those that the settings name."""
        if self._settings.release.managed or has_releases(self._state):
            try:
                await self._open_releases()
            except StorageError as error:
                _log.error("releases stand still: %s", error.message)
        await self._desired.start()
        if self._releases is not None:
            await self._releases.begin()

    async def _orders(self) -> "Releases":
        """Give what takes orders; the first one on a device makes it."""
        await self._started.wait()
        async with self._opening:
            releases = self._releases
            if releases is None:
                releases = await self._late_releases()
        return releases.orders

    async def _answers(self) -> "Answers":
        """Give what answers questions about releases, which make nothing where there is nothing."""
        await self._started.wait()
        is_used = self._settings.release.managed or has_releases(self._state)
        if self._releases is None and not is_used:
            from edge_runtime.release.unused import Unused  # noqa: PLC0415 - rarely needed

            return Unused(self._state, lambda: self._settings)
        return await self._orders()

    async def _late_releases(self) -> "Composition":
        """Open releases in a daemon that serves already."""
        were_there = has_releases(self._state)  # and could not be read when the daemon started
        releases = await self._open_releases()
        if were_there:
            await self._desired.apply_all()
        await releases.begin()
        return releases

    async def _open_releases(self) -> "Composition":
        from edge_runtime.release.composition import Composition  # noqa: PLC0415 - megabytes

        assert self._inference is not None  # noqa: S101 - made before anything is served
        releases = Composition(
            self._state,
            lambda: self._settings,
            self._catalog,
            self._inference,
            self._desired.reload,
            self._desired.make_trial,
            self._desired.digests,
        )
        self._desired.admit = releases.admit
        await releases.open()
        self._desired.holdings = releases.serving
        self._releases = releases
        return releases

    async def _unless_stopped(self, work: Coroutine[None, None, None]) -> bool:
        """Do something long; give it up when the daemon is told to stop. Whether it was done."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        if self._stop.is_set():
            task.cancel()
            return False
        stop.cancel()
        await task
        return True

    def _hang_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload_all(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_all(self) -> None:
        """Read the configuration and every model folder again (SIGHUP)."""
        await self._started.wait()
        async with self._reloading:
            self._notifier.reloading()
            try:
                self._take(self._read_config())
            except ConfigError as error:
                _log.error("the configuration stays as it was: %s", error.message)
            else:
                await self._guard()
                await self._desired.apply_all()
            self._notifier.ready()

    async def _guard(self) -> None:
        """Check signatures from now on, if the configuration has just begun to ask for it."""
        if not self._settings.release.managed or self._releases is not None:
            return
        async with self._opening:
            if self._releases is None:
                try:
                    await self._late_releases()
                except StorageError as error:  # signatures are checked all the same
                    _log.error("releases stand still: %s", error.message)

    def _take(self, settings: Config) -> None:
        # First: what these refuse changes nothing.
        callers, allowed = by_model(settings.models), admins(settings.release)
        of_fleet, redact = fleet(settings.release), self._observers.check(settings)
        self._desired.take(settings)
        before, self._settings = self._settings, settings
        self._configure_log(settings.log)
        if self._doors is not None:
            self._doors.take(settings.limits)
        if self._handlers is not None:
            self._handlers.limits = settings.limits
            self._handlers.admins, self._handlers.fleet = allowed, of_fleet
            self._handlers.default_model = settings.default_model
        if self._inference is not None:
            self._inference.callers = callers
            self._inference.take_cache_settings(settings.models)
            self._observers.take(settings, self._inference, redact)
            self._inference.requests_per_user = settings.limits.requests_per_user
        if needs_restart(before, settings):
            _log.warning(
                "changes of sockets, http, engine, batching, cache, journal and state_dir need a "
                "restart"
            )
        _log.info("configuration read again")

    def _configure_log(self, settings: Log) -> None:
        self._records.configure(settings)
        self._request_log.configure(settings)
        if self._inference is not None:
            self._inference.tells_spent = self._request_log.wants_all

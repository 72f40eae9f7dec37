"""What should answer: reads the folders that the settings name, and makes the catalog match."""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from edge_runtime.bundle import Bundle
from edge_runtime.catalog import Catalog
from edge_runtime.errors import (
    ConfigError,
    EdgeRuntimeError,
    ManifestError,
    ModelLoadError,
    ModelNotFoundError,
)
from edge_runtime.hardware import CpuFacts
from edge_runtime.loading import expected_bytes, load_bundle, stated_digest
from edge_runtime.locations import state_directory
from edge_runtime.manifest import Manifest
from edge_runtime.optimized_graphs import FOLDER, OptimizedGraphs
from edge_runtime.process_memory import resident_bytes
from edge_runtime.repository import Discovery, Problem, discover
from edge_runtime.residency import size
from edge_runtime.routing import LoadedVersion
from edge_runtime.session import RUNTIME_VERSION, select_providers
from edge_runtime.settings import Config, Model

if TYPE_CHECKING:
    from edge_runtime.release.trial import Trial

_log = logging.getLogger(__name__)


class Holdings(Protocol):
    """What releases brought to this device: it decides before the settings do."""

    def names(self) -> Collection[str]:
        """List the models of which a version is, or was, released here."""
        ...

    def amend(self, name: str, found: Mapping[int, Bundle]) -> Mapping[int, Bundle]:
        """Say what answers for a model.

        Args:
            name: One of ``names``.
            found: What the settings and the folders ask for.

        Raises:
            EdgeRuntimeError: What is to answer is not there, or damaged.
        """
        ...


class Desired:
    """The models that the settings ask for, and that releases brought.

    Args:
        settings: The configuration.
        cpu: Decides each model's variant.
        cpus: CPUs this process may use.

    Attributes:
        settings: The configuration; may be replaced.
        catalog: The models in memory.
        holdings: What releases brought; ``None``: nothing.
        admit: Raises where a bundle may not be loaded on this device; called on the loader thread.
    """

    def __init__(self, settings: Config, cpu: CpuFacts, cpus: int) -> None:
        self.settings = settings
        self.holdings: Holdings | None = None
        self.admit: Callable[[Bundle], None] = lambda _bundle: None
        self._cpu = cpu
        self._cpus = cpus
        self._own_bytes = 0
        self._providers, missing = select_providers(settings.engine.providers)
        if missing:
            _log.warning(
                "execution providers %s are not installed; using %s",
                ", ".join(missing),
                ", ".join(self._providers),
            )
        self._graphs = OptimizedGraphs(
            state_directory(settings.state_dir, os.environ) / FOLDER,
            settings.engine.graph_cache_bytes,
        )
        self.catalog = Catalog(
            self._load,
            expected=self._expected,
            held_bytes=resident_bytes,
            spare=self._spare,
            waiting_max=settings.engine.queue_depth,
        )
        self.catalog.budget_bytes = settings.engine.memory_budget_bytes
        self.catalog.is_settled = False  # until ``start`` has looked for every model

    def make_trial(
        self, candidate: Bundle, active: LoadedVersion | None, variant: str = ""
    ) -> "Trial":
        """Prepare to try a candidate out as the daemon would load it, in processes of its own.

        Args:
            candidate: What may come.
            active: What answers now; ``None``: nothing does.
            variant: The candidate's, as it was chosen; empty: to be chosen.
        """
        from edge_runtime.release.compatibility import described  # noqa: PLC0415 - rarely needed
        from edge_runtime.release.policy import rules  # noqa: PLC0415
        from edge_runtime.release.trial import Trial  # noqa: PLC0415
        from edge_runtime.release.trial_limits import limits  # noqa: PLC0415
        from edge_runtime.release.trial_messages import Device, Subject  # noqa: PLC0415

        settings = self._settings_of(candidate.manifest.name)
        beside = None
        if active is not None:
            served = next(each.served for each in self.catalog.entries() if each.loaded is active)
            beside = Subject(
                manifest=active.manifest,
                directory=str(served.directory.resolve()) if served is not None else "",
                variant=active.variant.name,
                digest=active.digest,
                settings=settings,
            )
        acceptance = candidate.manifest.acceptance
        acceptance = msgspec.structs.replace(
            acceptance, comparison=rules(acceptance.comparison, settings.release)
        )
        return Trial(
            Subject(
                manifest=msgspec.structs.replace(candidate.manifest, acceptance=acceptance),
                directory=str(candidate.directory.resolve()),
                variant=variant,
                settings=settings,
            ),
            active=beside,
            tensors=None if active is None else described(active.signature),
            device=Device(
                engine=self.settings.engine,
                batching=self.settings.batching,
                providers=tuple(self._providers),
                cpu=self._cpu,
                cpus=self._cpus,
            ),
            limits=limits(self.settings.release),
        )

    def digests(self, manifest: Manifest) -> dict[str, str]:
        """Name what each variant that this CPU can run would compute with, by variant.

        Args:
            manifest: Of a bundle with digests.
        """
        from edge_runtime.release.variants import eligible  # noqa: PLC0415 - rarely needed

        try:
            names = eligible(manifest, self._cpu)
        except ManifestError:  # the self-test says so
            return {}
        return {
            variant.name: stated_digest(variant, self._cpu)
            for variant in manifest.variants
            if variant.name in names
        }

    def _load(self, bundle: Bundle, serving: LoadedVersion | None) -> LoadedVersion:
        """Load a bundle; called on the catalog's loader thread."""
        self.admit(bundle)
        return load_bundle(
            bundle,
            serving,
            engine=self.settings.engine,
            batching=self.settings.batching,
            settings=self._settings_of(bundle.manifest.name),
            providers=self._providers,
            cpu=self._cpu,
            cpus=self._cpus,
            graphs=self._graphs,
        )

    def _expected(self, bundle: Bundle) -> int:
        """Say what a bundle will hold in memory; called on the catalog's loader thread."""
        return expected_bytes(
            bundle,
            engine=self.settings.engine,
            settings=self._settings_of(bundle.manifest.name),
            providers=self._providers,
            cpu=self._cpu,
            cpus=self._cpus,
            graphs=self._graphs,
        )

    async def _discover(self, only: str = "", without: Collection[int] = ()) -> Discovery:
        settings = self.settings
        found = await self.catalog.off_loop(
            partial(discover, settings.models, settings.repositories, only, without)
        )
        released = self.holdings.names() if self.holdings is not None else ()
        for problem in found.problems:
            if problem.is_absent and problem.name in released:
                continue  # its section sets options of what releases brought
            where = f"model {problem.name}" if problem.name else "repository"
            _log.error("%s: %s", where, problem.error.message)
            if problem.name:
                self.catalog.note_problem(problem.name, problem.version, problem.error)
        found = self._amended(found, only)
        names = {only} if only else {*found.bundles, *self.catalog.known()}
        for name in names if not without else ():  # what is passed over may be there all the same
            there = found.there(name)
            if there is not None:
                self.catalog.note_there(name, there)
        return found

    def _amended(self, found: Discovery, only: str) -> Discovery:
        """Let releases decide about the models that they know."""
        holdings = self.holdings
        names = [name for name in holdings.names() if only in {"", name}] if holdings else []
        if not holdings or not names:
            return found
        bundles, folders = dict(found.bundles), dict(found.folders)
        own: list[Problem] = []
        for name in names:
            try:
                amended = holdings.amend(name, bundles.pop(name, {}))
            except EdgeRuntimeError as error:  # its files are no good: the others answer
                _log.error("model %s: %s", name, error.message)
                own.append(Problem(name, None, error))
                continue
            if amended:
                bundles[name] = amended
            folders[name] = {*folders.get(name, ()), *amended}
        told = {*bundles, *(each.name for each in own)}
        problems = (each for each in found.problems if each.name not in told)
        return Discovery(bundles, (*own, *problems), folders)

    async def _spare(self, name: str, without: Collection[int]) -> Mapping[int, Bundle]:
        """Find older versions for a model whose wanted ones cannot be loaded."""
        return (await self._discover(name, without)).bundles.get(name, {})

    def _settings_of(self, name: str) -> Model:
        return self.settings.models.get(name, Model())

    async def start(self) -> None:
        """Load everything for the first time, the models that never leave first.

        Raises:
            ConfigError: The memory budget does not even hold the daemon.
            ModelLoadError: None of the models could be loaded, and no release could mend that.
        """
        _log.info(
            "onnxruntime %s on %s, %d CPUs", RUNTIME_VERSION, self._cpu.description, self._cpus
        )
        self._own_bytes = resident_bytes()
        check_budget(self.settings, self._own_bytes)
        found = await self._discover()
        failures = [problem.error for problem in found.problems]
        for name in sorted(
            found.bundles, key=lambda each: self._settings_of(each).load != "always"
        ):
            try:
                await self.catalog.apply(name, found.bundles[name], self._settings_of(name))
            except EdgeRuntimeError as error:
                failures.append(error)
        self.catalog.is_settled = True
        if failures and not self.catalog.answers():
            why = f"no model could be loaded: {failures[0].message}"
            if self.holdings is None:
                raise ModelLoadError(why)
            _log.error("%s; a release can mend that", why)  # if the daemon is there to take it
        elif not self.catalog.answers():
            _log.warning("the repositories hold no model yet")

    def take(self, settings: Config) -> None:
        """Use other settings from now on; ``apply_all`` makes the catalog match.

        Raises:
            ConfigError: The memory budget does not even hold the daemon.
        """
        check_budget(settings, self._own_bytes)
        self.settings = settings
        self.catalog.budget_bytes = settings.engine.memory_budget_bytes
        self.catalog.look()

    async def reload(self, name: str) -> None:
        """Read one model's files anew and swap them in (repository ``load``)."""
        found = await self._discover(name)
        bundles = found.bundles.get(name)
        if bundles is not None:
            await self.catalog.apply(name, bundles, self._settings_of(name), at_once=True)
        for problem in found.problems:
            if problem.name == name:
                raise problem.error
        if bundles is None:
            raise ModelNotFoundError(
                f"there is no model {name!r} in the configuration or a repository folder"
            )

    async def apply_all(self) -> None:
        """Read every model folder again, and make the catalog match."""
        found = await self._discover()
        troubled = {problem.name for problem in found.problems}
        for name in dict.fromkeys([*found.bundles, *self.catalog.known()]):
            if name not in found.bundles and (name in troubled or found.there(name) is None):
                continue  # broken on disk, or not to be read now: still fine in memory
            try:
                await self.catalog.apply(name, found.bundles.get(name, {}), self._settings_of(name))
            except EdgeRuntimeError:
                continue  # logged, and in the index


def check_budget(settings: Config, own_bytes: int) -> None:
    """Refuse a memory budget that leaves no room for any model.

    Args:
        settings: The configuration.
        own_bytes: What the daemon holds without a model.

    Raises:
        ConfigError: It does.
    """
    budget_bytes = settings.engine.memory_budget_bytes
    if 0 < budget_bytes <= own_bytes:
        raise ConfigError(
            f"engine.memory_budget_bytes is {budget_bytes} ({size(budget_bytes)}), and the daemon "
            f"alone holds {own_bytes} ({size(own_bytes)}) before any model; add to that what the "
            "models need, or use 0 for no budget"
        )

"""What should answer: reads the folders that the settings name, and makes the catalog match."""

import logging
from collections.abc import Collection, Mapping
from functools import partial

from edge_runtime.bundle import Bundle
from edge_runtime.catalog import Catalog
from edge_runtime.errors import EdgeRuntimeError, ModelLoadError, ModelNotFoundError
from edge_runtime.hardware import CpuFacts
from edge_runtime.loading import load_bundle
from edge_runtime.repository import Discovery, discover
from edge_runtime.routing import LoadedVersion
from edge_runtime.session import RUNTIME_VERSION, select_providers
from edge_runtime.settings import Config, Model

_log = logging.getLogger(__name__)


class Desired:
    """The models that the settings ask for.

    Args:
        settings: The configuration.
        cpu: Decides each model's variant.
        cpus: CPUs this process may use.

    Attributes:
        settings: The configuration; may be replaced.
        catalog: The models in memory.
    """

    def __init__(self, settings: Config, cpu: CpuFacts, cpus: int) -> None:
        self.settings = settings
        self._cpu = cpu
        self._cpus = cpus
        self._providers, missing = select_providers(settings.engine.providers)
        if missing:
            _log.warning(
                "execution providers %s are not installed; using %s",
                ", ".join(missing),
                ", ".join(self._providers),
            )
        self.catalog = Catalog(self._load)
        self.catalog.is_settled = False  # until ``start`` has looked for every model

    def _load(self, bundle: Bundle, serving: LoadedVersion | None) -> LoadedVersion:
        """Load a bundle; called on the catalog's loader thread."""
        return load_bundle(
            bundle,
            serving,
            engine=self.settings.engine,
            settings=self.settings.models.get(bundle.manifest.name, Model()),
            providers=self._providers,
            cpu=self._cpu,
            cpus=self._cpus,
        )

    async def _discover(self, only: str = "", without: Collection[int] = ()) -> Discovery:
        settings = self.settings
        found = await self.catalog.off_loop(
            partial(discover, settings.models, settings.repositories, only, without)
        )
        for problem in found.problems:
            where = f"model {problem.name}" if problem.name else "repository"
            _log.error("%s: %s", where, problem.error.message)
            if problem.name:
                self.catalog.note_problem(problem.name, problem.version, problem.error)
        return found

    async def start(self) -> None:
        """Load everything for the first time.

        Raises:
            ModelLoadError: None of the models could be loaded.
        """
        _log.info(
            "onnxruntime %s on %s, %d CPUs", RUNTIME_VERSION, self._cpu.description, self._cpus
        )
        found = await self._discover()
        failures = [problem.error for problem in found.problems]
        for name, bundles in found.bundles.items():
            failures += await self._start_model(name, bundles)
        self.catalog.is_settled = True
        if failures and not self.catalog.table:
            raise ModelLoadError(f"no model could be loaded: {failures[0].message}")
        if not self.catalog.table:
            _log.warning("the repositories hold no model yet")

    async def _start_model(
        self, name: str, bundles: Mapping[int, Bundle]
    ) -> list[EdgeRuntimeError]:
        """Load a model; where no wanted version can be loaded, an older one. What went wrong."""
        failures: list[EdgeRuntimeError] = []
        tried: set[int] = set()
        while not tried.issuperset(bundles):
            try:
                await self.catalog.apply(name, bundles)
            except EdgeRuntimeError as error:
                failures.append(error)
            if name in self.catalog.table:
                break
            tried |= bundles.keys()
            bundles = (await self._discover(name, tried)).bundles.get(name, {})
        return failures

    async def reload(self, name: str) -> None:
        """Read one model's files anew and swap them in (repository ``load``)."""
        found = await self._discover(name)
        bundles = found.bundles.get(name)
        if bundles is not None:
            await self.catalog.apply(name, bundles)
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
        for name in dict.fromkeys([*found.bundles, *self.catalog.table]):
            if name not in found.bundles and name in troubled:
                continue  # broken on disk, still fine in memory
            try:
                await self.catalog.apply(name, found.bundles.get(name, {}))
            except EdgeRuntimeError:
                continue  # logged, and in the index

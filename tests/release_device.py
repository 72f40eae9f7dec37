"""A device on which releases happen: a real daemon, bundles for it, and traffic that never stops.

Every good version gives ``y = x + 1``, so that any other answer to a request is a wrong one. The
settings are fast: a release takes seconds, not hours.
"""

import contextlib
import hashlib
import http.client
import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np

from edge_runtime.failpoints import VARIABLE
from edge_runtime.manifest import (
    MANIFEST_FILE,
    Acceptance,
    Comparison,
    File,
    Manifest,
    TensorDescription,
    Tolerance,
    Variant,
    write,
)
from edge_runtime.protocol.release_schemas import (
    ENDINGS,
    History,
    ModelReleases,
    Release,
    Releases,
    Transition,
)
from tests.daemons import Answer, Daemon, eventually
from tests.models import add_constant
from tests.release_traffic import Ask, Asked, Traffic, ask_json
from tests.signing import signed

MODEL: Final = "m"
STEP_S: Final = 120.0
"""Time within which a release must come to the next state that a test waits for."""
EASY: Final = Comparison(agreement_floor=0.5, latency_ratio_max=1000.0)
"""What eight blocks can prove, with times that a busy machine cannot spoil."""
FAST: Final[Mapping[str, Any]] = {
    "block_s": 0.05,
    "blocks_min": 4,
    "shadow_s": 60.0,
    "shadow_cpu_share": 1.0,
    "canary_s": 5.0,
    "probation_s": 0.4,
    "weights": [50, 100],
    "reserve_bytes": 0,
}
"""``[release]`` of a device on which everything goes fast."""
_GOLDEN: Final = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)
_OK: Final = 200
_READ_AGAIN: Final = "configuration read again"


# -- bundles ---------------------------------------------------------------------------------------


def bundle(  # noqa: PLR0917 - what a bundle is made of
    folder: Path,
    version: int = 2,
    make: Callable[[Path], Path] | None = None,
    name: str = MODEL,
    outputs: Sequence[TensorDescription] = (TensorDescription("y", "FP32", (-1, 2)),),
    acceptance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle with one variant and one golden, without loading it.

    Args:
        folder: New; where.
        version: Of the model.
        make: Writes the model file; ``None``: ``y = x + 1``, each version another file.
        name: Of the model.
        outputs: As the manifest describes them.
        acceptance: Changes of the manifest's ``acceptance``.
    """
    folder.mkdir(parents=True)
    make = make or (lambda path: add_constant(path, 1.0, note=f"version {version}"))
    model = make(folder / "model.onnx")
    np.savez(folder / "golden.npz", allow_pickle=False, x=_GOLDEN, y=_GOLDEN + 1)
    tests = {
        "goldens": (_file(folder / "golden.npz"),),
        "tolerances": (Tolerance(atol=1e-5),),
        "comparison": EASY,
        **(acceptance or {}),
    }
    file = _file(model)
    manifest = Manifest(
        name=name,
        version=version,
        inputs=(TensorDescription("x", "FP32", (-1, 2)),),
        outputs=tuple(outputs),
        variants=(Variant("as-is", file.path, file.sha256, file.size_bytes),),
        acceptance=Acceptance(**tests),
    )
    (folder / MANIFEST_FILE).write_bytes(write(manifest))
    return folder


def signed_bundle(folder: Path, version: int, *names: str) -> Path:
    """Make a bundle with signatures of the test keys of these names."""
    made = bundle(folder, version)
    (made / "manifest.sig").write_bytes(signed((made / "manifest.json").read_bytes(), *names))
    return made


def _file(path: Path) -> File:
    data = path.read_bytes()
    return File(path.name, hashlib.sha256(data).hexdigest(), len(data))


def configuration(path: Path, more: str = "", **release: Any) -> Path:  # noqa: ANN401 - settings
    """Write a configuration file with fast releases.

    Args:
        path: The file.
        more: Other groups, as TOML.
        release: Changes of ``[release]``.
    """
    settings = {**FAST, **release}
    lines = [f"{name} = {json.dumps(setting)}" for name, setting in settings.items()]
    path.write_text("\n".join(["[release]", *lines, more, ""]), "utf-8")
    return path


# -- the device ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What the device says of itself at one moment."""

    status: ModelReleases
    rows: list[Transition]
    log: str


class Device:
    """A daemon in a folder, with releases of one model.

    Args:
        folder: For configuration and bundles.
        seed: Model file of version 1 that the configuration names; ``None``: none, the first
            version comes by a release.
        failpoints: ``$EDGE_RUNTIME_FAILPOINTS``.
        more: Other groups of the configuration, as TOML.
        model: Its name.
        release: Changes of ``[release]``.

    Attributes:
        daemon: The daemon.
        is_up: Set while requests should be answered.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: Path | None = None,
        failpoints: str = "",
        more: str = "",
        model: str = MODEL,
        **release: Any,  # noqa: ANN401 - settings
    ) -> None:
        self.folder = folder
        self.model = model
        self.is_up = threading.Event()
        self._more = more
        self.config = configuration(folder / "runtime.toml", more, **release)
        repository = folder / "repository"
        repository.mkdir(exist_ok=True)
        named = [f"{model}={seed}"] if seed is not None else [str(repository)]
        self.daemon = Daemon(
            ["--config", str(self.config), *named], {VARIABLE: failpoints} if failpoints else {}
        )
        if seed is not None:
            self.is_up.set()
        self._traffic: Traffic | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End traffic and daemon."""
        self.is_up.clear()
        if self._traffic is not None:
            self._traffic.end()
        self.daemon.stop()

    # -- traffic -------------------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        """Give the traffic; there must be some."""
        assert self._traffic is not None, "begin_traffic comes first"
        return self._traffic

    def begin_traffic(self, *clients: Ask) -> Traffic:
        """Begin to ask, whenever the device is up.

        Args:
            clients: What each client does; none: two that send JSON.
        """
        assert self._traffic is None, "there is traffic already"
        self._traffic = Traffic(self, clients or (ask_json, ask_json))
        return self._traffic

    # -- orders --------------------------------------------------------------------------------

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Give an order on the admin socket."""
        return self.daemon.request("POST", path, dict(body or {}), admin=True)

    def stage(self, path: Path, **more: Any) -> Release:  # noqa: ANN401 - fields of the request
        """Stage a bundle; it must be taken."""
        answer = self.post("/admin/releases", {"path": str(path), **more})
        assert answer.status == _OK, answer.body
        return msgspec.json.decode(answer.body, type=Release)

    def order(self, what: str, **more: Any) -> Answer:  # noqa: ANN401 - fields of the request
        """Order ``promote``, ``rollback``, ``abort``, ``hold`` or ``clear``."""
        return self.post(f"/admin/releases/{self.model}/{what}", more)

    def take_settings(self, **release: Any) -> None:  # noqa: ANN401 - settings
        """Give the daemon other settings of releases, by SIGHUP.

        Args:
            release: Changes of the fast ``[release]``.
        """
        before = self.daemon.log().count(_READ_AGAIN)
        configuration(self.config, self._more, **release)
        self.daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: self.daemon.log().count(_READ_AGAIN) > before, "the new settings")

    # -- facts ---------------------------------------------------------------------------------

    def get(self, path: str) -> Answer:
        """Ask on the admin socket."""
        return self.daemon.request("GET", path, admin=True)

    def status(self) -> ModelReleases:
        """Say how the model does."""
        answer = self.get(f"/admin/releases/{self.model}")
        assert answer.status == _OK, answer.body
        return msgspec.json.decode(answer.body, type=ModelReleases)

    def status_of_all(self) -> Releases:
        """Say how everything does."""
        answer = self.get("/admin/releases")
        assert answer.status == _OK, answer.body
        return msgspec.json.decode(answer.body, type=Releases)

    def release(self, version: int) -> Release | None:
        """Give the newest release of a version; ``None``: there is none."""
        answer = self.get(f"/admin/releases/{self.model}")
        if answer.status != _OK:
            return None
        found = msgspec.json.decode(answer.body, type=ModelReleases).releases
        return next((each for each in found if each.version == version), None)

    def history(self) -> list[Transition]:
        """Give the rows of the model's history, the oldest first."""
        answer = self.get(f"/admin/releases/{self.model}/history?limit=1000")
        assert answer.status == _OK, answer.body
        return msgspec.json.decode(answer.body, type=History).transitions[::-1]

    def truth(self) -> Truth:
        """Read status and history of one moment: no row came in between."""
        while True:
            before, status, after = self.history(), self.status(), self.history()
            if before == after:
                return Truth(status, after, self.daemon.log())

    def reach(self, version: int, *states: str, within_s: float = STEP_S) -> Release:
        """Wait until the newest release of a version is in one of some states."""
        found: list[Release] = []

        def reached() -> bool:
            assert self.daemon.process.poll() is None, "the daemon died:\n" + self.daemon.log()
            release = self.release(version)
            if release is not None:
                found[:] = [release]
            return release is not None and release.state in states

        try:
            eventually(reached, f"{states} of version {version}", within_s)
        except AssertionError as error:
            text = f"{error}; it is {found}\n{self.daemon.log()}"
            raise AssertionError(text) from error
        return found[0]

    def ended(self, version: int, within_s: float = STEP_S) -> Release:
        """Wait until the newest release of a version is over."""
        return self.reach(version, *ENDINGS, within_s=within_s)

    def ask(self, count: int = 0) -> Asked:
        """Send one request."""
        return ask_json(self, count)

    # -- its life ------------------------------------------------------------------------------

    def died(self, within_s: float = STEP_S) -> None:
        """Wait until a failpoint killed the daemon."""
        code = self.daemon.process.wait(within_s)
        self.is_up.clear()
        assert code == -signal.SIGKILL, self.daemon.log()

    def asked_to_death(self, within_s: float = STEP_S) -> int:
        """Ask different things until the daemon dies of one; give how it ended."""
        counts = itertools.count()

        def died() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask(next(counts))
            return self.daemon.process.poll() is not None

        eventually(died, "the daemon's death", within_s)
        return int(self.daemon.process.returncode)

    def restart(
        self, sign: signal.Signals = signal.SIGTERM, *, failpoints: str = "", serves: bool = True
    ) -> None:
        """End the daemon if it is not dead yet, and start it anew on the same state.

        Args:
            sign: How it ends; ``SIGKILL``: it crashes.
            failpoints: Of the new one.
            serves: Whether the new one has an active version.
        """
        self.is_up.clear()
        environment = {VARIABLE: failpoints} if failpoints else {}
        self.daemon.restart(sign, environment)
        if serves:
            self.is_up.set()


@contextlib.contextmanager
def device(folder: Path, failpoints: str = "", **more: Any) -> Iterator[Device]:  # noqa: ANN401
    """Run a device whose configuration names version 1, under traffic.

    Args:
        folder: For all its files.
        failpoints: ``$EDGE_RUNTIME_FAILPOINTS``.
        more: What else ``Device`` takes.
    """
    seed = add_constant(folder / "seed" / "model.onnx", 1.0, note="seed")
    with Device(folder, seed=seed, failpoints=failpoints, **more) as running:
        running.begin_traffic()
        yield running


def seeded_device(tmp_path: Path) -> Iterator[Device]:
    """Run a device whose configuration names version 1, and which fails nobody: for a fixture."""
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed) as running:
        running.begin_traffic(ask_json)
        yield running
        assert running.traffic.faults() == []

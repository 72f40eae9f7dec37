"""The store under any order of installing, removing, killing, failing and cutting the power."""

import errno
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_runtime.errors import ManifestError, ModelNotFoundError, StorageError
from edge_runtime.store.store import Store
from tests.lossy_disk import LossyDisk, PowerCutError, Trouble, cut_before, fail
from tests.store_bundles import EXTERNAL, ONNX, archive, folder, install, published, without

SHARED = {"a/model.onnx": EXTERNAL, "a/weights.bin": b"weights"}
BUNDLES = {
    (1, "a"): published(version=1, files={**SHARED, "g": b"1"}),
    (1, "b"): published(version=1, files={**SHARED, "g": b"another"}),
    (2, "a"): published(version=2, files={**SHARED, "g": b"2", "again/g": b"2"}),
    (3, "a"): published(version=3, files={"m.onnx": ONNX, "g": b"1"}, signature=b"signed"),
    (4, "a"): published(version=4, files={**SHARED, "b.onnx": ONNX + ONNX, "g": b"1"}),
}
PARTIAL = without(BUNDLES[4, "a"], "b.onnx")
MIXED = 4
KEYS = st.sampled_from(sorted(BUNDLES))
VERSIONS = st.integers(1, 4)
TROUBLES: dict[str, st.SearchStrategy[Trouble | None]] = {
    "none": st.none(),
    "cut": st.integers(1, 45).map(cut_before),
    "once": st.integers(1, 45).map(lambda number: fail(errno.EIO, number)),
    "full": st.integers(1, 45).map(lambda number: fail(errno.ENOSPC, number, for_ever=True)),
}
TROUBLE = st.one_of(st.none(), *TROUBLES.values())


class StoreMachine(RuleBasedStateMachine):
    """Does what operators, disks and power stations do, and looks what may be counted on."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp())
        (self.base / "state").mkdir(mode=0o700)
        self.disk = LossyDisk(self.base / "state")
        for (version, kind), bundle in BUNDLES.items():
            folder(self.base / f"{version}{kind}", bundle)
            archive(self.base / f"{version}{kind}.tar", bundle)
        folder(self.base / "partial", PARTIAL)
        archive(self.base / "partial.tar", PARTIAL)
        self.filled = False
        """Whether version 4 was said to be installed with all its variants."""
        self.root = self.base / "state" / "store"
        self.store = self._open()
        self.certain: dict[int, str] = {}
        """Versions that were said to be installed, and of which bundle."""
        self.possible: dict[int, set[str]] = {}
        """Versions of which an installation or a removal was interrupted."""

    def _open(self) -> Store:
        return Store(self.root, reserve_bytes=0, bundle_bytes=10**6, layer=self.disk)

    def _kind(self, version: int) -> str:
        golden = (self.root / "models" / "m" / str(version) / "g").read_bytes()
        return "b" if golden == b"another" else "a"

    @rule(key=KEYS, as_archive=st.booleans(), trouble=TROUBLE)
    def install(self, key: tuple[int, str], *, as_archive: bool, trouble: Trouble | None) -> None:
        """Install a bundle, whatever becomes of it."""
        version, kind = key
        self._trouble(trouble)
        try:
            install(self.store, self.base / f"{version}{kind}{'.tar' if as_archive else ''}")
        except ManifestError:
            # Another bundle has that version.
            present = self.certain.get(version)
            assert present != kind
            assert present or self.possible[version] - {kind}
        except StorageError:
            assert trouble is not None
            self.possible.setdefault(version, set()).add(kind)
        except PowerCutError:
            self.possible.setdefault(version, set()).add(kind)
            self._start()
        else:
            assert self.certain.get(version, kind) == kind
            self.certain[version] = kind
            self.possible.pop(version, None)
            self.filled = self.filled or version == MIXED
        self.disk.trouble = None

    @rule(as_archive=st.booleans(), trouble=TROUBLE)
    def install_partly(self, *, as_archive: bool, trouble: Trouble | None) -> None:
        """Install version 4 without the variant that nobody needs."""
        self._trouble(trouble)
        try:
            install(self.store, self.base / f"partial{'.tar' if as_archive else ''}", {"v0"})
        except StorageError:
            assert trouble is not None
            self.possible.setdefault(MIXED, set()).add("a")
        except PowerCutError:
            self.possible.setdefault(MIXED, set()).add("a")
            self._start()
        else:
            self.certain[MIXED] = "a"
            self.possible.pop(MIXED, None)
        self.disk.trouble = None

    @rule(version=VERSIONS, trouble=TROUBLE)
    def remove(self, version: int, trouble: Trouble | None) -> None:
        """Remove a version."""
        self._trouble(trouble)
        try:
            self.store.remove("m", version)
        except ModelNotFoundError:
            assert version not in self.certain
        except (StorageError, PowerCutError) as error:
            self._perhaps(version)
            if isinstance(error, PowerCutError):
                self._start()
        else:
            self._gone(version)
        self.disk.trouble = None

    @rule(keep=st.sets(VERSIONS), trouble=TROUBLE)
    def collect(self, keep: set[int], trouble: Trouble | None) -> None:
        """Remove all that is not kept."""
        others = {1, 2, 3, 4} - keep
        self._trouble(trouble)
        try:
            self.store.collect({("m", version) for version in keep})
        except (StorageError, PowerCutError) as error:
            for version in others:
                self._perhaps(version)
            if isinstance(error, PowerCutError):
                self._start()
        else:
            for version in others:
                self._gone(version)
        self.disk.trouble = None

    @rule(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    def cut_the_power(self, seed: int, share: float) -> None:
        """Lose what is not durable, or some of it."""
        generator = random.Random(seed)  # noqa: S311 - a test's dice
        self.disk.lose(lambda _: generator.random() < share)
        self._start()

    @rule()
    def start_again(self) -> None:
        """Start the daemon again."""
        self._start()

    @invariant()
    def whatever_is_there_is_whole(self) -> None:
        """Look at every version."""
        found = self.store.versions("m")
        assert self.certain.keys() <= set(found) <= self.certain.keys() | self.possible.keys()
        for version in found:
            self.store.verify("m", version)
            if version == MIXED and self.filled:
                assert len(self.store.bundle("m", version).manifest.variants) == 2
            kind = self._kind(version)
            if version in self.certain:
                assert kind == self.certain[version]
            else:
                assert kind in self.possible[version]

    def teardown(self) -> None:
        """Look whether all can be cleaned up."""
        self.disk.trouble = None
        self.store.recover()
        self.store.collect(())
        assert self.store.names() == []
        assert not [*self.root.glob("incoming/*"), *self.root.glob("blobs/*")]
        shutil.rmtree(self.base)

    def _trouble(self, trouble: Trouble | None) -> None:
        self.disk.operations.clear()
        self.disk.trouble = trouble

    def _start(self) -> None:
        self.disk.trouble = None
        self.store = self._open()
        self.store.recover()

    def _perhaps(self, version: int) -> None:
        self.filled = self.filled and version != MIXED
        kind = self.certain.pop(version, None)
        if kind is not None:
            self.possible[version] = {kind}

    def _gone(self, version: int) -> None:
        self.filled = self.filled and version != MIXED
        self.certain.pop(version, None)
        self.possible.pop(version, None)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)

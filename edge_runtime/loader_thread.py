"""The one thread that reads model files, loads versions and gives their memory back.

It makes way for those that serve (``priority``).
"""

import asyncio
import gc
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, ModelLoadError
from edge_runtime.priority import make_way
from edge_runtime.registry_entry import Look
from edge_runtime.routing import LoadedVersion
from edge_runtime.session import release_memory

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
Loader = Callable[[Bundle, LoadedVersion | None], LoadedVersion]
Expected = Callable[[Bundle], int]
NAME: Final = "load"


class LoaderThread:
    """Does slow work for the event loop, one piece after the other.

    Args:
        loader: Makes a bundle runnable, or gives back what serves now if nothing would change.
        expected: Memory that a bundle will need, in bytes, before anybody has measured it.
    """

    def __init__(self, loader: Loader, expected: Expected) -> None:
        self._loader = loader
        self._expected = expected
        self._usual = ThreadPoolExecutor(1, thread_name_prefix=f"{NAME}-usual")
        self._usual.submit(int)  # started here and now: it would inherit the loader's priority
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix=NAME, initializer=make_way, initargs=(self._usual,)
        )

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Do something, and give its result."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def load(
        self, bundle: Bundle, serving: LoadedVersion | None
    ) -> tuple[LoadedVersion, Look]:
        """Load a bundle.

        Args:
            bundle: What to load.
            serving: What answers for this version now.

        Returns:
            What runs, and what the files looked like.

        Raises:
            EdgeRuntimeError: It cannot be loaded, for whatever reason.
        """

        def load() -> tuple[LoadedVersion, Look]:
            look = _look(bundle)  # before: files that change meanwhile are new ones afterwards
            return _our_errors(lambda: self._loader(bundle, serving)), look

        return await self.run(load)

    async def survey(self, bundle: Bundle, known: Look | None) -> tuple[Look, int | None]:
        """Look at a bundle's files without reading them.

        Args:
            bundle: Whose files.
            known: What is known already.

        Returns:
            What they look like, and, if that is not known yet, the memory to expect, in bytes.

        Raises:
            EdgeRuntimeError: The files are not usable.
        """

        def survey() -> tuple[Look, int | None]:
            look = _look(bundle)
            if look == known:
                return look, None
            return look, _our_errors(lambda: self._expected(bundle))

        return await self.run(survey)

    def close_session(self, loaded: LoadedVersion, closed: Callable[[], None]) -> None:
        """Give a version's memory back.

        Args:
            loaded: Nothing may use it any more.
            closed: Called on the loop's thread when that is done.
        """
        loop = asyncio.get_running_loop()

        def close() -> None:
            try:
                loaded.session.close()
                gc.collect()
                release_memory()
            except Exception:  # noqa: BLE001 - logged; who waits for the memory must go on
                _log.exception("a version's memory could not be given back")
            loop.call_soon_threadsafe(closed)

        self._thread.submit(close)

    def end(self, *, wait: bool) -> None:
        """End the thread; without ``wait``, a load that goes on is left alone."""
        self._thread.shutdown(wait=wait, cancel_futures=not wait)
        if wait:  # else the load may still need it
            self._usual.shutdown()


def file_bytes(bundle: Bundle) -> int:
    """Expect a bundle to need as much memory as the files of its largest variant."""
    return max(
        (sum(file.size_bytes for file in variant.reads()) for variant in bundle.manifest.variants),
        default=0,
    )


def _our_errors(work: Callable[[], _Result]) -> _Result:
    """Whatever fails in there is a failed load and nothing more."""
    try:
        return work()
    except EdgeRuntimeError:
        raise
    except Exception as error:
        _log.exception("a load failed in a way nobody foresaw")
        raise ModelLoadError("the daemon failed to load these files; its log says why") from error


def _look(bundle: Bundle) -> Look:
    found: list[tuple[int, int, int] | None] = []
    for file in bundle.manifest.files():
        try:
            status = (bundle.directory / file.path).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return bundle, tuple(found)

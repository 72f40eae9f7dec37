"""Releases that do what a test tells them to, behind the real admin door on a real socket."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_runtime.access import NOBODY
from edge_runtime.api.door import Door
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.http import Budget
from edge_runtime.api.routes import Router
from edge_runtime.api.tables import admin_routes
from edge_runtime.api.timeouts import Timeouts
from edge_runtime.catalog import Catalog
from edge_runtime.errors import EdgeRuntimeError, ModelNotFoundError
from edge_runtime.inference import Inference
from edge_runtime.metrics import ServerStatistics
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.protocol.handover_schemas import Needs
from edge_runtime.settings import Limits
from tests.fakes import FakeLoader

WAIT_S = 60.0
OPERATOR = replace(NOBODY, uid=1000, gid=100, groups=frozenset({100}))


def shown(state: str = "installed", **more: Any) -> schemas.Release:  # noqa: ANN401 - any field
    """Make a release of version 2 of ``digits``, release 7."""
    told = {"id": 7, "model": "digits", "version": 2, "active": 1}
    return schemas.Release(state=state, **{**told, **more})


def standing(*releases: schemas.Release, **more: Any) -> schemas.ModelReleases:  # noqa: ANN401
    """Say how ``digits`` does, of which version 1 is active."""
    told = {"active": 1, "active_source": "store", "running_digest": "1" * 64}
    return schemas.ModelReleases(model="digits", releases=list(releases), **{**told, **more})


@dataclass
class ScriptedOrders:
    """Takes every order down, and answers what it is told to.

    Attributes:
        taken: Name and arguments of each order, in their order.
        bundle: What the descriptor of the last staged bundle held.
        problem: Raised by the next order; then it is forgotten.
        staged: What ``stage`` and ``promote`` answer.
        ended: What ``rollback`` and ``abort`` answer.
        models: What is said of each model; of several, the first until it was said, then the next.
        rows: The history, newest first.
        trust: What is believed.
        held: Orders wait for it, if there is one.
        needed: What ``needs`` answers.
        has_content: Whether the store has what is opened.
    """

    taken: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    bundle: bytes = b""
    problem: EdgeRuntimeError | None = None
    staged: schemas.Release = field(default_factory=shown)
    ended: schemas.Release = field(default_factory=lambda: shown("rolled-back"))
    models: dict[str, list[schemas.ModelReleases]] = field(default_factory=dict)
    rows: list[schemas.Transition] = field(default_factory=list)
    trust: schemas.Trust = field(default_factory=schemas.Trust)
    held: asyncio.Event | None = None
    needed: Needs = field(default_factory=lambda: Needs(variants=[], files=[], present=[]))
    has_content: bool = False

    async def _take(self, order: str, **arguments: Any) -> None:  # noqa: ANN401 - any argument
        self.taken.append((order, arguments))
        if self.held is not None:
            await self.held.wait()
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem

    async def stage(
        self,
        source: Path | int,
        *,
        mode: schemas.Mode = "automatic",
        again: bool = False,
        rollout: str = "",
        asked_by: str = "",
    ) -> schemas.Release:
        """Take it down, with the bytes of a descriptor."""
        if isinstance(source, int):
            self.bundle = os.read(source, 1 << 20)
        told = {"mode": mode, "again": again, "rollout": rollout, "asked_by": asked_by}
        await self._take("stage", source=source, **told)
        return self.staged

    async def needs(self, manifest: bytes, signature: bytes | None) -> Needs:
        """Take it down, and need nothing."""
        await self._take("needs", manifest=manifest, signature=signature)
        return self.needed

    async def content(self, sha256: str) -> int | None:
        """Give a file of zeros, or nothing."""
        await self._take("content", sha256=sha256)
        return os.open("/dev/zero", os.O_RDONLY) if self.has_content else None

    async def promote(self, model: str, *, reason: str = "", asked_by: str = "") -> schemas.Release:
        """Take it down."""
        await self._take("promote", model=model, reason=reason, asked_by=asked_by)
        return self.staged

    async def rollback(
        self,
        model: str,
        *,
        to: int | None = None,
        disable: bool = False,
        reason: str = "",
        asked_by: str = "",
    ) -> schemas.Release:
        """Take it down."""
        where = {"to": to, "disable": disable}
        where = {key: value for key, value in where.items() if value}
        await self._take("rollback", model=model, **where, reason=reason, asked_by=asked_by)
        return self.ended

    async def revert(
        self, model: str, *, to: int | None = None, reason: str = "", asked_by: str = ""
    ) -> schemas.Release:
        """Take it down."""
        await self._take("revert", model=model, to=to, reason=reason, asked_by=asked_by)
        return self.ended

    async def abort(
        self, model: str, *, rollout: str = "", reason: str = "", asked_by: str = ""
    ) -> schemas.Release:
        """Take it down."""
        told = {"rollout": rollout, "reason": reason, "asked_by": asked_by}
        await self._take("abort", model=model, **told)
        return self.ended

    async def hold(self, model: str, *, reason: str = "", asked_by: str = "") -> None:
        """Take it down."""
        await self._take("hold", model=model, reason=reason, asked_by=asked_by)

    async def clear(self, model: str, *, reason: str = "", asked_by: str = "") -> None:
        """Take it down."""
        await self._take("clear", model=model, reason=reason, asked_by=asked_by)

    async def traffic(
        self, model: str, weights: Mapping[int, int], *, reason: str = "", asked_by: str = ""
    ) -> None:
        """Take it down."""
        told = {"weights": dict(weights), "reason": reason, "asked_by": asked_by}
        await self._take("traffic", model=model, **told)

    async def accept_keyring(
        self, data: bytes, *, force: bool = False, asked_by: str = ""
    ) -> schemas.Trust:
        """Answer with version 2, which orphans a version if it is forced."""
        await self._take("accept_keyring", data=data, force=force, asked_by=asked_by)
        lost = ["digits version 1 (active)"] if force else []
        return schemas.Trust(
            managed=True, keyring_version=2, keys=["ann"], threshold=1, orphaned=lost
        )

    async def status(self) -> schemas.Releases:
        """Say how every model does."""
        models = [await self.status_of(name) for name in self.models]
        return schemas.Releases(trust=self.trust, models=models)

    async def status_of(self, model: str) -> schemas.ModelReleases:
        """Say the next thing about a model."""
        said = self.models.get(model)
        if not said:
            raise ModelNotFoundError(f"releases know no model {model!r}")
        return said.pop(0) if len(said) > 1 else said[0]

    async def history(
        self, model: str = "", *, limit: int, before: int = 0
    ) -> Sequence[schemas.Transition]:
        """Give rows."""
        rows = [row for row in self.rows if model in {"", row.model}]
        return [row for row in rows if not before or row.id < before][:limit]

    async def explain(self, model: str) -> Sequence[str]:
        """Say what is known."""
        known = await self.status_of(model)
        return [f"Version {known.active} of {model} is active."]


def handlers_of(orders: ScriptedOrders | None) -> Handlers:
    """Make handlers whose models are nobody's business here. Needs a running loop."""
    catalog = Catalog(FakeLoader())

    async def reload(name: str) -> None:
        raise ModelNotFoundError(f"no model {name!r}")

    inference = Inference(catalog, lambda run: None)  # noqa: ARG005 - nothing is asked
    handlers = Handlers(catalog, inference, ServerStatistics(0.0), reload, Limits())
    if orders is not None:

        async def open_orders() -> ScriptedOrders:
            return orders

        handlers.open_orders = open_orders
    return handlers


class AdminClient:
    """A connection to the admin door, in front of scripted releases."""

    is_draining = False

    def __init__(self, *, wired: bool = True) -> None:
        self.peer = OPERATOR
        self.orders = ScriptedOrders(models={"digits": [standing()]})
        self.handlers = handlers_of(self.orders if wired else None)
        self._router = Router(admin_routes(self.handlers))
        self._answered = asyncio.Event()

    def answered(self, exchange: Exchange) -> None:
        """Take an answer."""
        assert exchange.answer is not None
        self._answered.set()

    def begin(self, method: str, target: str, body: object = None) -> Exchange:
        """Send a request."""
        exchange = Exchange(self)
        exchange.method, exchange.target = method.encode(), target.encode()
        if body is not None:
            exchange.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._answered.clear()
        self._router.dispatch(exchange)
        return exchange

    async def send(self, method: str, target: str, body: object = None) -> Exchange:
        """Send a request, and wait for its answer."""
        exchange = self.begin(method, target, body)
        async with asyncio.timeout(WAIT_S):
            await self._answered.wait()
        return exchange


def told(exchange: Exchange) -> Any:  # noqa: ANN401 - whatever was said
    """Decode the body of an answer."""
    assert isinstance(exchange.answer, bytes)
    return json.loads(exchange.answer.partition(b"\r\n\r\n")[2])


class AdminSocket:
    """The admin door of a daemon whose releases are scripted, on a thread of its own.

    Attributes:
        path: Its socket.
        orders: The releases; a test may change them at any time.
    """

    def __init__(self, orders: ScriptedOrders) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="er-", dir="/tmp"))
        self.path = self._folder / "admin.sock"
        self.orders = orders
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._open.wait(WAIT_S)

    async def _serve(self) -> None:
        handlers = handlers_of(self.orders)
        router = Router(admin_routes(handlers))
        door = Door(
            router.dispatch, Limits(), ServerStatistics(0.0), Timeouts(self._loop), Budget()
        )
        server = await self._loop.create_unix_server(door.connection, str(self.path))
        self._open.set()
        await self._stop.wait()
        server.close()
        door.abort()
        await door.empty.wait()

    def close(self) -> None:
        """Close it, and wait until nothing of it is left."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def admin_socket(orders: ScriptedOrders) -> Iterator[AdminSocket]:
    """Serve scripted releases for the length of a block."""
    served = AdminSocket(orders)
    try:
        yield served
    finally:
        served.close()

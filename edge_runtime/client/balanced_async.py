"""``AsyncBalancedClient``: one client of several daemons, for programs on asyncio or uvloop."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Self, TypeVar

from edge_runtime.client import calls
from edge_runtime.client.asynchronous import AsyncPool
from edge_runtime.client.asynchronous_calls import AsynchronousCalls
from edge_runtime.client.balanced import CONNECT_TIMEOUT_DEFAULT_S, jitter
from edge_runtime.client.balancing import (
    Course,
    EndpointState,
    Survey,
    balancer,
    check_timeouts,
)
from edge_runtime.client.blocking import CONNECTIONS_DEFAULT, TIMEOUT_DEFAULT_S
from edge_runtime.client.calls import Call, Version
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.ejection import Ejection
from edge_runtime.client.endpoint import Endpoint
from edge_runtime.client.policies import POLICY_DEFAULT, PolicyName
from edge_runtime.client.retrying import (
    BUDGET_DEFAULT,
    RETRIES_DEFAULT,
    RETRY_DEFAULT,
    Retry,
)
from edge_runtime.errors import EdgeRuntimeError

T = TypeVar("T")


class AsyncBalancedClient(AsynchronousCalls):
    """``BalancedClient`` for asyncio: the same calls, to be awaited, in one event loop.

    Many tasks may use it at once. Cancelling a task closes its connection, and it is not sent
    anywhere else. Ejected endpoints are asked whether they are ready in a task of their own, which
    calls start now and then; nothing is asked while nobody calls.

    Args:
        addresses: As for ``BalancedClient``, like all the rest.
        policy: Who is asked.
        weights: For ``weighted``, the share of each address.
        retry: What may be sent to another endpoint, or again.
        retries: Most retries of one call.
        retry_budget: Most retries as a share of all calls.
        timeout_s: Seconds that a call may take with all its attempts; ``None``: no limit.
        attempt_timeout_s: Seconds after which an attempt counts as failed.
        connect_timeout_s: Seconds that connecting to one endpoint may take.
        connections: Most connections at once to each endpoint.
        ejection: How soon an endpoint is ejected, and how it comes back.

    Raises:
        ConfigError: An address is none, or is there twice; a number or a name is not acceptable.
        InvalidRequestError: A timeout is not acceptable.

    Example::

        addresses = ["/run/a.sock", "http://192.168.1.7:8000"]
        async with AsyncBalancedClient(addresses, retry="at_least_once") as client:
            outputs = await client.infer("digits", {"image": image})
    """

    def __init__(
        self,
        addresses: Iterable[str | os.PathLike[str] | Endpoint],
        *,
        policy: PolicyName = POLICY_DEFAULT,
        weights: Sequence[float] | None = None,
        retry: Retry = RETRY_DEFAULT,
        retries: int = RETRIES_DEFAULT,
        retry_budget: float = BUDGET_DEFAULT,
        timeout_s: float | None = TIMEOUT_DEFAULT_S,
        attempt_timeout_s: float | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_DEFAULT_S,
        connections: int = CONNECTIONS_DEFAULT,
        ejection: Ejection | None = None,
    ) -> None:
        check_timeouts(retry, timeout_s, attempt_timeout_s, connect_timeout_s)
        self.endpoints = Endpoint.several(addresses)
        self.timeout_s = timeout_s
        self._attempt_timeout_s = attempt_timeout_s
        self._balancer = balancer(
            len(self.endpoints),
            policy=policy,
            weights=weights,
            retry=retry,
            retries=retries,
            retry_budget=retry_budget,
            connections=connections,
            ejection=ejection,
            jitter=jitter(),
        )
        self._pools = [
            AsyncPool(endpoint, connections, connect_timeout_s) for endpoint in self.endpoints
        ]
        self._checks: dict[int, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({[str(endpoint) for endpoint in self.endpoints]})"

    async def close(self) -> None:
        """Close the connections; calls that other tasks wait for finish first."""
        for pool in self._pools:
            pool.close()
        checks = list(self._checks.values())
        self._checks.clear()
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    def endpoint_states(self) -> list[EndpointState]:
        """Say how every endpoint stands with this client, in the order of the addresses."""
        return self._balancer.states(self.endpoints)

    async def live(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether a daemon runs; endpoints are asked until one says yes.

        Raises:
            UnavailableError: None can be reached.
        """
        return await self._any(calls.live(), timeout_s)

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether a daemon can answer predictions; endpoints are asked until one says yes.

        Raises:
            UnavailableError: None can be reached.
        """
        return await self._any(calls.ready(), timeout_s)

    async def model_ready(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> bool:
        """Ask whether a model can answer anywhere; endpoints are asked until one says yes.

        Raises:
            ModelNotFoundError: Every daemon said that it knows no such model or version.
            UnavailableError: None can be reached.
        """
        return await self._any(calls.model_ready(model, version), timeout_s)

    async def _perform(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        course = self._balancer.begin()
        while True:
            try:
                return await self._attempt(call, course, deadline)
            except EdgeRuntimeError as error:
                pause_s = course.pause_s(error, deadline.left_s(), jitter())
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def _any(self, call: Call[bool], timeout_s: float | None) -> bool:
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        course = self._balancer.begin()
        survey = Survey()
        while len(course.tried) < len(self.endpoints) and not survey.is_over:
            try:
                survey.answered(yes=await self._attempt(call, course, deadline))
            except EdgeRuntimeError as error:
                survey.failed(error)
        return survey.result()

    async def _attempt(self, call: Call[T], course: Course, deadline: Deadline) -> T:
        limit = deadline.within(self._attempt_timeout_s, "the attempt")
        pool = self._pools[self._next(course)]
        try:
            result = call.decode(await pool.exchange(call, limit))
        except EdgeRuntimeError as error:
            course.failed(error, monotonic(), jitter())
            raise
        except BaseException:
            course.abandoned()
            raise
        if result is False:  # reachable but not ready: no reason to admit it again
            course.abandoned()
        else:
            course.succeeded(monotonic())
        return result

    def _next(self, course: Course) -> int:
        now = monotonic()
        index = course.next(now)
        for due in self._balancer.checks_due(now):
            check = self._checks.get(due)
            if check is None or check.done():
                self._checks[due] = asyncio.create_task(self._check(due))
        return index

    async def _check(self, index: int) -> None:
        """Ask an ejected endpoint whether it is ready, on a connection of its own."""
        call = calls.ready()
        pool = AsyncPool(self.endpoints[index], 1)
        try:
            deadline = Deadline(self._balancer.ejection.check_timeout_s)
            ready = call.decode(await pool.exchange(call, deadline))
        except EdgeRuntimeError:
            ready = False
        finally:
            pool.close()
        self._balancer.checked(index, ready=ready, now=monotonic(), jitter=jitter())

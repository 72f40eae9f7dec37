"""``BalancedClient``: one client of several daemons that serve the same models."""

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from random import random
from threading import Lock, Thread
from time import monotonic
from typing import Final, Self, TypeVar

from edge_runtime.client import calls
from edge_runtime.client.balancing import (
    Course,
    EndpointState,
    Survey,
    balancer,
    check_timeouts,
)
from edge_runtime.client.blocking import CONNECTIONS_DEFAULT, TIMEOUT_DEFAULT_S
from edge_runtime.client.blocking_calls import BlockingCalls
from edge_runtime.client.calls import Call, Version
from edge_runtime.client.connection import Pool
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

CONNECT_TIMEOUT_DEFAULT_S: Final = 2.0  # a packet may be lost once (repeated after 1 s)


def jitter() -> float:
    """Give a random number of [0, 1)."""
    return random()  # noqa: S311 - it spreads load and guards nothing


class BalancedClient(BlockingCalls):
    """``Client`` of several daemons that serve the same models: the same calls, the same results.

    Threads may share it. Every call goes to one endpoint that ``policy`` chooses, and to another
    one if that fails in a way that ``retry`` allows, all within the call's one ``timeout_s``. When
    it fails for good it raises what the last attempt raised, with the earlier ones as notes;
    ``TransportError.request_sent`` is then of the whole call.

    An endpoint that fails several times in a row (unreachable, gone, no answer of the protocol), or
    answers 503 several times in a row and then says that it is not ready, is ejected: it gets
    nothing while another one is healthy. From then on calls start a short-lived thread now and
    then that asks it whether it is ready again; nothing is asked while nobody calls. When all are
    ejected, all are tried.

    There is no ``load`` and ``unload`` here: what is loaded is each daemon's own business.

    Args:
        addresses: Sockets and URLs, as ``Client`` takes them.
        policy: ``least_outstanding`` (fewest requests of this client under way, in turn among
            equals), ``round_robin``, or ``weighted``.
        weights: For ``weighted``, the share of each address.
        retry: What may be sent to another endpoint, or again. ``never``: nothing. ``unsent``: what
            certainly did not run, because no byte of it left or the daemon answered 503.
            ``at_least_once``: also what was sent and not answered, and so may run twice, which
            does no harm to models that keep no state.
        retries: Most retries of one call. Going to an endpoint not tried yet with what was not
            sent is no retry. Retries wait a random time, twice as long at most after each.
        retry_budget: Most retries as a share of all calls, beside a reserve of ``connections``;
            0 allows none.
        timeout_s: Seconds that a call may take with all its attempts; ``None``: no limit. Each
            call may say otherwise.
        attempt_timeout_s: Seconds after which an attempt counts as failed; only with
            ``at_least_once``.
        connect_timeout_s: Seconds that connecting to one endpoint may take.
        connections: Most connections at once to each endpoint.
        ejection: How soon an endpoint is ejected, and how it comes back.

    Raises:
        ConfigError: An address is none, or is there twice; a number or a name is not acceptable.
        InvalidRequestError: A timeout is not acceptable.

    Example::

        with BalancedClient(["/run/a.sock", "http://192.168.1.7:8000"]) as client:
            scores = client.infer("digits", {"image": image})["scores"]
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
            Pool(endpoint, connections, connect_timeout_s) for endpoint in self.endpoints
        ]
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = Lock()
        self._checks: dict[int, Thread] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({[str(endpoint) for endpoint in self.endpoints]})"

    def close(self) -> None:
        """Close the connections; calls that go on in other threads finish first."""
        for pool in self._pools:
            pool.close()

    def endpoint_states(self) -> list[EndpointState]:
        """Say how every endpoint stands with this client, in the order of the addresses."""
        with self._own_lock():
            return self._balancer.states(self.endpoints)

    def live(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether a daemon runs; endpoints are asked until one says yes.

        Raises:
            UnavailableError: None can be reached.
        """
        return self._any(calls.live(), timeout_s)

    def ready(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether a daemon can answer predictions; endpoints are asked until one says yes.

        Raises:
            UnavailableError: None can be reached.
        """
        return self._any(calls.ready(), timeout_s)

    def model_ready(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> bool:
        """Ask whether a model can answer anywhere; endpoints are asked until one says yes.

        Raises:
            ModelNotFoundError: Every daemon said that it knows no such model or version.
            UnavailableError: None can be reached.
        """
        return self._any(calls.model_ready(model, version), timeout_s)

    def _perform(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        course = self._begin()
        while True:
            try:
                return self._attempt(call, course, deadline)
            except EdgeRuntimeError as error:
                with self._lock:
                    pause_s = course.pause_s(error, deadline.left_s(), jitter())
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _any(self, call: Call[bool], timeout_s: float | None) -> bool:
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        course = self._begin()
        survey = Survey()
        while len(course.tried) < len(self.endpoints) and not survey.is_over:
            try:
                survey.answered(yes=self._attempt(call, course, deadline))
            except EdgeRuntimeError as error:
                survey.failed(error)
        return survey.result()

    def _attempt(self, call: Call[T], course: Course, deadline: Deadline) -> T:
        limit = deadline.within(self._attempt_timeout_s, "the attempt")
        pool = self._pools[self._next(course)]
        try:
            result = call.decode(pool.exchange(call, limit))
        except EdgeRuntimeError as error:
            with self._lock:
                course.failed(error, monotonic(), jitter())
            raise
        except BaseException:
            with self._lock:
                course.abandoned()
            raise
        with self._lock:
            if result is False:  # reachable but not ready: no reason to admit it again
                course.abandoned()
            else:
                course.succeeded(monotonic())
        return result

    def _begin(self) -> Course:
        with self._own_lock():
            return self._balancer.begin()

    def _own_lock(self) -> Lock:
        """Give the lock; to a forked child a new one: a thread of the parent may hold the old."""
        if self._process != os.getpid():
            self._start()
            self._balancer.forked()
        return self._lock

    def _next(self, course: Course) -> int:
        now = monotonic()
        with self._lock:
            index = course.next(now)
            for due in self._balancer.checks_due(now):
                self._start_check(due)
        return index

    def _start_check(self, index: int) -> None:
        check = self._checks.get(index)
        if check is not None and check.is_alive():
            return
        # Not in the caller's thread: looking up a name may take long, and no timeout ends it.
        check = Thread(target=self._check, args=(index,), name="edge-runtime-check", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads, or Python ends: the next call
            check.start()
            self._checks[index] = check

    def _check(self, index: int) -> None:
        """Ask an ejected endpoint whether it is ready, on a connection of its own."""
        call = calls.ready()
        pool = Pool(self.endpoints[index], 1)
        try:
            deadline = Deadline(self._balancer.ejection.check_timeout_s)
            ready = call.decode(pool.exchange(call, deadline))
        except EdgeRuntimeError:
            ready = False
        finally:
            pool.close()
        with self._lock:
            self._balancer.checked(index, ready=ready, now=monotonic(), jitter=jitter())

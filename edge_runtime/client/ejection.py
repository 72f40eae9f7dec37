"""When an endpoint is left alone, and when it is tried again. No clock or I/O: time is given in.

An endpoint that fails several times in a row is **ejected**: it gets no requests while another one
is healthy. After a pause it is asked whether it is ready. If so it is admitted again; if not, the
next pause is twice as long. One that fails again soon after it was admitted goes on where it was.

A 503 of the protocol is no failure: the daemon lives, and it may be one model that is not loaded.
Several in a row are a **doubt**: the endpoint is asked at once whether it is ready, and ejected
only if it is not.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from edge_runtime.errors import InvalidRequestError

_DOUBLINGS_MAX: Final = 64  # far beyond any limit, and still a float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejection:
    """How soon an endpoint is ejected and how it comes back.

    Attributes:
        failures: Failures in a row that eject it; as many refusals raise a doubt.
        first_s: Seconds until an ejected endpoint is asked whether it is ready. Twice as many
            after every no; each pause is shortened at random by up to half, so that not all
            clients ask at once. Doubts have it asked no more often than this.
        most_s: Most seconds between two questions.
        check_timeout_s: Seconds that it may take to answer.

    Raises:
        InvalidRequestError: A number is out of range.
    """

    failures: int = 3
    first_s: float = 1.0
    most_s: float = 30.0
    check_timeout_s: float = 1.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise InvalidRequestError(f"failures must be 1 or more: {self.failures}")
        if not 0 < self.first_s <= self.most_s < math.inf:
            raise InvalidRequestError(
                f"first_s and most_s must be above 0, and first_s ({self.first_s}) not above "
                f"most_s ({self.most_s})"
            )
        if not 0 < self.check_timeout_s < math.inf:
            raise InvalidRequestError(f"check_timeout_s must be above 0: {self.check_timeout_s}")


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one endpoint.

    Attributes:
        failures: Failures in a row, while it is admitted.
        check_at: Since when (or from when on) a check is due; ``None``: it is admitted.
        changed_at: When it was ejected or admitted last.
        pause_s: The last pause before a check.
        doublings: How often that pause was doubled.
        refusals: Refusals in a row, while it is admitted.
        doubt_at: Since when (or from when on) a check is due although it is admitted.
        checked_at: When a doubt was found to have no ground.
    """

    failures: int = 0
    check_at: float | None = None
    changed_at: float = -math.inf
    pause_s: float = 0.0
    doublings: int = 0
    refusals: int = 0
    doubt_at: float | None = None
    checked_at: float = -math.inf

    @property
    def is_ejected(self) -> bool:
        """Whether it gets no requests while another endpoint is healthy."""
        return self.check_at is not None

    def is_check_due(self, now: float) -> bool:
        """Tell whether it is to be asked if it is ready."""
        due = self.doubt_at if self.check_at is None else self.check_at
        return due is not None and due <= now


def succeeded(health: Health, *, started: float, now: float) -> Health:
    """Take note of an answer.

    Args:
        health: As it was.
        started: When the request began; one from before an ejection proves nothing.
        now: The time.
    """
    if health.is_ejected:
        return health if started < health.changed_at else _admitted(health, now)
    if health.failures or health.refusals or health.doubt_at is not None:
        return replace(health, failures=0, refusals=0, doubt_at=None)
    return health


def refused(health: Health, rules: Ejection, *, started: float, now: float) -> Health:
    """Take note of a refusal: the daemon answered that it did not run a request.

    Args:
        health: As it was.
        rules: When to doubt.
        started: When the request began; one from before the last change is old news.
        now: The time.
    """
    if health.is_ejected or health.doubt_at is not None or started < health.changed_at:
        return health
    refusals = health.refusals + 1
    if refusals < rules.failures:
        return replace(health, refusals=refusals)
    return replace(health, refusals=0, doubt_at=max(now, health.checked_at + rules.first_s))


def failed(health: Health, rules: Ejection, *, started: float, now: float, jitter: float) -> Health:
    """Take note of a failure.

    Args:
        health: As it was.
        rules: When to eject.
        started: When the request began; one from before the last change is old news.
        now: The time.
        jitter: A random number of [0, 1).
    """
    if health.is_ejected or started < health.changed_at:
        return health
    failures = health.failures + 1
    if failures < rules.failures:
        return replace(health, failures=failures)
    return _ejected_anew(health, rules, now=now, jitter=jitter)


def checked(health: Health, rules: Ejection, *, ready: bool, now: float, jitter: float) -> Health:
    """Take note of what a check found.

    Args:
        health: As it was.
        rules: How the pauses grow.
        ready: Whether the endpoint said that it can answer.
        now: The time.
        jitter: A random number of [0, 1).
    """
    if not health.is_ejected:
        if health.doubt_at is None:  # a request was answered meanwhile
            return health
        if ready:
            return replace(health, doubt_at=None, checked_at=now)
        return _ejected_anew(health, rules, now=now, jitter=jitter)
    if ready:
        return _admitted(health, now)
    doublings = health.doublings + 1
    return _ejected(rules, doublings, since=health.changed_at, now=now, jitter=jitter)


def _admitted(health: Health, now: float) -> Health:
    return replace(health, failures=0, check_at=None, changed_at=now)


def _ejected_anew(health: Health, rules: Ejection, *, now: float, jitter: float) -> Health:
    is_relapse = now - health.changed_at < health.pause_s
    doublings = health.doublings + 1 if is_relapse else 0
    return _ejected(rules, doublings, since=now, now=now, jitter=jitter)


def _ejected(rules: Ejection, doublings: int, *, since: float, now: float, jitter: float) -> Health:
    full_s = min(rules.most_s, rules.first_s * 2.0 ** min(doublings, _DOUBLINGS_MAX))
    pause_s = full_s * (1 - jitter / 2)
    return Health(check_at=now + pause_s, changed_at=since, pause_s=pause_s, doublings=doublings)

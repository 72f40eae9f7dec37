"""Every error of the agent, cut by who has to act.

::

    AgentError
    ├── ConfigError          the operator: fix the configuration
    ├── StateError           the device: its disk is full, read-only or failing; nothing changed
    │   └── DiskFullError      the owner: make room on the disk
    ├── TrustError           the operator of the repository: what it serves is not believed
    ├── NetworkError         nobody: try again later
    │   └── TooSlowError     the same: a server sent too little, or for too long
    ├── TooLargeError        the operator of a server: it sends more than there can be
    ├── RefusedError         the operator: the server says that there is no such thing
    ├── BudgetError          the owner: a byte budget is spent
    ├── CanceledError        nobody: it was called off
    ├── RuntimeAwayError     the device: the daemon does not answer; try again later
    └── RuntimeRefusedError  the operator: the daemon says no, and why

A message says what went wrong, where, and what to do about it.
"""

from enum import StrEnum


class AgentError(Exception):
    """Base of every error that the agent raises on purpose."""

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.args[0]) if self.args else type(self).__name__


class ConfigError(AgentError):
    """The configuration, or an argument, is wrong."""


class StateError(AgentError):
    """The disk does not take or give what the agent keeps there."""


class DiskFullError(StateError):
    """The disk has no room for it beside what must stay free."""


class Distrust(StrEnum):
    """Why a repository is not believed; stored and sent, so the words are frozen."""

    EXPIRED = "expired"
    ROLLED_BACK = "rolled-back"
    MIXED = "mixed"
    THRESHOLD = "threshold"
    WRONG_HASH = "wrong-hash"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    MALFORMED = "malformed"
    WRONG_FLEET = "wrong-fleet"


class TrustError(AgentError):
    """What the repository serves is not believed; nothing on disk changed.

    Args:
        reason: Why, in a frozen word.
        message: The same for people.
    """

    def __init__(self, reason: Distrust, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NetworkError(AgentError):
    """A server could not be reached, went away, or failed: later it may work.

    Args:
        message: What was asked of whom, and what happened.
        retry_after_s: How long the server wants to be left alone, in seconds; 0: it did not say.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooSlowError(NetworkError):
    """A server sent nothing, too little, or for longer than is waited."""


class TooLargeError(AgentError):
    """A server sends more than the file can have; nothing of it is believed."""


class RefusedError(AgentError):
    """A server answered that it will not: to ask again is no use.

    Args:
        status: The HTTP status, 400 to 499.
        message: What was asked, and the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BudgetError(AgentError):
    """A byte budget has no room for it until the next month, or another order."""


class CanceledError(AgentError):
    """It was called off while it was under way; what is kept is of use to the next try."""


class RuntimeAwayError(AgentError):
    """The daemon does not answer on its socket."""


class RuntimeRefusedError(AgentError):
    """The daemon refused an order.

    Args:
        status: Its HTTP status.
        message: Its sentence.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

"""Signed commands: which are obeyed, which are refused and counted, and what is answered.

Nothing here changes what runs. A forged, late, repeated or foreign command is counted and not
answered: whoever can write to the topic must not make the device speak. The counter is durable
before a command is obeyed, so that a crash never lets it be obeyed twice.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from agent.envelope import ForgedError, read_command
from agent.errors import AgentError
from agent.messages import COMMAND_BYTES_MAX, Command, CommandResult
from agent.topics import Kind, Topic

_log = logging.getLogger(__name__)

PAUSE_S_MAX: Final = 31 * 86_400.0
"""Updates are never paused for longer by one command: a device must not be forgotten."""


class Refusal(StrEnum):
    """Why a command was not looked at further."""

    MALFORMED = "malformed"
    FORGED = "forged"
    EXPIRED = "expired"
    REPLAYED = "replayed"


class Collect(msgspec.Struct, frozen=True, kw_only=True):
    """``collect``: send a batch of telemetry now."""


class CheckNow(msgspec.Struct, frozen=True, kw_only=True):
    """``check-now``: ask the repository now."""


class LogLevel(msgspec.Struct, frozen=True, kw_only=True):
    """``log-level``: log more, or less, until the agent starts again."""

    level: Literal["debug", "info", "warning", "error"]


class PauseUpdates(msgspec.Struct, frozen=True, kw_only=True):
    """``pause-updates``: begin no update before a moment; one in the past ends a pause.

    Attributes:
        until_s: Epoch seconds.
    """

    until_s: Annotated[float, Meta(ge=0)]


Order = Collect | CheckNow | LogLevel | PauseUpdates
ORDERS: Final[Mapping[str, type[Order]]] = {
    "collect": Collect,
    "check-now": CheckNow,
    "log-level": LogLevel,
    "pause-updates": PauseUpdates,
}


class Floor(Protocol):
    """Remembers the highest counter of each key."""

    def rise(self, key_id: str, counter: int) -> bool:
        """Raise it durably; false where it is there already."""


Obey = Callable[[Order], dict[str, Any]]
"""Does what is ordered and gives the data of the answer; raises ``AgentError`` where it cannot."""


class Commands:
    """Takes commands and answers them.

    Args:
        keys: Public keys that may command, 32 bytes each, by their id; none: nothing is obeyed.
        floor: Remembers the highest counter of each key.
        now_s: Epoch seconds, as far as they are known.
        obey: Does what is ordered.

    Attributes:
        refused: How many commands were refused, by reason.
    """

    def __init__(
        self, keys: Mapping[str, bytes], floor: Floor, now_s: Callable[[], float], obey: Obey
    ) -> None:
        self._keys = keys
        self._floor = floor
        self._now_s = now_s
        self._obey = obey
        self.refused: Counter[Refusal] = Counter()

    def receive(self, topic: Topic, data: bytes) -> CommandResult | None:
        """Obey a command, or refuse it.

        Args:
            topic: Where it came.
            data: Anybody's bytes.

        Returns:
            The answer for the command's ``result`` topic; ``None``: it gets none.

        Raises:
            StateError: The disk refused the counter; the command was not obeyed.
        """
        try:
            command, key_id = self._believed(topic, data)
        except ForgedError as error:
            self._refuse(Refusal.FORGED, str(error))
        except ValueError as error:
            self._refuse(Refusal.MALFORMED, str(error))
        else:
            if command.expires_s <= self._now_s():
                self._refuse(Refusal.EXPIRED, f"command {command.id} came too late")
            elif not self._floor.rise(key_id, command.counter):
                self._refuse(Refusal.REPLAYED, f"command {command.id} came before")
            else:
                return self._answered(command)
        return None

    def _believed(self, topic: Topic, data: bytes) -> tuple[Command, str]:
        if topic.kind is not Kind.COMMAND or len(data) > COMMAND_BYTES_MAX:
            raise ValueError("it is no command")
        return read_command(topic, data, self._keys)

    def _refuse(self, refusal: Refusal, why: str) -> None:
        # Once is enough: whoever sends garbage must not fill the log either.
        if not self.refused[refusal]:
            _log.warning("a command was refused as %s: %s; more are only counted", refusal, why)
        self.refused[refusal] += 1

    def _answered(self, command: Command) -> CommandResult:
        kind = ORDERS.get(command.op)
        if kind is None:
            known = ", ".join(sorted(ORDERS))
            return _result(command, "rejected", f"{command.op} is unknown; there are {known}")
        try:
            order = msgspec.convert(command.arguments, kind)
        except msgspec.ValidationError as error:
            return _result(command, "rejected", f"{command.op}: {error}")
        if isinstance(order, PauseUpdates) and order.until_s > self._now_s() + PAUSE_S_MAX:
            days = int(PAUSE_S_MAX / 86_400)
            return _result(command, "rejected", f"updates are paused for {days} days at most")
        try:
            data = self._obey(order)
        except AgentError as error:
            return _result(command, "failed", error.message)
        return _result(command, "succeeded", data=data)


def _result(
    command: Command,
    state: Literal["succeeded", "failed", "rejected"],
    text: str = "",
    data: dict[str, Any] | None = None,
) -> CommandResult:
    return CommandResult(id=command.id, state=state, text=text[:4096], data=data or {})

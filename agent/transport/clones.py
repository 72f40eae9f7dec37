"""Notices that another device lives under this one's name and key: a copied disk.

Two such agents throw each other off the broker for ever. What proves it is a birth that is signed
with this device's own key, that no run of this agent has said, and that stands where this run's own
birth stood: only somebody with the key can have put it there since. A broker can keep old births,
but has none that this device never said.
"""

from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import Final

from agent.envelope import unwrap
from agent.topics import Topic

STRANGERS_MAX: Final = 2
"""Births of a stranger after which there is no doubt."""


class Suspicion(Enum):
    """How sure that is."""

    NONE = auto()
    SUSPECTED = auto()
    """Another connection came with this name, or one birth was a stranger's."""
    CLONED = auto()
    """Two agents use one identity: this one comes back as late as it can."""


class CloneWatch:
    """Collects the evidence of one run of the agent.

    Args:
        own_boot_ids: Runs of this agent.
        keys: This device's public key, by its id.
        is_known: Whether an earlier run was sure of it, and nobody has seen to it.
    """

    def __init__(
        self, own_boot_ids: Collection[str], keys: Mapping[str, bytes], *, is_known: bool = False
    ) -> None:
        self._own = frozenset(own_boot_ids)
        self._keys = keys
        self._is_known = is_known
        self._is_born = False
        self._strangers = 0
        self._takeovers = 0

    @property
    def suspicion(self) -> Suspicion:
        """How sure it is."""
        is_sure = self._strangers >= STRANGERS_MAX or (self._strangers and self._takeovers)
        if is_sure or self._is_known:
            return Suspicion.CLONED
        is_odd = self._strangers or self._takeovers
        return Suspicion.SUSPECTED if is_odd else Suspicion.NONE

    def born(self) -> None:
        """Note that the broker has this run's birth."""
        self._is_born = True

    def taken_over(self) -> None:
        """Note that the broker ended a connection because another came with the same name."""
        self._takeovers += 1

    def heard(self, topic: Topic, data: bytes) -> None:
        """Look at a birth on this device's own topic; anybody may have written it."""
        try:
            envelope, _ = unwrap(topic, data, self._keys)
        except ValueError:
            return
        if self._is_born and envelope.boot_id not in self._own:
            self._strangers += 1

    def clear(self) -> None:
        """Forget the evidence: somebody has seen to it."""
        self._strangers = self._takeovers = 0
        self._is_known = False

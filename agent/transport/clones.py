"""Notices that another device lives under this one's name and key: a copied disk.

Two such agents throw each other off the broker for ever. Neither the key nor any other secret tells
them apart, since the copy has it too; and a birth that this device does not remember proves
nothing, since a broker keeps what was said years ago, and a damaged agent.db forgets it.

So each birth asks a question that nobody could have answered before: a random **challenge**, new
with each run of the agent. Whoever hears a birth that is signed with its own key, and that it did
not say, repeats the challenge in a birth of its own. A birth that answers *this* run's challenge
and was said by another run was therefore signed after this run began; and no earlier run of this
agent can have signed it, since only one runs at a time (``agent.state_lock``). There is a second
one, alive. A broker can replay whatever this device ever said: in none of it is an answer to a
challenge that did not exist then. The worst it can do is to hide a copy, as it can hide everything.

The broker's retained birth carries the question from one to the other, though they are never
connected at once, with MQTT 5 as with 3.1.1. A broker that keeps nothing shows no copies.
"""

import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from enum import Enum, auto
from typing import Final

from agent.envelope import unwrap
from agent.messages import CHALLENGES_MAX, Birth, read
from agent.topics import Topic

ANSWER_S: Final = 10.0
"""Least time between two births that are said only to answer: a replay of many costs little."""
ODD_S: Final = 3600.0
"""A suspicion lapses after so long without anything new."""
_CHALLENGE_BYTES: Final = 16


class Suspicion(Enum):
    """How sure that is."""

    NONE = auto()
    SUSPECTED = auto()
    """A birth that is not remembered, or another connection with this name: anybody can do it."""
    CLONED = auto()
    """Another agent answered: two use one identity. This one comes back as late as it can."""


class CloneWatch:
    """Collects the evidence of one run of the agent; every method may be called by any thread.

    Args:
        boot_id: This run.
        own_boot_ids: Earlier runs of this agent, as far as they are remembered.
        keys: This device's public key, by its id.
        is_known: Whether an earlier run was sure of it, and nobody has seen to it.
        now_s: Seconds that only rise.
    """

    def __init__(
        self,
        boot_id: str,
        own_boot_ids: Collection[str],
        keys: Mapping[str, bytes],
        *,
        is_known: bool = False,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._boot_id = boot_id
        self._own = frozenset(own_boot_ids)
        self._keys = keys
        self._is_known = is_known
        self._now_s = now_s
        self._lock = threading.Lock()
        self._challenge = _new_challenge()
        self._heard: tuple[str, ...] = ()
        self._odd_s = float("-inf")
        self._is_answered = False
        self._owes_answer = False
        self._answer_due_s = float("-inf")

    @property
    def suspicion(self) -> Suspicion:
        """How sure it is."""
        if self._is_answered or self._is_known:
            return Suspicion.CLONED
        is_odd = self._now_s() - self._odd_s < ODD_S
        return Suspicion.SUSPECTED if is_odd else Suspicion.NONE

    @property
    def challenge(self) -> str:
        """What a birth of this run asks."""
        return self._challenge

    @property
    def answers(self) -> tuple[str, ...]:
        """What a birth of this run answers: challenges of others, the newest last."""
        return self._heard

    def taken_over(self) -> None:
        """Note that the broker ended a connection because another came with the same name."""
        self._odd_s = self._now_s()

    def heard(self, topic: Topic, data: bytes) -> None:
        """Look at a birth on this device's own topic; anybody may have written it."""
        try:
            envelope, payload = unwrap(topic, data, self._keys)
            birth = read(payload, Birth)
        except ValueError:
            return
        if envelope.boot_id == self._boot_id:
            return
        with self._lock:
            if self._challenge in birth.answers:
                self._is_answered = True
            # A disk that was copied while this device ran remembers its run as one of its own.
            # Only who is alive can have answered; so then it is answered, too: both must know.
            if envelope.boot_id in self._own and not self._is_answered:
                return
            self._odd_s = self._now_s()
            if birth.challenge and birth.challenge not in self._heard:
                self._heard = (*self._heard, birth.challenge)[-CHALLENGES_MAX:]
                self._owes_answer = True

    def is_answer_due(self) -> bool:
        """Tell once of each answer that a birth should be said for it, and not too often."""
        with self._lock:
            now_s = self._now_s()
            if not self._owes_answer or now_s < self._answer_due_s:
                return False
            self._owes_answer = False
            self._answer_due_s = now_s + ANSWER_S
            return True

    def clear(self) -> None:
        """Forget the evidence: somebody has seen to it. What answers the old challenge is void."""
        with self._lock:
            self._is_known = self._is_answered = False
            self._odd_s = float("-inf")
            self._challenge = _new_challenge()


def _new_challenge() -> str:
    return secrets.token_hex(_CHALLENGE_BYTES)

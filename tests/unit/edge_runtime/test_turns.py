"""No user has more than a few requests handled in one turn while others are about."""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.access import Peer
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.turns import ABOUT_S, PER_TURN, Turns

if TYPE_CHECKING:
    import asyncio


class Loop:
    """A loop that is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._soon: list[Callable[[], None]] = []

    def time(self) -> float:
        """Say what time it is."""
        return self.now_s

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run something in the next turn."""
        self._soon.append(callback)

    def turn(self) -> bool:
        """Run what was asked for; whether there was something."""
        soon, self._soon = self._soon, []
        for callback in soon:
            callback()
        return bool(soon)


class Client:
    """Where exchanges of one user come from."""

    is_draining = False

    def __init__(self, uid: int | None) -> None:
        self.peer = Peer(uid, None, None, "unix")

    def answered(self, exchange: Exchange) -> None:
        """Nobody waits here."""


class Bench:
    """Turns, and what was handled in order."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.handled: list[Exchange] = []
        self.turns = Turns(cast("asyncio.AbstractEventLoop", self.loop), self.handled.append)

    def ask(self, uid: int | None, count: int = 1) -> list[Exchange]:
        """Let a user ask."""
        exchanges = [Exchange(Client(uid)) for _ in range(count)]
        for exchange in exchanges:
            self.turns.take(exchange)
        return exchanges


def test_one_user_alone_waits_for_nothing() -> None:
    bench = Bench()
    assert bench.ask(1, 100) == bench.handled
    assert not bench.loop.turn()


def test_another_user_is_handled_before_most_of_a_greedy_ones_requests() -> None:
    bench = Bench()
    bench.ask(1)
    bench.ask(2)
    greedy = bench.ask(1, 50)
    (other,) = bench.ask(2)
    assert other in bench.handled
    assert len([each for each in greedy if each in bench.handled]) <= PER_TURN


def test_a_user_that_comes_while_others_wait_is_handled_in_the_same_turn() -> None:
    bench = Bench()
    bench.ask(1)
    bench.ask(2)
    bench.ask(1, 50)
    bench.loop.turn()
    (other,) = bench.ask(2)
    assert bench.handled[-1] is other


def test_a_greedy_user_has_the_loop_to_itself_again_soon_after() -> None:
    bench = Bench()
    bench.ask(2)
    for _ in range(2):
        bench.ask(1)
        while bench.loop.turn():
            pass
        bench.loop.now_s += ABOUT_S * 2
    before = len(bench.handled)
    bench.ask(1, 20)
    assert len(bench.handled) == before + 20


users = st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.integers(0, 6)), max_size=40)


@given(users)
def test_nothing_is_lost_or_doubled_and_each_users_order_stays(
    steps: list[tuple[int | None, int]],
) -> None:
    bench = Bench()
    asked: list[Exchange] = []
    for uid, count in steps:
        asked += bench.ask(uid, count)
        bench.loop.turn()
        bench.loop.now_s += 0.01
    while bench.loop.turn():
        bench.loop.now_s += 0.01
    assert len(bench.handled) == len(asked)
    for uid in (None, 0, 1, 2):

        def of(exchanges: list[Exchange], uid: int | None = uid) -> list[int]:
            return [id(each) for each in exchanges if each.connection.peer.uid == uid]

        assert of(bench.handled) == of(asked)

"""Answers in memory: the least recently used leave when there are too many bytes."""

from collections import OrderedDict

from edge_runtime.cache.counters import Counters
from edge_runtime.cache.entry import Entry

SHARE_MAX = 4  # an answer that takes more than a quarter of all memory is not kept there


class Resident:
    """An answer in memory.

    Attributes:
        entry: The answer.
        born_s: When it was computed, in monotonic seconds.
        owner: Counters of the version that gave it.
        used: When it was used last, as a number that only grows.
    """

    __slots__ = ("born_s", "entry", "owner", "used")

    def __init__(self, entry: Entry, born_s: float, owner: Counters, used: int) -> None:
        self.entry = entry
        self.born_s = born_s
        self.owner = owner
        self.used = used


class Room:
    """The answers of one model, the least recently used first.

    Attributes:
        residents: By key.
        size_bytes: What they take.
        limit_bytes: Most that they may take.
    """

    __slots__ = ("limit_bytes", "residents", "size_bytes")

    def __init__(self) -> None:
        self.residents: OrderedDict[bytes, Resident] = OrderedDict()
        self.size_bytes = 0
        self.limit_bytes = 0


class Front:
    """Every answer in memory.

    Args:
        limit_bytes: Most that they take together.

    Attributes:
        size_bytes: What they take.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._rooms: dict[str, Room] = {}
        self._tick = 0
        self.size_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """Most that all answers take together."""
        return self._limit_bytes

    def room(self, model: str) -> Room:
        """Give the room of a model, a new one if it has none."""
        return self._rooms.setdefault(model, Room())

    def close_room(self, model: str) -> None:
        """Forget a model of which nothing is kept, and nothing will be before ``room`` is asked."""
        room = self._rooms.get(model)
        if room is not None and not room.residents:
            del self._rooms[model]

    def get(self, room: Room, key: bytes) -> Resident | None:
        """Find an answer, and note that it was used."""
        resident = room.residents.get(key)
        if resident is not None:
            room.residents.move_to_end(key)
            self._tick += 1
            resident.used = self._tick
        return resident

    def put(self, room: Room, key: bytes, entry: Entry, born_s: float, owner: Counters) -> None:
        """Keep an answer if it is not too large; others may have to go.

        Args:
            room: Of the model.
            key: Its question.
            entry: The answer.
            born_s: When it was computed, in monotonic seconds.
            owner: Counters of the version that gave it.
        """
        self.drop(room, key)
        if entry.size_bytes > min(room.limit_bytes, self._limit_bytes // SHARE_MAX):
            return
        self._tick += 1
        room.residents[key] = Resident(entry, born_s, owner, self._tick)
        room.size_bytes += entry.size_bytes
        self.size_bytes += entry.size_bytes
        owner.ram_bytes += entry.size_bytes
        owner.ram_entries += 1
        self.shrink(room)

    def shrink(self, room: Room) -> None:
        """Bring a room and the whole within their limits."""
        while room.size_bytes > room.limit_bytes:
            self._evict(room)
        while self.size_bytes > self._limit_bytes:
            # Few models have a cache, so looking at the oldest of each is cheap.
            self._evict(min((each for each in self._rooms.values() if each.residents), key=_oldest))

    def drop(self, room: Room, key: bytes) -> None:
        """Let go of one answer, if it is there."""
        resident = room.residents.pop(key, None)
        if resident is not None:
            self._left(room, resident)

    def drop_owner(self, room: Room, owner: Counters) -> None:
        """Let go of every answer of one version."""
        for key in [key for key, each in room.residents.items() if each.owner is owner]:
            self.drop(room, key)

    def clear(self) -> None:
        """Let go of every answer."""
        for room in self._rooms.values():
            for key in list(room.residents):
                self.drop(room, key)

    def _evict(self, room: Room) -> None:
        _, resident = room.residents.popitem(last=False)
        resident.owner.evicted += 1
        self._left(room, resident)

    def _left(self, room: Room, resident: Resident) -> None:
        size = resident.entry.size_bytes
        room.size_bytes -= size
        self.size_bytes -= size
        resident.owner.ram_bytes -= size
        resident.owner.ram_entries -= 1


def _oldest(room: Room) -> int:
    return next(iter(room.residents.values())).used

"""Bytes that may be in flight: so many in all, so many of one owner, and who waits gets room in turn.

Owners take turns, each with what it asked for first. So somebody who asks for a hundred large things delays somebody
else's small one by no more than what has room already. Whoever's turn it is waits for room in the whole, and is not
overtaken: otherwise a stream of small ones would keep a large one waiting for ever. Room that its own share lacks is
its own affair: the turn goes to the next owner.
"""

from __future__ import annotations

from collections import OrderedDict, deque


class Turn:
    """Somebody who waits for room."""

    __slots__ = ("has_room", "owner", "size_bytes")

    def __init__(self, owner: str, size_bytes: int) -> None:
        self.owner = owner
        self.size_bytes = size_bytes
        self.has_room = False


class Budget:
    """Invariant: `in_flight_bytes` is within `total_bytes`, and that of an owner within half of it, but for one that is
    larger than this by itself, and for what grew beyond what was asked for."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        """May be changed at any time."""
        self.in_flight_bytes = 0
        self.waiting = 0
        self._used: dict[str, int] = {}
        self._queues: OrderedDict[str, deque[Turn]] = OrderedDict()
        """In the order of their turns."""
        self._is_full = False
        """Whether those who wait lack room in the whole."""

    def take(self, owner: str, size_bytes: int) -> bool:
        """Take room if there is some and nobody is overtaken; give it back with `give`."""
        if self._queues and (self._is_full or owner in self._queues):
            return False
        if not (self._fits_share(owner, size_bytes) and self._fits(size_bytes)):
            return False
        self.add(owner, size_bytes)
        return True

    def wait(self, owner: str, size_bytes: int) -> Turn:
        """Wait for room, after `take` has found none; `leave` ends the wait."""
        turn = Turn(owner, size_bytes)
        self._queues.setdefault(owner, deque()).append(turn)
        self.waiting += 1
        self._is_full = self._is_full or self._fits_share(owner, size_bytes)
        return turn

    def add(self, owner: str, size_bytes: int) -> None:
        """Count more than was asked for, whether there is room or not; or less, if negative (then see `admit`)."""
        self.in_flight_bytes += size_bytes
        used = self._used.get(owner, 0) + size_bytes
        if used:
            self._used[owner] = used
        else:
            self._used.pop(owner, None)

    def leave(self, turn: Turn) -> None:
        """Wait no more. `admit` has to follow: it may have been the one who kept others waiting."""
        queue = self._queues[turn.owner]
        queue.remove(turn)
        if not queue:
            del self._queues[turn.owner]
        self.waiting -= 1

    def admit(self) -> list[Turn]:
        """Give room to those whose turn it is. To be called when there may be some."""
        admitted: list[Turn] = []
        queues, passed = self._queues, 0
        self._is_full = False
        while passed < len(queues):
            owner, queue = next(iter(queues.items()))
            turn = queue[0]
            if self._fits_share(owner, turn.size_bytes):
                if not self._fits(turn.size_bytes):
                    self._is_full = True
                    break
                self.leave(turn)
                self.add(owner, turn.size_bytes)
                turn.has_room = True
                admitted.append(turn)
                passed = 0
            else:
                passed += 1
            if owner in queues:
                queues.move_to_end(owner)
        return admitted

    def _fits(self, size_bytes: int) -> bool:
        return not self.in_flight_bytes or self.in_flight_bytes + size_bytes <= self.total_bytes

    def _fits_share(self, owner: str, size_bytes: int) -> bool:
        used = self._used.get(owner)
        return used is None or used + size_bytes <= self.total_bytes // 2

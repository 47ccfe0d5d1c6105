"""Bytes under way in one direction, bounded: who finds no room waits for it in turn (core/budget.py)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from zkside.core.budget import Budget, Turn
from zkside.errors import Busy

MOST_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class InFlightStatistics:
    bytes: int
    limit_bytes: int
    waiting: int
    waited: int
    """Counted since the start, as is `refused`."""
    refused: int


class Share:
    """Room that somebody has; given back with `close` or the end of a `with` block. A second `close` does nothing."""

    __slots__ = ("_in_flight", "_owner", "size_bytes")

    def __init__(self, in_flight: InFlight, owner: str, size_bytes: int) -> None:
        self._in_flight = in_flight
        self._owner = owner
        self.size_bytes = size_bytes

    def resize(self, size_bytes: int) -> None:
        """It turned out to be more, or less; does not wait."""
        self._in_flight.change(self._owner, size_bytes - self.size_bytes)
        self.size_bytes = size_bytes

    def close(self) -> None:
        self.resize(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InFlight:
    """One direction."""

    def __init__(self, limit: str, total_bytes: int) -> None:
        """`limit`: the configuration's key."""
        self.limit = limit
        self._budget = Budget(total_bytes)
        self._held_bytes = 0
        self._futures: dict[Turn, asyncio.Future[None]] = {}
        self._waited = self._refused = 0

    @property
    def limit_bytes(self) -> int:
        """What may be in flight in all; of one owner, half of it."""
        return self._budget.total_bytes

    def configure(self, total_bytes: int) -> None:
        """Apply this limit from now on."""
        self._budget.total_bytes = total_bytes
        self._admit()

    def take(self, owner: str, size_bytes: int) -> Share | None:
        """Take room, if nobody has to wait for it."""
        return Share(self, owner, size_bytes) if self._budget.take(owner, size_bytes) else None

    async def room(self, owner: str, size_bytes: int, *, is_made: bool = False) -> Share:
        """Take room when it is this owner's turn. Cancellation: leaves the queue.

        `is_made`: what waits is in memory already. Raises: Busy when too many wait, or more of what is in memory than
        may be in flight.
        """
        share = self.take(owner, size_bytes)
        if share is not None:
            return share
        budget = self._budget
        held_bytes = size_bytes if is_made else 0
        if budget.waiting >= MOST_WAITING or self._held_bytes + held_bytes > budget.total_bytes:
            self._refused += 1
            raise Busy(
                f"{budget.in_flight_bytes} bytes are under way and {budget.waiting} calls wait for room "
                f"({self.limit} is {budget.total_bytes}): try again later, with fewer or smaller calls at a time",
                limit=self.limit,
            )
        self._waited += 1
        self._held_bytes += held_bytes
        turn = budget.wait(owner, size_bytes)
        future = self._futures[turn] = asyncio.get_running_loop().create_future()
        try:
            await future
        except BaseException:
            if turn.has_room:
                budget.add(owner, -size_bytes)
            else:
                budget.leave(turn)
                del self._futures[turn]
            self._admit()
            raise
        finally:
            self._held_bytes -= held_bytes
        return Share(self, owner, size_bytes)

    def change(self, owner: str, by_bytes: int) -> None:
        """Count a share that has another size."""
        if by_bytes:
            self._budget.add(owner, by_bytes)
            if by_bytes < 0:
                self._admit()

    def statistics(self) -> InFlightStatistics:
        budget = self._budget
        return InFlightStatistics(
            budget.in_flight_bytes, budget.total_bytes, budget.waiting, self._waited, self._refused
        )

    def _admit(self) -> None:
        if self._budget.waiting:
            for turn in self._budget.admit():
                future = self._futures.pop(turn)
                if not future.done():
                    future.set_result(None)

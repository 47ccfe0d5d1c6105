"""The flow of all that queues: take a seat, wait for the turn, be granted; in every epoch anew until then."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from zkside.core.queueing import Contender, Kind, contender
from zkside.errors import HoldLost, NotSupported, SessionLost, SessionSuspended
from zkside.hub.hub import Hub
from zkside.model import path as paths
from zkside.model.hold import Reason
from zkside.model.operation import Acl, Create, CreateMode
from zkside.recipes.hold import Hold
from zkside.recipes.node import Writes
from zkside.recipes.turnstile import Turnstile
from zkside.recipes.waiting import Rooms, WaitingRoom, outlast
from zkside.zk.session import Session


@dataclass(frozen=True, slots=True)
class Bid:
    """What a contender puts into a queue."""

    path: str
    kind: Kind
    data: bytes
    acl: tuple[Acl, ...]
    wait_timeout_s: float = math.inf
    """Counted from the beginning; 0: one look at the queue, no waiting."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A contender's node."""

    path: str
    czxid: int
    contender: Contender


Turn = Callable[[int, Seat, float], Awaitable[None]]
"""What to do when it is the seat's turn in that epoch; any more waiting until that instant of the loop's clock."""


class Queueing:
    """The flows over one session."""

    def __init__(self, session: Session, hub: Hub, writes: Writes, turnstile: Turnstile) -> None:
        """`turnstile`: that of all holds."""
        self.session = session
        self.hub = hub
        self._writes = writes
        self._rooms = Rooms(session, hub, turnstile)

    async def first(self, hold: Hold, bid: Bid) -> None:
        """Who is first holds: the whole flow of a lock and of a candidacy."""

        async def grant(epoch: int, seat: Seat, until_s: float) -> None:
            hold.grant(seat.path, seat.czxid, epoch)

        await self.queue(hold, bid, grant)

    async def queue(self, hold: Hold, bid: Bid, in_turn: Turn) -> None:
        """Queue until it is this hold's turn, and do then what `in_turn` says.

        Everything happens within an epoch; when that ends the place in the queue is lost, and a new one is taken
        in the next. Ends the hold when its node was deleted by somebody, and when the wait takes too long.
        Raises: SessionSuspended if there is no connection to begin with; what the create raises;
        InvalidArgument where others queue under another layout. Cancellation: the hold lets its node go.
        """
        until_s = asyncio.get_running_loop().time() + bid.wait_timeout_s
        is_new = True
        try:
            while True:
                epoch = self.session.epoch
                try:
                    async with self.session.within(epoch):
                        with self._rooms.enter(bid.path, epoch) as room:
                            before = 0

                            def look(room: WaitingRoom = room) -> None:
                                nonlocal before
                                before = room.look()

                            take = partial(self.take_seat, hold, bid.path, bid, on_sent=look)
                            # Who waits already has lost its place with the epoch, and is not to lose its wait too.
                            async with hold.beginning():
                                seat = await (take() if is_new else outlast(take))
                            await room.settle(seat.contender, before)
                            async with patience(until_s):
                                await room.turn(seat.contender, hold.wait)
                        await in_turn(epoch, seat, until_s)
                    return
                except SessionLost:
                    hold.forget_seats()
                except SessionSuspended:
                    if is_new:
                        raise
                is_new = False
                async with patience(until_s):
                    await self.session.wait_connected()
        except TimeoutError:
            hold.release(Reason.WAIT_TIMEOUT)
        except HoldLost:
            hold.lose(Reason.NODE_DELETED)

    async def take_seat(
        self, hold: Hold, parent: str, bid: Bid, *, on_sent: Callable[[], object] = lambda: None
    ) -> Seat:
        """A node among the contenders of a path; it goes when the hold does. For `on_sent` see Writes.create."""
        operation = Create(paths.join(parent, bid.kind.value), bid.data, CreateMode.EPHEMERAL_SEQUENTIAL, bid.acl)
        parents = CreateMode.PERSISTENT if bid.kind.needs_lasting_parent else CreateMode.CONTAINER
        reply = await self._writes.create(
            operation, protected=True, make_parents=True, parents=parents, on_sent=on_sent
        )
        made = reply.value
        hold.seat(made.path)
        mine = contender(paths.name(made.path))
        if made.stat is None or mine is None:
            raise NotSupported("this ZooKeeper does not tell the Stat of what it creates: holds need 3.5 or newer")
        return Seat(made.path, made.stat.czxid, mine)


def patience(until_s: float) -> asyncio.Timeout:
    """Raises TimeoutError from a block that still waits at that instant of the loop's clock."""
    return asyncio.timeout_at(until_s if until_s < math.inf else None)

"""The one waiting loop of all that queues: locks, elections, the mutex of a semaphore.

Who waits watches the nearest contender that blocks it, and no other, so that a release wakes one waiter and costs the
server one watch a waiter (GUARANTEES H7). What the waiters of this daemon learn of a queue they share: when the
one ahead has gone, most often nothing has to be read to know whose turn it is, however long the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from zkside.core.queueing import Contender, Queue, mixed
from zkside.errors import ConnectionLoss, HoldLost, InvalidArgument, NoNode, SessionSuspended, Unavailable, ZksideError
from zkside.hub.asking import Asking, pause
from zkside.hub.hub import Hub
from zkside.model import path as paths
from zkside.model.operation import Exists, GetChildren, Operation, Reply, T
from zkside.model.stat import Stat
from zkside.zk.session import Session

FEW = 16
"""So many contenders are looked at one by one; for more all children are listed."""


class _Watched:
    """A contender whose end is waited for."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters = 0
        self.unwatch: Callable[[], None] = lambda: None


class Rooms:
    """The waiting rooms of this daemon: one for each path at which somebody waits, in each epoch."""

    def __init__(self, session: Session, hub: Hub) -> None:
        self._session = session
        self._hub = hub
        self._rooms: dict[tuple[str, int], WaitingRoom] = {}

    @contextmanager
    def enter(self, path: str, epoch: int) -> Iterator[WaitingRoom]:
        """The room of a path, for the time of the block."""
        key = (path, epoch)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = WaitingRoom(self._session, self._hub, path)
        room.users += 1
        try:
            yield room
        finally:
            room.users -= 1
            if not room.users:
                del self._rooms[key]


class WaitingRoom:
    """What this daemon's waiters at one path know of the queue, together."""

    def __init__(self, session: Session, hub: Hub, path: str) -> None:
        self.users = 0
        self._session = session
        self._hub = hub
        self._path = path
        self._queue = Queue()
        self._watched: dict[str, _Watched] = {}
        self._listing: asyncio.Future[Reply[tuple[list[str], Stat]]] | None = None
        self._begun = self._newest = 0
        """Listings, numbered as they were sent: the last one, and the last one that was answered."""

    def look(self) -> int:
        """Send a listing, unless one is under way; returns the number of the last one before.

        For who has sent a create just now: what is listed behind it has its node.
        """
        before = self._begun
        if self._listing is None:
            self._begun += 1
            self._listing = self._session.call(GetChildren(self._path))
            self._listing.add_done_callback(partial(self._on_listed, self._begun))
        return before

    def _on_listed(self, number: int, listing: asyncio.Future[Reply[tuple[list[str], Stat]]]) -> None:
        self._listing = None
        error = None if listing.cancelled() else listing.exception()
        if error is None:
            self._queue.listed(listing.result().value[0])
        if error is None or isinstance(error, NoNode):
            self._newest = number

    async def settle(self, me: Contender, before: int) -> None:
        """Learn who is ahead of this contender; `before` is what `look` returned when its create was sent.

        Raises: HoldLost if its node is not there any more; InvalidArgument if others queue there under names
        that it cannot wait for.
        """
        while not self._queue.has(me):
            if self._newest > before:
                raise HoldLost(f"somebody deleted {me.name} while it waited", path=self._path)
            await self._list()
        other = mixed(me, self._queue.known)
        if other is not None:
            raise InvalidArgument(
                f'{self._path} is in use with the layout of "…{other.value}…" names, which do not wait for '
                f'"…{me.kind.value}…" names, nor the other way round: choose the same layout, or another path',
                field="layout",
            )

    async def turn(self, me: Contender, moved: Callable[[int], None]) -> None:
        """Return when it is this contender's turn; `moved` is told its position before each wait.

        Its node is known to be there then. Goes on through disconnects. Raises: HoldLost if it is not there any
        more. Cancellation leaves nothing.
        """
        while (blocker := self._queue.nearest_blocker(me)) is not None:
            moved(self._queue.position(me))
            await self._gone(blocker)
            await self._doubt(me)

    async def _gone(self, blocker: Contender) -> None:
        watched = self._watched.get(blocker.name)
        if watched is None:
            watched = self._watched[blocker.name] = _Watched()
            watched.unwatch = self._hub.on_deleted(
                paths.join(self._path, blocker.name),
                None,
                lambda: self._on_gone(blocker, watched),
                on_failed=lambda error: self._on_unseen(blocker, watched, error),
            )
        watched.waiters += 1
        try:
            await asyncio.shield(watched.gone)
        finally:
            watched.waiters -= 1
            if not watched.waiters:
                watched.unwatch()
                self._forget(blocker, watched)

    def _on_gone(self, blocker: Contender, watched: _Watched) -> None:
        self._queue.remove(blocker)
        self._forget(blocker, watched)
        if not watched.gone.done():
            watched.gone.set_result(None)

    def _on_unseen(self, blocker: Contender, watched: _Watched, error: ZksideError) -> None:
        """Nothing can tell when it goes: every waiter's stream says why (GUARANTEES V1)."""
        self._forget(blocker, watched)
        if not watched.gone.done():
            watched.gone.set_exception(error)
            watched.gone.exception()  # whoever waits hears it, and nobody may be waiting

    def _forget(self, blocker: Contender, watched: _Watched) -> None:
        # A listing that was on its way may have brought the name back, and somebody may wait for it anew.
        if self._watched.get(blocker.name) is watched:
            del self._watched[blocker.name]

    async def _doubt(self, me: Contender) -> None:
        """Make sure of this contender itself, and of those who are still thought to be ahead but are not
        watched for another waiter."""
        doubtful = [me, *(each for each in self._queue.blockers(me) if each.name not in self._watched)]
        if len(doubtful) > FEW:
            before = self._begun
            while self._newest <= before:
                await self._list()
        else:
            nodes = [paths.join(self._path, each.name) for each in doubtful]
            found = await asyncio.gather(*(ask(self._session, Exists(node)) for node in nodes))
            for each, stat in zip(doubtful, found, strict=True):
                if stat is None:
                    self._queue.remove(each)
        if not self._queue.has(me):
            raise HoldLost(f"somebody deleted {me.name} while it waited", path=self._path)

    async def _list(self) -> None:
        """Wait for a listing: the one that is under way, or a new one. It may have failed with its connection."""
        self.look()
        listing = self._listing
        assert listing is not None
        await asyncio.wait([listing])
        error = listing.exception()
        if isinstance(error, ConnectionLoss | SessionSuspended):
            await self._session.wait_connected()
        elif isinstance(error, Unavailable):  # refused for the moment
            await pause(0)
        elif error is not None and not isinstance(error, NoNode):
            raise error


async def ask(session: Session, operation: Operation[T]) -> T:
    """The answer to a read, however often the connection is lost before it comes."""
    while True:
        try:
            return (await Asking(session).ask(operation)).value
        except (ConnectionLoss, SessionSuspended):
            await session.wait_connected()

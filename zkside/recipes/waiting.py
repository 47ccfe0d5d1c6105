"""The one waiting loop of all that queues: locks, elections, the mutex of a semaphore.

Who waits watches the nearest contender that blocks it, and no other, so that a release wakes one waiter and costs the
server one watch a waiter (GUARANTEES H7). What the waiters of this daemon learn of a queue they share: when the
one ahead has gone, most often next to nothing has to be read to know whose turn it is, however long the queue.

Nobody is granted because all who were ahead in an older listing have gone: there has to be one moment at which nobody
was ahead (core/queueing.Queue, docs/adr/0017).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice, takewhile

from zkside.core.queueing import Contender, Question, Queue
from zkside.errors import (
    ConnectionLoss,
    HoldLost,
    InvalidArgument,
    NoAuth,
    NoNode,
    Quota,
    SessionSuspended,
    Throttled,
    Unavailable,
    ZksideError,
)
from zkside.hub.asking import Asking, pause
from zkside.hub.hub import Hub
from zkside.model import path as paths
from zkside.model.operation import Exists, GetChildren, Operation, Reply, T
from zkside.model.stat import Stat
from zkside.recipes.turnstile import Turnstile
from zkside.zk.session import Session

FEW = 16
"""So many contenders are looked at one by one; for more all children are listed. And a queue of so few is listed for
the price of looking at one."""

LONG_S = 0.002
"""A queue whose listing takes so long to be taken in is not listed all the time."""
PAUSE = 8
"""So many times as long nobody lists it again: whoever comes meanwhile shares the next listing."""
MAX_PAUSE_S = 0.25

Listing = asyncio.Future[Reply[tuple[list[str], Stat]]]
Answers = asyncio.Future[list[Reply[Stat | None] | BaseException]]
Waiting = dict[asyncio.Future[None], None]
"""A set, in the order in which they came."""


class _Watched:
    """A contender whose end is waited for."""

    def __init__(self) -> None:
        self.waiting: Waiting = {}
        self.unwatch: Callable[[], None] = lambda: None
        self.failure: ZksideError | None = None
        """Why nothing can tell when it goes."""

    def end(self) -> None:
        """Nobody waits for it any more."""
        unwatch, self.unwatch = self.unwatch, lambda: None  # it leads back to this: a cycle
        unwatch()


class Rooms:
    """The waiting rooms of this daemon: one for each path at which somebody waits, in each epoch."""

    def __init__(self, session: Session, hub: Hub, turnstile: Turnstile) -> None:
        self._session = session
        self._hub = hub
        self._turnstile = turnstile
        self._rooms: dict[tuple[str, int], WaitingRoom] = {}

    @contextmanager
    def enter(self, path: str, epoch: int) -> Iterator[WaitingRoom]:
        """The room of a path, for the time of the block."""
        key = (path, epoch)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = WaitingRoom(self._session, self._hub, path, self._turnstile)
        room.users += 1
        try:
            yield room
        finally:
            room.users -= 1
            if not room.users:
                del self._rooms[key]


class WaitingRoom:
    """What this daemon's waiters at one path know of the queue, together."""

    def __init__(self, session: Session, hub: Hub, path: str, turnstile: Turnstile) -> None:
        self.users = 0
        self._session = session
        self._hub = hub
        self._path = path
        self._turnstile = turnstile
        self._queue = Queue()
        self._watched: dict[str, _Watched] = {}
        self._listing: Listing | None = None
        self._unlisted: Waiting = {}
        """Those who wait for the listing, or for the next one."""
        self._failure: BaseException | None = None
        """What the last listing failed with."""
        self._not_before_s = 0.0
        """When the next listing may be sent."""
        self._later: asyncio.TimerHandle | None = None
        """Sends it then."""
        self._begun = self._newest = 0
        """Listings, numbered as they were sent: the last one, and the last one that was answered."""
        self._answers: Answers | None = None
        self._unanswered: Waiting = {}
        """Those who wait for the answers."""
        self._is_quiet = True
        """Nobody had come when somebody looked last: before all is listed it is worth asking whether anybody has."""

    def look(self) -> int:
        """Send a listing, unless one is under way or it is too early; returns the number of the last one before.

        For who has sent a create just now: what is listed behind it has its node.
        """
        before = self._begun
        if self._listing is None and self._later is None:
            early_s = self._not_before_s - time.monotonic()
            if early_s > 0:
                self._later = asyncio.get_running_loop().call_later(early_s, self._look_late)
            else:
                self._send_listing()
        return before

    def _look_late(self) -> None:
        self._later = None
        if self._unlisted:
            self._send_listing()

    def _send_listing(self) -> None:
        self._begun += 1
        self._listing = self._session.call(GetChildren(self._path))
        self._listing.add_done_callback(partial(self._on_listed, self._begun))

    def _on_listed(self, number: int, listing: Listing) -> None:
        self._listing = None
        error = self._failure = None if listing.cancelled() else listing.exception()
        if isinstance(error, NoNode):
            self._queue.nobody()
            self._newest = number
        elif error is None and not listing.cancelled():
            names, parent = listing.result().value
            self._is_quiet = self._queue.is_current(parent)
            began_s = time.monotonic()
            self._queue.listed(names, parent)
            self._newest = number
            now_s = time.monotonic()
            if now_s - began_s > LONG_S:
                self._not_before_s = now_s + min(PAUSE * (now_s - began_s), MAX_PAUSE_S)
        self._unlisted = self._let_through(self._unlisted)

    async def settle(self, me: Contender, before: int) -> None:
        """Learn who is ahead of this contender; `before` is what `look` returned when its create was sent.

        Raises: HoldLost if its node is not there any more; InvalidArgument if others queue there under names
        that it cannot wait for.
        """
        while not self._queue.has(me):
            if self._newest > before:
                raise self._lost(me)
            await self._list()
        other = self._queue.mixed(me)
        if other is not None:
            raise InvalidArgument(
                f'{self._path} is in use with the layout of "…{other.value}…" names, which do not wait for '
                f'"…{me.kind.value}…" names, nor the other way round: choose the same layout, or another path',
                field="layout",
            )

    async def turn(self, me: Contender, moved: Callable[[int], None]) -> None:
        """Return when it is this contender's turn; `moved` is told its position before each wait.

        Its node was there, and nobody ahead of it, at one moment since it was woken. Goes on through disconnects.
        Raises: HoldLost if its node is not there any more. Cancellation leaves nothing.
        """
        is_fresh = True
        while self._queue.has(me):
            blocker = self._queue.nearest_blocker(me)
            if blocker is None and self._queue.has_turn(me):
                if self._queue.is_whole or await self._is_there(me):
                    return
                break
            if blocker is not None and (is_fresh or blocker.name in self._watched):
                moved(self._queue.position(me))
                await self._gone(blocker)
                is_fresh = False
            else:
                await self._look_again(me)
                is_fresh = True
        raise self._lost(me)

    async def _is_there(self, me: Contender) -> bool:
        try:
            return await ask(self._session, Exists(paths.join(self._path, me.name))) is not None
        except NoAuth:
            return True

    def _lost(self, me: Contender) -> HoldLost:
        return HoldLost(f"somebody deleted {me.name} while it waited", path=self._path)

    # Who is ahead, until it goes

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
        try:
            await self._wait_among(watched.waiting)
        finally:
            if not watched.waiting:
                watched.end()
                self._forget(blocker, watched)
        if watched.failure is not None:
            raise watched.failure

    def _on_gone(self, blocker: Contender, watched: _Watched) -> None:
        self._queue.remove(blocker)
        self._forget(blocker, watched)
        watched.waiting = self._let_through(watched.waiting)

    def _on_unseen(self, blocker: Contender, watched: _Watched, error: ZksideError) -> None:
        """Nothing can tell when it goes: every waiter's stream says why (GUARANTEES V1)."""
        self._forget(blocker, watched)
        watched.failure = error
        watched.waiting = self._let_through(watched.waiting)

    def _forget(self, blocker: Contender, watched: _Watched) -> None:
        # A listing that was on its way may have brought the name back, and somebody may wait for it anew.
        if self._watched.get(blocker.name) is watched:
            del self._watched[blocker.name]

    # Who else is there

    async def _look_again(self, me: Contender) -> None:
        """Know of a later moment who was ahead, as far as nobody else here watches them."""
        if self._answers is not None:
            await self._hear(self._answers)
            return
        unwatched = takewhile(lambda each: each.name not in self._watched, self._queue.blockers(me))
        doubtful = list(islice(unwatched, FEW + 1))
        if len(self._queue) <= FEW or len(doubtful) > FEW or not self._is_quiet or self._listing is not None:
            await self._list()
        else:
            await self._hear(self._ask(doubtful))

    def _ask(self, doubtful: list[Contender]) -> Answers:
        """Ask whether these are there, and behind it whether anybody has come.

        In this order, on one connection: who is not there was gone at the moment of the parent's Stat.
        """
        question = self._queue.asks()
        nodes = [*(paths.join(self._path, each.name) for each in doubtful), self._path]
        answers = asyncio.gather(*(self._session.call(Exists(node)) for node in nodes), return_exceptions=True)
        answers.add_done_callback(partial(self._on_answered, doubtful, question))
        self._answers = answers
        return answers

    def _on_answered(self, doubtful: list[Contender], question: Question, answers: Answers) -> None:
        self._answers = None
        *nodes, parent_answer = [None] if answers.cancelled() else answers.result()
        # What may not be looked at is there: the server looks for the node before it looks at its ACL.
        if isinstance(parent_answer, Reply) and all(isinstance(each, Reply | NoAuth) for each in nodes):
            parent = parent_answer.value
            gone = [
                each
                for each, answer in zip(doubtful, nodes, strict=True)
                if isinstance(answer, Reply) and answer.value is None
            ]
            if parent is None:
                self._queue.nobody()
            else:
                self._is_quiet = self._queue.answered(question, parent, gone)
        self._unanswered = self._let_through(self._unanswered)

    async def _hear(self, answers: Answers) -> None:
        await self._wait_among(self._unanswered)
        *nodes, parent = answers.result()
        errors = [each for each in nodes if isinstance(each, BaseException) and not isinstance(each, NoAuth)]
        if isinstance(parent, BaseException):
            errors.append(parent)
        await self._get_over(errors[0] if errors else None)

    async def _list(self) -> None:
        """Wait for a listing: the one that is under way, or a new one. It may have failed with its connection."""
        self.look()
        await self._wait_among(self._unlisted)
        if not isinstance(self._failure, NoNode):
            await self._get_over(self._failure)

    async def _get_over(self, error: BaseException | None) -> None:
        if isinstance(error, ConnectionLoss | SessionSuspended):
            await self._session.wait_connected()
        elif isinstance(error, Unavailable):  # refused for the moment
            await pause(0)
        elif error is not None:
            raise error

    async def _wait_among(self, waiting: Waiting) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[future] = None
        try:
            await future
        finally:
            waiting.pop(future, None)

    def _let_through(self, waiting: Waiting) -> Waiting:
        self._turnstile.let_through(list(waiting))
        return {}


async def outlast(act: Callable[[], Awaitable[T]]) -> T:
    """Do what somebody who waits already has to do, again whenever it is refused for the moment: since ZooKeeper
    throttles, or the session's queue is full. Nothing was changed then."""
    attempt = 0
    while True:
        try:
            return await act()
        except (Throttled, Quota):
            await pause(attempt)
            attempt += 1


async def ask(session: Session, operation: Operation[T]) -> T:
    """The answer to a read, however often the connection is lost before it comes."""
    while True:
        try:
            return (await Asking(session).ask(operation)).value
        except (ConnectionLoss, SessionSuspended):
            await session.wait_connected()

"""Persistent watches made of one-shot ones, for servers that lack or refuse them.

Those are servers before 3.6, and any with `WatchManagerOptimized`. On every node that somebody watches stand two
one-shot watches, `exists` and `getChildren`. When one fires it is asked for again *before* the event is handed
on, so a read that the event causes reaches the server after the new watch and sees at least what it saw. Of a
recursive watch every node carries both, with its children known: what a new listing adds or lacks becomes
NodeCreated and NodeDeleted.

The effect is that of persistent watches: no change stays without an event, and a read whose reply comes after
the event, or is older than the event's zxid, is not trusted to show it. What happens between an event and the new
watch shows in what comes with the watch (its Stat counts more changes than were told), and one more event is made
up of it. Its zxid is an upper bound, the reply's. So several changes may merge into one event, an event may come
once too often, and it may follow its transaction's other events by a round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from zkside.errors import ConnectionLoss, Refused, SessionLost, SessionSuspended, ZksideError
from zkside.model.event import EventType, KeeperState, WatchedEvent
from zkside.model.operation import AddWatch, RemoveWatch
from zkside.model.path import ancestors, join, name, parent
from zkside.model.stat import Stat
from zkside.zk.requests import complete
from zkside.zk.socket import Socket
from zkside.zk.watches import Emit, in_packets
from zkside.zk.wire import ArmChildren, ArmData, SetOneShotWatches

_REMEMBERED_GONE = 256
REFUSED_S = 0.2
"""After this long a watch that was refused is asked for again."""


class _Node:
    """What is known of a path: what its watches saw when they were set, and the events from then on."""

    __slots__ = (
        "children",
        "children_since",
        "cversion",
        "czxid",
        "data_since",
        "dirty",
        "exists",
        "gone",
        "overtaken",
        "told_children",
        "told_gone",
        "told_zxid",
        "version",
    )

    def __init__(self) -> None:
        self.exists: bool | None = None
        """None before the first look."""
        self.children: set[str] | None = None
        """None before the first look."""
        self.data_since = self.children_since = 0
        """A lower bound of the next change."""
        self.dirty = False
        """A request for its watches was lost with the connection."""
        self.overtaken = False
        """Reads of the owner were on their way when it was told: they may have seen what the event did, and not
        what happened between them and the new watch."""
        self.told_zxid = 0
        """Reads up to here are not trusted after the last event."""
        self._count_anew()

    def _count_anew(self) -> None:
        self.czxid = 0
        """0 while it is not known, after NodeCreated and NodeDeleted."""
        self.version = 0
        """With what the events told since: any more is news."""
        self.cversion = 0
        self.told_children = self.told_gone = 0
        """Events since the last listing: of changed children, and of children deleted."""
        self.gone: dict[str, None] = {}
        """The latest of those children."""

    def begin_anew(self, *, exists: bool) -> None:
        self.exists = exists
        self.children = set()
        self._count_anew()

    def tell_gone(self, child: str) -> None:
        self.told_gone += 1
        self.gone[child] = None
        if len(self.gone) > _REMEMBERED_GONE:
            del self.gone[next(iter(self.gone))]


class _Wave:
    """Requests that belong together; `done` is called after the last of them and whatever they led to."""

    __slots__ = ("_done", "_error", "_left", "_zxid")

    def __init__(self, done: Callable[[int, ZksideError | None], None]) -> None:
        self._done = done
        self._left = 0
        self._zxid = 0
        self._error: ZksideError | None = None

    def begin(self) -> None:
        self._left += 1

    def end(self, zxid: int, error: ZksideError | None) -> None:
        self._left -= 1
        self._zxid = max(self._zxid, zxid)
        if error is not None and not isinstance(error, Refused):
            self._error = error
        if self._left == 0:
            self._done(self._zxid, self._error)


class RearmedWatches:
    """As watches.PersistentWatches, to the same effect."""

    def __init__(self, emit: Emit, socket: Socket, recursive: dict[str, bool]) -> None:
        """Takes over the watches of `recursive`, which `restore` sets."""
        self.recursive = recursive
        self._emit = emit
        self._socket = socket
        self._nodes: dict[str, _Node] = {}
        self._timer: asyncio.TimerHandle | None = None
        """Set while watches that were refused wait to be asked for again."""
        for path in recursive:
            self._node(path).dirty = True

    def add(self, socket: Socket, operation: AddWatch) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.add_for(operation, future)
        return future

    def add_for(self, operation: AddWatch, future: asyncio.Future[Any]) -> None:
        """The future is done when every node is watched; after an error there is no watch."""
        path = operation.path
        was_recursive = self.recursive.get(path)
        self.recursive[path] = operation.recursive

        def done(zxid: int, error: ZksideError | None) -> None:
            if error is not None and self.recursive.pop(path, None) is not None:
                self._forget_unwatched(path)
            complete(future, zxid, None, error)

        if was_recursive and not operation.recursive:
            self._forget_unwatched(path)
        self._arm(path, _Wave(done))

    def remove(self, socket: Socket, operation: RemoveWatch) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.recursive.pop(operation.path, None)
        wave = _Wave(lambda zxid, error: complete(future, zxid, None, error))

        def removed(zxid: int, value: Any, error: ZksideError | None) -> None:
            # A server before 3.5 cannot remove it: then it fires once more, into nothing.
            wave.end(zxid, error if isinstance(error, ConnectionLoss) else None)

        wave.begin()
        for path in self._forget_unwatched(operation.path):
            wave.begin()
            self._socket.requests.tell(RemoveWatch(path), removed)
        wave.end(self._socket.last_zxid, None)
        return future

    def heard(self, kind: EventType, state: KeeperState, path: str, zxid: int, since: int) -> None:
        node = self._nodes.get(path)
        if node is None:
            return
        if kind is EventType.NODE_DELETED:
            self._deleted(path, node, zxid, since)
            return
        if kind is EventType.NODE_CHILDREN_CHANGED:
            node.children_since = max(node.children_since, since)
            node.told_children += 1
            self._arm_children(path, node, None)
            if self.recursive.get(path) is not False:
                return  # the new listing tells which child came or went
        else:
            node.data_since = max(node.data_since, since)
            node.overtaken = self._socket.requests.has_reads_under_way()
            if kind is EventType.NODE_CREATED:
                node.begin_anew(exists=True)
                node.told_zxid = since
                node.children_since = max(node.children_since, since)
                self._arm_children(path, node, None)
            else:
                node.version += 1
            self._arm_data(path, node, None)
        self._emit(WatchedEvent(kind, state, path, zxid, since))

    async def restore(self, socket: Socket) -> None:
        """Set the watches again: what changed since the last reply is reported by the server at once."""
        self._socket = socket
        since = socket.last_zxid
        clean = {path: node for path, node in self._nodes.items() if not node.dirty}
        present = [path for path, node in clean.items() if node.exists]
        absent = [path for path, node in clean.items() if not node.exists]
        packets = [SetOneShotWatches(since, paths, (), ()) for paths in in_packets(present)]
        packets += [SetOneShotWatches(since, (), paths, ()) for paths in in_packets(absent)]
        packets += [SetOneShotWatches(since, (), (), paths) for paths in in_packets(present)]
        await asyncio.gather(*(socket.requests.ask(packet) for packet in packets))
        armed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        wave = _Wave(lambda zxid, error: complete(armed, zxid, None, error))
        wave.begin()
        for path, node in list(self._nodes.items()):
            if node.dirty:
                node.dirty = False
                self._arm(path, wave)
        wave.end(0, None)
        await armed

    # --- asking for the watches

    def _node(self, path: str) -> _Node:
        node = self._nodes.get(path)
        if node is None:
            node = self._nodes[path] = _Node()
        return node

    def _arm(self, path: str, wave: _Wave | None) -> None:
        node = self._node(path)
        self._arm_data(path, node, wave)
        self._arm_children(path, node, wave)

    def _arm_data(self, path: str, node: _Node, wave: _Wave | None) -> None:
        def armed(zxid: int, stat: Stat | None, error: ZksideError | None) -> None:
            if self._nodes.get(path) is node:
                if error is None:
                    self._data_armed(path, node, zxid, stat)
                else:
                    node.dirty = True
                    self._arm_later(error)
            if wave is not None:
                wave.end(zxid, error)

        if wave is not None:
            wave.begin()
        self._socket.requests.tell(ArmData(path), armed)

    def _arm_children(self, path: str, node: _Node, wave: _Wave | None) -> None:
        def armed(zxid: int, listing: Any, error: ZksideError | None) -> None:
            if self._nodes.get(path) is node:
                if error is None:
                    self._children_armed(path, node, zxid, listing[0], listing[1], wave)
                elif isinstance(error, Refused):  # absent, or not ours to list: nothing below it is known
                    self._children_armed(path, node, zxid, [], None, wave)
                else:
                    node.dirty = True
                    self._arm_later(error)
            if wave is not None:
                wave.end(zxid, error)

        if wave is not None:
            wave.begin()
        self._socket.requests.tell(ArmChildren(path), armed)

    def _arm_later(self, error: ZksideError) -> None:
        """A watch that is refused on a connection that lives on is asked for again, REFUSED_S later: no event would
        say when. With its connection it is asked for on the next."""
        if isinstance(error, ConnectionLoss | SessionSuspended | SessionLost) or self._timer is not None:
            return
        socket = self._socket
        self._timer = asyncio.get_running_loop().call_later(REFUSED_S, self._arm_dirty, socket)

    def _arm_dirty(self, socket: Socket) -> None:
        self._timer = None
        if socket is not self._socket or socket.closed.done():
            return
        for path, node in list(self._nodes.items()):
            if node.dirty:
                node.dirty = False
                self._arm(path, None)

    # --- what the new watches saw

    def _data_armed(self, path: str, node: _Node, zxid: int, stat: Stat | None) -> None:
        since, node.data_since = node.data_since, zxid + 1
        overtaken, node.overtaken = node.overtaken, False
        if node.exists is None:
            node.exists = stat is not None
        elif stat is None:
            if node.exists:
                self._deleted(path, node, zxid, since)
            elif overtaken:  # it may have come and gone again
                self._tell(EventType.NODE_DELETED, path, zxid, since)
            return
        elif not node.exists or (node.czxid and node.czxid != stat.czxid):
            if node.exists:
                self._tell(EventType.NODE_DELETED, path, zxid, since)
            node.begin_anew(exists=True)
            self._arm_children(path, node, None)
            self._tell(EventType.NODE_CREATED, path, stat.mzxid, stat.czxid)
        elif stat.version > node.version or (not node.czxid and overtaken and stat.mzxid > node.told_zxid):
            self._tell(EventType.NODE_DATA_CHANGED, path, stat.mzxid, stat.mzxid)
        if stat is not None:
            node.czxid, node.version = stat.czxid, stat.version

    def _children_armed(
        self, path: str, node: _Node, zxid: int, names: list[str], stat: Stat | None, wave: _Wave | None
    ) -> None:
        known, node.children = node.children, set(names)
        since, node.children_since = node.children_since, zxid + 1
        changes = 0
        if stat is not None:
            changes = stat.cversion - node.cversion if known is not None else 0
            if changes > node.told_children and self.recursive.get(path) is False:
                self._tell(EventType.NODE_CHILDREN_CHANGED, path, zxid, since)
            node.cversion = stat.cversion
        node.told_children = 0
        if not self._is_below_recursive(path):
            return
        went = sorted((known or set()) - node.children)
        for child in went:
            self._gone(join(path, child), zxid, since)
        came = 0
        for name_ in sorted(names):
            child = join(path, name_)
            if known is not None and name_ not in known:
                came += 1
                self._came(child, zxid, since)
            elif wave is not None or child not in self._nodes:  # a first look: not news
                self._arm(child, wave)
        if changes > came + len(went) + node.told_gone:  # some came and went unseen: perhaps old acquaintances
            for name_ in node.gone.keys() - node.children:
                self._tell(EventType.NODE_DELETED, join(path, name_), zxid, since)
        node.told_gone = 0

    def _came(self, path: str, zxid: int, since: int) -> None:
        node = self._node(path)
        news = not node.exists
        if news:
            node.begin_anew(exists=True)
        node.told_zxid = zxid
        node.overtaken = self._socket.requests.has_reads_under_way()
        node.data_since = max(node.data_since, since)
        node.children_since = max(node.children_since, since)
        self._arm(path, None)
        if news:
            self._tell(EventType.NODE_CREATED, path, zxid, since)

    def _gone(self, path: str, zxid: int, since: int) -> None:
        node = self._nodes.get(path)
        if node is not None:
            for child in tuple(node.children or ()):
                self._gone(join(path, child), zxid, since)
            self._deleted(path, node, zxid, since)

    def _deleted(self, path: str, node: _Node, zxid: int, since: int) -> None:
        """A node of somebody's own watch is waited for; another is found again by its parent's listing."""
        news = node.exists is not False
        node.begin_anew(exists=False)
        node.overtaken = self._socket.requests.has_reads_under_way()
        above = self._nodes.get(parent(path))
        if above is not None and path != "/":
            above.tell_gone(name(path))
            if above.children:
                above.children.discard(name(path))
        if path in self.recursive:
            self._arm_data(path, node, None)
        else:
            del self._nodes[path]
        if news:  # both watches of a node report its end when they are set again
            self._tell(EventType.NODE_DELETED, path, zxid, since)

    def _tell(self, kind: EventType, path: str, zxid: int, since: int) -> None:
        self._emit(WatchedEvent(kind, KeeperState.SYNC_CONNECTED, path, zxid, min(since, zxid or since)))

    # --- what is watched at all

    def _is_below_recursive(self, path: str) -> bool:
        recursive = self.recursive
        return bool(recursive.get(path)) or any(recursive.get(above) for above in ancestors(path))

    def _forget_unwatched(self, path: str) -> Iterable[str]:
        """Drop the nodes at and below the path that nobody watches any more; returns them."""
        forgotten: list[str] = []
        waiting = [path]
        while waiting:
            path = waiting.pop()
            node = self._nodes.get(path)
            if node is None:
                continue
            waiting += [join(path, child) for child in node.children or ()]
            if path not in self.recursive and not self._is_below_recursive(path):
                del self._nodes[path]
                forgotten.append(path)
        return forgotten

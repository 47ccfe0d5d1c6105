"""A local copy of a subtree: reads without any call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, TracebackType

from zkside.client.assembly import diff
from zkside.client.event import Change, Changes, ChangeType, Snapshot, SnapshotReason, Target, WatchEvent
from zkside.client.stream import SharedStream
from zkside.client.subscriber import Fan, Subscriber
from zkside.client.value import Node
from zkside.errors import NoAuth

ChangesCallback = Callable[[Changes], None]


class Mirror:
    """A subtree, kept current by the shared stream of this process.

        async with client.mirror("/services") as mirror:
            node = mirror.get("/services/a")         # Node or None, no call
            names = mirror.children("/services")
            async for changes in mirror.changes(): ...

    Reads are of one complete cut (never half a transaction), sequentially consistent, and go on while the
    daemon or ZooKeeper cannot be reached: `stale` and `age_s` tell. `async with` waits until it is filled.
    """

    def __init__(self, stream: SharedStream, *, wait_for_ready: bool) -> None:
        self._stream = stream
        self._target = stream.targets[0]
        self._nodes = stream.assembly.nodes[0]
        self._unreadable = stream.assembly.unreadable[0]
        self._names: dict[str, set[str]] | None = None
        self._ready = asyncio.Event()
        self._fan = Fan(self._no_snapshot, _nothing)
        self._subscriber: Subscriber = stream.subscribe(
            self._receive, wants_bookmarks=False, wait_for_ready=wait_for_ready
        )
        self._subscriber.on_end = self._end

    @property
    def path(self) -> str:
        return self._target.path

    @property
    def zxid(self) -> int:
        """All transactions up to this one are reflected."""
        return self._stream.assembly.header.zxid

    @property
    def stale(self) -> bool:
        return self._subscriber.ended or self._stream.stale

    @property
    def age_s(self) -> float:
        """How long ago this was last known to be current; 0 when it is not stale."""
        return self._stream.age_s

    async def ready(self) -> None:
        """Wait until the copy is complete. Raises what ended the stream: InvalidPath, NoAuth, Unavailable."""
        await self._ready.wait()
        if self._subscriber.failure is not None:
            raise self._subscriber.failure

    def get(self, path: str) -> Node | None:
        """The node, or None if it is absent, or not below this mirror's path. Raises NoAuth if it may not be read."""
        node = self._nodes.get(path)
        if node is None and path in self._unreadable:
            raise NoAuth.at(path)
        return node

    def __getitem__(self, path: str) -> Node:
        node = self.get(path)
        if node is None:
            raise KeyError(path)
        return node

    def __contains__(self, path: str) -> bool:
        """Whether the node exists; it may be one of `unreadable`."""
        return path in self._nodes or path in self._unreadable

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes that may be read, by path: the living copy, which the next change changes."""
        return MappingProxyType(self._nodes)

    @property
    def unreadable(self) -> frozenset[str]:
        """Paths of nodes that exist and may not be read."""
        return frozenset(self._unreadable)

    def children(self, path: str) -> list[str]:
        """The names of the node's children, sorted; none if it is absent. The first use builds an index."""
        if self._names is None:
            self._names = {}
            for known in (*self._nodes, *self._unreadable):
                _add_name(self._names, known)
        return sorted(self._names.get(path, ()))

    def changes(self, on_change: ChangesCallback | None = None) -> MirrorChanges:
        """Every change from here on, for iteration or to a callback. What a re-read found after an outage
        comes as changes too, by comparison."""
        return MirrorChanges(self._fan, on_change)

    def close(self) -> None:
        """End the subscription; the copy stays readable, and stale. Idempotent."""
        self._subscriber.close()

    async def __aenter__(self) -> Mirror:
        try:
            await self.ready()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, event: WatchEvent) -> None:
        if isinstance(event, Snapshot):
            before, self._nodes = self._nodes, self._stream.assembly.nodes[0]
            hidden, self._unreadable = self._unreadable, self._stream.assembly.unreadable[0]
            self._names = None
            found: tuple[Change, ...] = ()
            if self._ready.is_set():
                found = diff(
                    self._target,
                    before,
                    self._nodes,
                    event.zxid,
                    unreadable_before=hidden,
                    unreadable=self._unreadable,
                )
            self._ready.set()
            if found:
                self._fan.publish(Changes(event.header, found))
        elif isinstance(event, Changes):
            if self._names is not None:
                for change in event.changes:
                    _follow(self._names, change)
            self._fan.publish(event)

    def _end(self) -> None:
        self._ready.set()
        for subscriber in self._fan.subscribers():
            if self._subscriber.failure is not None:
                subscriber.fail(self._subscriber.failure)
            else:
                subscriber.close()

    def _no_snapshot(self, target: Target, reason: SnapshotReason) -> Snapshot:
        raise AssertionError("a mirror's changes begin without a Snapshot")


class MirrorChanges:
    """The changes of a mirror."""

    def __init__(self, fan: Fan, on_change: ChangesCallback | None) -> None:
        callback = None if on_change is None else _only_changes(on_change)
        self._subscriber = Subscriber(fan, callback, wants_bookmarks=False)
        fan.add(self._subscriber)

    def __aiter__(self) -> MirrorChanges:
        return self

    async def __anext__(self) -> Changes:
        while True:
            event = await self._subscriber.next()
            if isinstance(event, Changes):
                return event

    def close(self) -> None:
        self._subscriber.close()

    async def __aenter__(self) -> MirrorChanges:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._subscriber.has_callback:
            self._subscriber.close()


def _only_changes(callback: ChangesCallback) -> Callable[[WatchEvent], None]:
    def call(event: WatchEvent) -> None:
        if isinstance(event, Changes):
            callback(event)

    return call


def _nothing() -> None:
    pass


def _follow(names: dict[str, set[str]], change: Change) -> None:
    if change.type in (ChangeType.CREATED, ChangeType.UNREADABLE):
        _add_name(names, change.path)
    elif change.type is ChangeType.DELETED:
        slash = change.path.rfind("/")
        parent = change.path[:slash] or "/"
        siblings = names.get(parent)
        if siblings is not None:
            siblings.discard(change.path[slash + 1 :])
            if not siblings:
                del names[parent]


def _add_name(names: dict[str, set[str]], path: str) -> None:
    if path == "/":
        return
    slash = path.rfind("/")
    names.setdefault(path[:slash] or "/", set()).add(path[slash + 1 :])

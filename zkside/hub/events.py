"""EVENTS mode: ZooKeeper's own WatchedEvents, for every subscriber, from one persistent watch.

A persistent watch reports all that exists, getData and getChildren watches report; each subscriber gets what
its kind would have reported. Where a recursive watch serves a path, NodeChildrenChanged, which such a watch
does not report, is derived from the creation and deletion of the children, just as the server derives it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from zkside.model import path as paths
from zkside.model.event import EventType, KeeperState, WatchedEvent
from zkside.model.watch import EventTarget, Place, Scope, WatchKind

REPORTS: dict[WatchKind, frozenset[EventType]] = {
    WatchKind.EXISTS: frozenset({EventType.NODE_CREATED, EventType.NODE_DELETED, EventType.NODE_DATA_CHANGED}),
    WatchKind.DATA: frozenset({EventType.NODE_DELETED, EventType.NODE_DATA_CHANGED}),
    WatchKind.CHILDREN: frozenset({EventType.NODE_DELETED, EventType.NODE_CHILDREN_CHANGED}),
    WatchKind.PERSISTENT: frozenset(EventType) - {EventType.NONE},
    WatchKind.PERSISTENT_RECURSIVE: frozenset(EventType) - {EventType.NONE, EventType.NODE_CHILDREN_CHANGED},
}
"""What each kind of watch reports. Source: ZooKeeper Programmer's Guide, "Semantics of Watches"."""


MESSAGE_BYTES = 1024 * 1024
"""About what one delivery may take on the wire: gRPC's clients refuse messages of more than 4 MiB."""


class GapReason(Enum):
    """Why events are missing."""

    OVERFLOW = "overflow"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class Gap:
    """Events are missing before this point."""

    reason: GapReason
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Events:
    """Events with the index of the target that they belong to."""

    events: list[tuple[int, WatchedEvent]]


class EventSubscription:
    """What one EVENTS stream receives."""

    def __init__(
        self,
        targets: tuple[EventTarget, ...],
        state: KeeperState,
        queue_size: int,
        on_close: Callable[[EventSubscription], None],
    ) -> None:
        self.targets = targets
        self.gaps = dict.fromkeys(GapReason, 0)
        """Counted."""
        self._open = set(range(len(targets)))
        self._queue: deque[tuple[int, WatchedEvent] | Gap] = deque()
        self._queue_size = queue_size
        self._on_close = on_close
        self._waiter: asyncio.Future[None] | None = None
        self.session_changed(state)

    def offer(self, index: int, event: WatchedEvent) -> None:
        """Queue an event of a target, if its kind reports such and it is still open."""
        target = self.targets[index]
        if index not in self._open or event.type not in REPORTS[target.kind]:
            return
        if target.one_shot:
            self._open.discard(index)
        self._put((index, event))

    def session_changed(self, state: KeeperState) -> None:
        """Queue a None event."""
        self._put((0, WatchedEvent(EventType.NONE, state, "")))

    def disconnected(self) -> None:
        """What was missed while disconnected follows, as far as comparing shows it."""
        self._put(Gap(GapReason.DISCONNECTED))
        self.gaps[GapReason.DISCONNECTED] += 1

    def places(self) -> list[Place]:
        """What is watched, for people."""
        recursive = WatchKind.PERSISTENT_RECURSIVE
        return [Place(each.path, Scope.SUBTREE if each.kind is recursive else Scope.NODE) for each in self.targets]

    def pending(self) -> int:
        """How many events wait to be read by the subscriber."""
        return len(self._queue)

    async def next(self) -> Events | Gap | None:
        """The next thing to deliver; None when every target has ended. One caller at a time."""
        while True:
            if self._queue:
                return self._take()
            if not self._open:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def close(self) -> None:
        """Nothing is wanted any more."""
        self._on_close(self)

    def _take(self) -> Events | Gap:
        first = self._queue[0]
        if isinstance(first, Gap):
            self._queue.popleft()
            return first
        events = []
        size_bytes = 0
        while self._queue and size_bytes < MESSAGE_BYTES and not isinstance(item := self._queue[0], Gap):
            events.append(item)
            size_bytes += 32 + 4 * len(item[1].path)
            self._queue.popleft()
        return Events(events)

    def _put(self, item: tuple[int, WatchedEvent] | Gap) -> None:
        if len(self._queue) >= self._queue_size:
            # The whole queue goes, not its end: what follows the Gap is then without holes.
            dropped = len(self._queue)
            self._queue.clear()
            self._queue.append(Gap(GapReason.OVERFLOW, dropped))
            self.gaps[GapReason.OVERFLOW] += 1
        self._queue.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EventIndex:
    """Finds the subscribers of an event by its path."""

    def __init__(self) -> None:
        self.subscriptions: set[EventSubscription] = set()
        self._exact: dict[str, set[tuple[EventSubscription, int]]] = {}
        self._recursive: dict[str, set[tuple[EventSubscription, int]]] = {}

    def add(self, subscription: EventSubscription) -> None:
        self.subscriptions.add(subscription)
        for index, target in enumerate(subscription.targets):
            self._index(target).setdefault(target.path, set()).add((subscription, index))

    def remove(self, subscription: EventSubscription) -> None:
        self.subscriptions.discard(subscription)
        for index, target in enumerate(subscription.targets):
            table = self._index(target)
            members = table.get(target.path)
            if members is not None:
                members.discard((subscription, index))
                if not members:
                    del table[target.path]

    def dispatch(self, event: WatchedEvent, *, is_recursive_at: Callable[[str], bool]) -> None:
        """Offer an event of the server, and what it implies, to whom it concerns."""
        if not self.subscriptions:
            return
        path = event.path
        recursive = is_recursive_at(path)
        if event.type is not EventType.NODE_CHILDREN_CHANGED or not recursive:
            self._offer(path, event)
        if event.type in (EventType.NODE_CREATED, EventType.NODE_DELETED) and path != "/":
            parent = paths.parent(path)
            if parent in self._exact and is_recursive_at(parent):
                self._offer(parent, event._replace(type=EventType.NODE_CHILDREN_CHANGED, path=parent))

    def offer_missed(self, path: str, types: list[EventType], state: KeeperState, zxid: int) -> None:
        """Offer what comparing after an outage has shown."""
        if self.subscriptions:
            for kind in types:
                self._offer(path, WatchedEvent(kind, state, path, zxid, zxid))

    def _offer(self, path: str, event: WatchedEvent) -> None:
        for subscription, index in list(self._exact.get(path, ())):
            subscription.offer(index, event)
        if self._recursive and event.type is not EventType.NODE_CHILDREN_CHANGED:
            for above in (path, *paths.ancestors(path)):
                for subscription, index in list(self._recursive.get(above, ())):
                    subscription.offer(index, event)

    def _index(self, target: EventTarget) -> dict[str, set[tuple[EventSubscription, int]]]:
        return self._recursive if target.kind is WatchKind.PERSISTENT_RECURSIVE else self._exact

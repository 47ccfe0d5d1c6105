"""The hub: all local subscribers and cached reads on one set of watches.

An event's way: `_on_event` → reader (reads, in rounds) → `_publish` → feeds → subscribers. EVENTS subscribers
get theirs in `_on_event` already.

A connection's way: `_on_status` pauses the reader; `_follow_session` sets the watches again, compares all roots
with ZooKeeper, and lets the reader publish what changed meanwhile as one cut.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zkside.core.diff import change_type, missed_events
from zkside.errors import ConnectionLoss, NoNode, SessionLost, SessionSuspended, Unavailable, ZksideError
from zkside.hub.disk import DiskSnapshot
from zkside.hub.events import EventIndex, EventSubscription
from zkside.hub.feed import Feed
from zkside.hub.loader import Loader
from zkside.hub.reader import Announced, Reader, Settled
from zkside.hub.reads import Reads
from zkside.hub.roots import Root, Roots
from zkside.hub.subscription import Subscription
from zkside.hub.table import NodeTable
from zkside.hub.watches import Watches
from zkside.model import path as paths
from zkside.model import record as records
from zkside.model.event import EventType, KeeperState, WatchedEvent
from zkside.model.session import SessionStatus
from zkside.model.watch import EventTarget, Scope, Target, WatchKind
from zkside.zk.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How much the hub keeps, and for how long."""

    idle_eviction_s: float = 60.0
    """After this long without a subscriber or a cached read a root and its watch go. Also the time for which a
    stream can be resumed after its last subscriber left."""
    max_cached_nodes: int = 1_000_000
    max_roots: int = 100_000
    """Beyond it a cached read of yet another path is answered by the server instead."""
    window_size: int = 10_000
    """Paths in the log of one target: how far a subscriber can fall behind before it gets a new snapshot."""
    event_queue_size: int = 10_000
    """Events that one EVENTS subscriber may leave unread."""
    state_dir: Path | None = None
    """Where caches are kept over restarts; None: nowhere."""
    snapshot_interval_s: float = 30.0


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """For metrics; counters since the start."""

    server_watches: dict[str, int]
    events_in: int
    changes_out: int
    conflated: int
    gaps: int
    snapshots_out: int
    subscribers: int
    cached_nodes: int
    cached_bytes: int
    cache_age_s: float
    """Age of the stalest cache; 0 when all are current."""
    rounds: int
    forced_cuts: int
    reads_cached: int
    reads_server: int


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """One watch on the server."""

    path: str
    recursive: bool
    subscribers: int
    cached_nodes: int
    stale: bool


class Hub:
    """See the module. Every method is called on the event loop."""

    def __init__(self, session: Session, settings: HubSettings | None = None) -> None:
        self.settings = settings or HubSettings()
        self.epoch_id = secrets.token_hex(8)
        """Names the history to which the zxids of this hub's streams belong."""
        self.session = session
        self.table = NodeTable()
        self.roots = Roots()
        self.reader = Reader(session, self.table, self.roots, self._publish)
        self.reads = Reads(self)
        self._watches = Watches(session)
        self._loader = Loader(session, self.table, self.roots, self.reader, self.settings.max_cached_nodes)
        self._feeds: dict[tuple[str, Scope], list[Feed]] = {}
        self._subscriptions: set[Subscription] = set()
        self._events = EventIndex()
        self._taps: dict[str, set[Callable[[bytes | None], None]]] = {}
        self._settling: list[tuple[int, Root]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: dict[Root, asyncio.Task[None]] = {}
        self._connected = asyncio.Event()
        self._outages = 0
        self._outage_began = 0
        self._epoch = 0
        self._disk = DiskSnapshot(self.settings.state_dir) if self.settings.state_dir else None
        self._unlisten: Callable[[], None] = lambda: None
        self._events_in = self._gaps = 0
        self.changes_out = 0
        """Changes sent to subscribers, counted by the streams."""
        self.snapshots_out = 0

    def start(self) -> None:
        """Restore what was kept on disk, and follow the session."""
        if self._disk is not None:
            self._restore(self._disk)
        self._unlisten = self.session.listen(status=self._on_status, event=self._on_event)
        self._on_status(self.session.status)
        self._own(self.reader.run(), "zkside-reader")
        self._own(self._follow_session(), "zkside-hub")
        self._own(self._sweep(), "zkside-sweep")

    async def close(self) -> None:
        """Stop following; caches are written to disk."""
        self._unlisten()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for feed in self._all_feeds():
            feed.close()
        if self._disk is not None:
            await self._save(self._disk)

    # Subscribing

    async def subscribe(
        self,
        targets: tuple[Target, ...],
        *,
        resume: tuple[str, int] | None = None,
        bookmark_interval_s: float | None = None,
    ) -> Subscription:
        """A STATE subscription, once all its targets are cached.

        `resume` is (epoch_id, zxid). Raises: NoAuth, Quota; SessionSuspended if a target is not cached and there
        is no connection.
        """
        held: list[Root] = []
        try:
            for target in targets:
                root = self.acquire(target.path, target.scope)
                held.append(root)
                await self.ready(root)
        except BaseException:
            self._release_all(held)
            raise
        feeds = [self._feed(target) for target in targets]
        for feed in feeds:
            feed.users += 1

        def closed(subscription: Subscription) -> None:
            self._subscriptions.discard(subscription)
            for feed in feeds:
                feed.users -= 1
            self._release_all(held)

        resume_zxid = None
        if resume is not None:
            resume_zxid = resume[1] if resume[0] == self.epoch_id else -1
        subscription = Subscription(
            feeds, list(held), lambda: self.reader.settled_zxid, resume_zxid, bookmark_interval_s, closed
        )
        self._subscriptions.add(subscription)
        return subscription

    async def subscribe_events(self, targets: tuple[EventTarget, ...]) -> EventSubscription:
        """An EVENTS subscription, once its watches are set.

        Raises: NoNode (kind DATA or CHILDREN on an absent node), NoAuth, Quota, SessionSuspended.
        """
        held: list[Root] = []

        def closed(subscription: EventSubscription) -> None:
            self._events.remove(subscription)
            self._gaps += subscription.gaps
            self._release_all(held, linger=False)

        subscription = EventSubscription(
            targets, self.session.status.keeper_state, self.settings.event_queue_size, closed
        )
        self._events.add(subscription)  # before the watches are set, so that nothing between is missed
        try:
            for target in targets:
                recursive = target.kind is WatchKind.PERSISTENT_RECURSIVE
                root = self.acquire(target.path, Scope.SUBTREE if recursive else Scope.NODE)
                held.append(root)
                await self.ready(root)
                if target.kind in (WatchKind.DATA, WatchKind.CHILDREN) and self.table.records.get(target.path) is None:
                    raise NoNode(f"{target.path} does not exist")
        except BaseException:
            subscription.close()
            raise
        return subscription

    def on_deleted(self, path: str, czxid: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when the node with this czxid is gone, also if it was deleted during an outage.

        Keeps a watch on the path until the returned function is called, or the callback was.
        """
        root = self.acquire(path, Scope.NODE)

        def tap(record: bytes | None) -> None:
            if record is None or records.zxids(record)[0] != czxid:
                stop()
                callback()

        def stop() -> None:
            members = self._taps.get(path)
            if members is not None and tap in members:
                members.discard(tap)
                if not members:
                    del self._taps[path]
                self._release_all([root], linger=False)

        def settled(done: asyncio.Future[None]) -> None:
            # It may have gone before the watch was set.
            failed = done.cancelled() or done.exception() is not None
            if not failed and tap in self._taps.get(path, ()) and path not in self.reader.unsettled:
                tap(self.table.records.get(path))

        self._taps.setdefault(path, set()).add(tap)
        root.ready.add_done_callback(settled)
        return stop

    def acquire(self, path: str, scope: Scope) -> Root:
        """Keep a part of the tree; give it back with `release`."""
        root = self.roots.get(path, scope)
        if root is None:
            root = Root(path, scope, asyncio.get_running_loop().create_future())
            root.ready.add_done_callback(_seen)
            self.roots.add(root)
            self._loading[root] = self._own(self._load(root), "zkside-load")
        root.users += 1
        return root

    def release(self, root: Root) -> None:
        """The user of a root has gone; it stays for a while."""
        root.users -= 1
        root.last_used = time.monotonic()

    async def ready(self, root: Root) -> None:
        """Wait until a root can be used. Raises: why it cannot be; SessionSuspended if it would have to be
        loaded and there is no connection."""
        if not root.ready.done() and not self.session.status.state.is_connected:
            raise SessionSuspended(f"{root.path} is not cached, and there is no connection to ZooKeeper")
        await asyncio.shield(root.ready)

    def statistics(self) -> HubStatistics:
        now = time.monotonic()
        return HubStatistics(
            server_watches=self._watches.count(),
            events_in=self._events_in,
            changes_out=self.changes_out,
            conflated=sum(feed.conflated for feed in self._all_feeds()),
            gaps=self._gaps + sum(subscription.gaps for subscription in self._events.subscriptions),
            snapshots_out=self.snapshots_out,
            subscribers=len(self._subscriptions) + len(self._events.subscriptions),
            cached_nodes=len(self.table.records),
            cached_bytes=self.table.bytes,
            cache_age_s=max(
                (now - root.stale_since for root in self.roots if root.stale_since is not None), default=0.0
            ),
            rounds=self.reader.rounds,
            forced_cuts=self.reader.forced,
            reads_cached=self.reads.cached,
            reads_server=self.reads.server,
        )

    def list_watches(self) -> list[WatchStatus]:
        """Every watch that the server has for this session."""
        return [
            WatchStatus(
                path=watch.path,
                recursive=watch.recursive,
                subscribers=sum(root.users for root in watch.roots),
                cached_nodes=sum(1 for root in watch.roots for _ in self.table.walk(root.path, root.scope.value)),
                stale=any(root.stale_since is not None for root in watch.roots),
            )
            for watch in self._watches.all()
        ]

    # From the session

    def _on_event(self, event: WatchedEvent) -> None:
        self._events_in += 1
        self._events.dispatch(event, is_recursive_at=self._watches.is_recursive_at)
        announced = Announced(event.since, event.since, event.zxid)
        self._announce(event.path, announced)
        if event.type in (EventType.NODE_CREATED, EventType.NODE_DELETED) and event.path != "/":
            self._announce(paths.parent(event.path), announced)  # its Stat changed with it

    def _announce(self, path: str, announced: Announced) -> None:
        covered = False
        for root in self.roots.covering(path):
            covered = True
            if not root.live:
                root.announced.add(path)
        if covered:
            self.reader.announce(path, announced)

    def _on_status(self, status: SessionStatus) -> None:
        if status.state.is_connected:
            self._connected.set()
        elif self._connected.is_set():
            self._connected.clear()
            self._outages += 1
            self._outage_began = self.reader.settled_zxid
            self.reader.pause()
            now = time.monotonic()
            for root in self.roots:
                if root.live and root.stale_since is None:
                    root.stale_since = now
        for subscription in list(self._subscriptions):
            subscription.session_changed(status)
        for events in list(self._events.subscriptions):
            events.session_changed(status.keeper_state)

    async def _follow_session(self) -> None:
        """One round of this for each connection."""
        while True:
            await self._connected.wait()
            status = self.session.status
            new_session = status.epoch != self._epoch
            try:
                await self._watches.synchronise(new_session=new_session)
                self._epoch = status.epoch
                await self._loader.compare(self._outage_began + 1)
            except (Unavailable, ConnectionLoss, SessionLost) as error:
                log.info("comparing the caches with ZooKeeper was interrupted: %s", error)
                await self._next_status(status.sequence)
                continue
            if self.session.status.sequence != status.sequence:
                continue
            for root in self.roots:
                root.stale_since = None
            if self._outages:
                for events in self._events.subscriptions:
                    events.disconnected()
            self.reader.resume()
            self._settle_ready()
            await self._next_status(status.sequence)

    async def _next_status(self, sequence: int) -> None:
        """Wait until the session's status is another one."""
        changed = asyncio.Event()
        unlisten = self.session.listen(status=lambda status: changed.set())
        try:
            if self.session.status.sequence == sequence:
                await changed.wait()
        finally:
            unlisten()

    async def _load(self, root: Root) -> None:
        """Bring a root to life, over as many connections as it takes."""
        try:
            while True:
                await self._connected.wait()
                root.announced.clear()
                try:
                    await asyncio.shield(self._watches.serve(root))
                    reached = await self._loader.load(root)
                    break
                except (Unavailable, ConnectionLoss, SessionLost) as error:
                    if not self._connected.is_set() or isinstance(error, ConnectionLoss | SessionLost):
                        await self._loader.purge(root.path, root.scope)
                        await self._next_status(self.session.status.sequence)
                        continue
                    raise
        except ZksideError as error:
            root.ready.set_exception(error)
            del self._loading[root]
            self._drop(root)
            return
        del self._loading[root]
        root.live = True
        root.announced.clear()
        self._settling.append((reached, root))
        self._settle_ready()

    def _publish(self, zxid: int, cut: list[Settled]) -> None:
        """From the reader: hand a cut to the feeds, in one atomic section, so that it is one for all."""
        by_feed: dict[Feed, list[Settled]] = {}
        for change in cut:
            if change_type(change.old, change.new) is not None:
                for feed in self._feeds_of(change.path):
                    by_feed.setdefault(feed, []).append(change)
            if change.compared:
                types = missed_events(change.old, change.new)
                self._events.offer_missed(change.path, types, KeeperState.SYNC_CONNECTED, change.zxid)
            if change.path in self._taps:
                for tap in list(self._taps[change.path]):
                    tap(change.new)
        for feed, changes in by_feed.items():
            feed.append(zxid, changes)
        self._settle_ready()

    def _settle_ready(self) -> None:
        settled = self.reader.settled_zxid
        waiting, self._settling = self._settling, []
        for reached, root in waiting:
            if reached > settled:
                self._settling.append((reached, root))
            elif not root.ready.done():
                root.ready.set_result(None)

    # Feeds

    def _feed(self, target: Target) -> Feed:
        feeds = self._feeds.setdefault((target.path, target.scope), [])
        for feed in feeds:
            if feed.target == target:
                return feed
        feed = Feed(target, self.table, lambda: self.reader.settled_zxid, self.settings.window_size)
        feeds.append(feed)
        return feed

    def _feeds_of(self, path: str) -> list[Feed]:
        feeds = self._feeds
        found: list[Feed] = []
        for scope in Scope:
            found += feeds.get((path, scope), ())
        above = path
        while above != "/":
            nearest = above == path
            above = paths.parent(above)
            if nearest:
                found += feeds.get((above, Scope.CHILDREN), ())
            found += feeds.get((above, Scope.SUBTREE), ())
        return found

    def _all_feeds(self) -> list[Feed]:
        return [feed for feeds in self._feeds.values() for feed in feeds]

    # Clearing away

    def _release_all(self, held: list[Root], *, linger: bool = True) -> None:
        for root in held:
            self.release(root)
            if not linger and root.users == 0 and self.roots.get(root.path, root.scope) is root:
                self._drop(root)
        held.clear()

    def _drop(self, root: Root) -> None:
        if self.roots.get(root.path, root.scope) is not root:
            return
        self.roots.remove(root)
        loading = self._loading.pop(root, None)
        if loading is not None:
            loading.cancel()
        self._watches.release(root)
        for feed in self._feeds.pop((root.path, root.scope), ()):
            feed.close()
        self._own(self._loader.purge(root.path, root.scope), "zkside-purge")

    async def _sweep(self) -> None:
        """Drop idle roots, and write caches to disk, from time to time."""
        interval = max(0.05, min(self.settings.idle_eviction_s / 4, self.settings.snapshot_interval_s))
        saved = time.monotonic()
        while True:
            await asyncio.sleep(interval)
            now = time.monotonic()
            for root in self.roots:
                idle = root.users == 0 and now - root.last_used > self.settings.idle_eviction_s
                if idle and root.ready.done() and root.stale_since is None:
                    self._drop(root)
            if self._disk is not None and now - saved >= self.settings.snapshot_interval_s:
                saved = now
                await self._save(self._disk)

    def _restore(self, disk: DiskSnapshot) -> None:
        loaded = disk.load()
        if loaded is None:
            return
        now = time.monotonic()
        for path, record in loaded.nodes:
            self.table.put(path, record)
        for path, scope in loaded.roots:
            root = Root(path, scope, asyncio.get_running_loop().create_future(), live=True)
            root.ready.set_result(None)
            root.stale_since = now - loaded.age_s
            root.last_used = now
            self.roots.add(root)
            self._watches.serve(root)
        self._outage_began = loaded.zxid

    async def _save(self, disk: DiskSnapshot) -> None:
        if self._is_stale():
            return  # what is on disk is younger, or as good
        live = [(root.path, root.scope) for root in self.roots if root.live]
        await disk.save(self.reader.settled_zxid, live, self.table)

    def _is_stale(self) -> bool:
        return any(root.stale_since is not None for root in self.roots)

    def _own(self, flow: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(flow, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())


def _seen(ready: asyncio.Future[None]) -> None:
    """Marks a failure as looked at: whoever waits for the root gets it, and nobody may be waiting."""
    if not ready.cancelled():
        ready.exception()

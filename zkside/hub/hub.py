"""The hub: all local subscribers and cached reads on one set of watches.

An event's way: `_on_event` → keeper → reader (reads, in rounds) → `_publish` → feeds → subscribers. EVENTS
subscribers get theirs in `_on_event` already. What happens when connections come and go: hub/keeper.py.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from zkside.core.diff import change_type, missed_events
from zkside.core.recent import Recent
from zkside.errors import NoNode
from zkside.hub.events import EventIndex, EventSubscription, GapReason
from zkside.hub.feed import Feed
from zkside.hub.keeper import Keeper
from zkside.hub.reader import Announced, Reader, Settled
from zkside.hub.reads import Reads
from zkside.hub.roots import Root, Roots
from zkside.hub.settings import HubSettings
from zkside.hub.subscription import SnapshotReason, Subscription
from zkside.hub.table import NodeTable
from zkside.model import path as paths
from zkside.model import record as records
from zkside.model.event import EventType, KeeperState, WatchedEvent
from zkside.model.session import SessionStatus
from zkside.model.watch import EventTarget, Scope, Target, WatchKind
from zkside.zk.session import Session

__all__ = ["Hub", "HubSettings", "HubStatistics", "RootStatus", "WatchStatus"]

SCOPES = tuple(Scope)


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """For metrics; counters since the start."""

    server_watches: dict[str, int]
    events_in: int
    changes_out: int
    conflated: int
    gaps: dict[str, int]
    """By reason, as the snapshots."""
    snapshots_out: dict[str, int]
    subscribers: int
    cached_nodes: int
    cached_bytes: int
    cache_age_s: float
    """Age of the stalest cache; 0 when all are current."""
    rounds: int
    forced_cuts: int
    reads_cached: int
    reads_server: int
    refused: int
    """Targets that would have been more nodes than the caches may have."""
    save_errors: int
    """Caches that could not be written to disk."""


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """One watch on the server."""

    path: str
    recursive: bool
    subscribers: int
    cached_nodes: int
    stale: bool


@dataclass(frozen=True, slots=True)
class RootStatus:
    """One part of the tree that is kept cached."""

    path: str
    scope: Scope
    users: int
    """Subscribers, holds and waiters that need it; 0: kept for those who may come back."""
    holds: int
    """Of them, holds and waiters."""
    live: bool
    """False: it is being loaded, and in no answer yet."""
    stale_s: float
    """For how long it has not been known to be current; 0 while it is."""
    watch: str
    """The path of the watch that keeps it current; '' if it has none."""
    recursive: bool
    """Whether that watch is."""


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
        self.keeper = Keeper(
            session,
            self.settings,
            self.table,
            self.roots,
            self.reader,
            on_reconnected=self._on_reconnected,
            on_drop=self._on_drop,
        )
        self.reads = Reads(session, self.table, self.roots, self.reader, self.keeper, self.settings)
        self._feeds: dict[tuple[str, Scope], list[Feed]] = {}
        self._subscriptions: set[Subscription] = set()
        self._events = EventIndex()
        self._taps: dict[str, dict[Callable[[bytes | None], None], bool]] = {}
        """By path; True for those who mean whatever is there."""
        self._unchecked: dict[Callable[[bytes | None], None], str] = {}
        self._unlisten: Callable[[], None] = lambda: None
        self._events_in = self._conflated = 0
        self._gaps = dict.fromkeys(GapReason, 0)
        self.recent = Recent(time.time)
        self.changes_out = 0
        """Changes sent to subscribers, counted by the streams."""
        self.snapshots_out = dict.fromkeys(SnapshotReason, 0)

    def configure(self, settings: HubSettings) -> None:
        """These hold from now on, but for `state_dir`; the log of a target that is watched keeps its size."""
        self.settings = settings
        self.keeper.configure(settings)
        self.reads.configure(settings)

    def start(self) -> None:
        """Restore what was kept on disk, and follow the session."""
        self.keeper.start()
        self._unlisten = self.session.listen(status=self._on_status, event=self._on_event)
        self._on_status(self.session.status)

    async def close(self) -> None:
        """Stop following; caches are written to disk."""
        self._unlisten()
        await self.keeper.close()
        for feed in self._all_feeds():
            feed.close()

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
                root = self.keeper.acquire(target.path, target.scope)
                held.append(root)
                await self.keeper.ready(root)
        except BaseException:
            self._release_all(held)
            raise
        feeds = [self._feed(target) for target in targets]

        def closed(subscription: Subscription) -> None:
            self._subscriptions.discard(subscription)
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
            for reason, count in subscription.gaps.items():
                self._gaps[reason] += count
            self._release_all(held, linger=False)

        subscription = EventSubscription(
            targets, self.session.status.keeper_state, self.settings.event_queue_size, closed
        )
        self._events.add(subscription)  # before the watches are set, so that nothing between is missed
        try:
            for target in targets:
                recursive = target.kind is WatchKind.PERSISTENT_RECURSIVE
                root = self.keeper.acquire(target.path, Scope.SUBTREE if recursive else Scope.NODE)
                held.append(root)
                await self.keeper.ready(root)
                if target.kind in (WatchKind.DATA, WatchKind.CHILDREN) and self.table.records.get(target.path) is None:
                    raise NoNode(f"{target.path} does not exist")
        except BaseException:
            subscription.close()
            raise
        return subscription

    def on_deleted(
        self,
        path: str,
        czxid: int | None,
        callback: Callable[[], None],
        *,
        on_data: Callable[[bytes], None] | None = None,
    ) -> Callable[[], None]:
        """Call back once when the node with this czxid is gone, also if it was deleted during an outage.

        Without a czxid, for names that are not made again, the event of the deletion is enough; with it the
        node is read first. `on_data` is called with the node's data whenever that was read: as it was first
        seen, and after every change. Keeps a watch on the path until the returned function is called, or the
        callback was.
        """
        root = self.keeper.acquire(path, Scope.NODE)

        def tap(record: bytes | None) -> None:
            if record is None or (czxid is not None and records.zxids(record)[0] != czxid):
                stop()
                callback()
            elif on_data is not None:
                on_data(records.data(record))

        def stop() -> None:
            members = self._taps.get(path)
            if members is not None and tap in members:
                del members[tap]
                if not members:
                    del self._taps[path]
                self._release_all([root], linger=False)

        def settled(done: asyncio.Future[None]) -> None:
            # It may have gone before the watch was set.
            failed = done.cancelled() or done.exception() is not None
            if failed or tap not in self._taps.get(path, ()):
                return
            if path in self.reader.unsettled:
                # Read as absent, where the table never had it, it is no change that would tell.
                self._unchecked[tap] = path
            else:
                tap(self.table.records.get(path))

        self._taps.setdefault(path, {})[tap] = czxid is None
        root.ready.add_done_callback(settled)
        return stop

    def statistics(self) -> HubStatistics:
        now = time.monotonic()
        return HubStatistics(
            server_watches=self.keeper.watches.count(),
            events_in=self._events_in,
            changes_out=self.changes_out,
            conflated=self._conflated + sum(feed.conflated for feed in self._all_feeds()),
            gaps={
                reason.name.lower(): count
                + sum(subscription.gaps[reason] for subscription in self._events.subscriptions)
                for reason, count in self._gaps.items()
            },
            snapshots_out={reason.name.lower(): count for reason, count in self.snapshots_out.items()},
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
            refused=self.keeper.refused,
            save_errors=self.keeper.save_errors,
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
            for watch in self.keeper.watches.all()
        ]

    def each_root(self) -> Iterator[RootStatus]:
        """All that is cached, one at a time, also if some go meanwhile; nodes that are read once are not."""
        now_s = time.monotonic()
        for root in self.roots:
            watch = self.keeper.watches.of(root)
            yield RootStatus(
                root.path,
                root.scope,
                root.users,
                len(self._taps.get(root.path, ())) if root.scope is Scope.NODE else 0,
                root.live,
                now_s - root.stale_since if root.stale_since is not None else 0.0,
                watch.path if watch is not None else "",
                watch is not None and watch.recursive,
            )

    # From the session

    def _on_event(self, event: WatchedEvent) -> None:
        self._events_in += 1
        self._events.dispatch(event, is_recursive_at=self.keeper.watches.is_recursive_at)
        announced = Announced(event.since, event.since, event.zxid)
        self.keeper.announce(event.path, announced)
        if event.type in (EventType.NODE_CREATED, EventType.NODE_DELETED) and event.path != "/":
            self.keeper.announce(paths.parent(event.path), announced)  # its Stat changed with it
        if event.type is EventType.NODE_DELETED and event.path in self._taps:
            # Whose node is known by its czxid waits for the read: the event may be of one before it.
            for tap in [tap for tap, means_any in self._taps[event.path].items() if means_any]:
                tap(None)

    def _on_status(self, status: SessionStatus) -> None:
        self.keeper.on_status(status)
        for subscription in list(self._subscriptions):
            subscription.session_changed(status)
        for events in list(self._events.subscriptions):
            events.session_changed(status.keeper_state)

    def _on_reconnected(self) -> None:
        """What changed during an outage is about to be published."""
        for events in self._events.subscriptions:
            events.disconnected()

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
        for tap, path in list(self._unchecked.items()):
            if path not in self.reader.unsettled:
                del self._unchecked[tap]
                if tap in self._taps.get(path, ()):
                    tap(self.table.records.get(path))
        self.keeper.settle_ready()

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
        for scope in SCOPES:
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

    def _release_all(self, held: list[Root], *, linger: bool = True) -> None:
        for root in held:
            # A feed lingers for those who may want to resume; then its root has to.
            self.keeper.release(root, linger=linger or (root.path, root.scope) in self._feeds)
        held.clear()

    def _on_drop(self, root: Root) -> None:
        for feed in self._feeds.pop((root.path, root.scope), ()):
            self._conflated += feed.conflated
            feed.close()

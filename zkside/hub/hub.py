"""The hub: all local subscribers and cached reads on one set of watches.

An event's way: `_on_event` → keeper → reader (reads, in rounds) → `_publish` → feeds → subscribers. EVENTS
subscribers get theirs in `_on_event` already. What happens when connections come and go: hub/keeper.py.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from zkside.core.diff import change_type, missed_events
from zkside.core.recent import Recent
from zkside.errors import NoNode, ZksideError
from zkside.hub.events import EventIndex, EventSubscription, GapReason
from zkside.hub.feed import Feed
from zkside.hub.keeper import Keeper
from zkside.hub.reader import Announced, Reader, Settled
from zkside.hub.reads import Freshness, Reads
from zkside.hub.roots import Root, Roots
from zkside.hub.settings import HubSettings
from zkside.hub.subscription import SnapshotReason, Subscription
from zkside.hub.table import NodeTable
from zkside.hub.taps import Taps
from zkside.hub.watchdog import Watchdog
from zkside.model import path as paths
from zkside.model.event import EventType, KeeperState, WatchedEvent
from zkside.model.record import UNREADABLE
from zkside.model.session import SessionStatus
from zkside.model.watch import EventTarget, Scope, Target, WatchKind
from zkside.zk.session import Session

__all__ = ["Hub", "HubSettings", "HubStatistics", "RootStatus", "WatchStatus"]

SCOPES = tuple(Scope)

FORMER_HISTORIES = 16
"""Whose resume points are known as such."""


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
    set_aside: int
    """Files of caches that were not believed at the start: altered, or somebody else's."""
    revalidation_age_s: float
    """How long ago the last whole look at the caches began, for what no event tells."""
    revalidation_found: int
    """Nodes that such a look found to be otherwise."""
    revalidation_errors: int
    unreadable: int
    """Nodes that cannot be read now, so that what covers them is stale."""
    doubted: dict[str, int]
    """Times that something was found to say that it is current though nothing kept it so, by what was wrong."""
    not_kept: str
    """Why the caches are not kept current at this moment, although there is a connection; '' if they are."""


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
        """Names the history to which the zxids of this hub's streams belong: another one for each history of
        ZooKeeper, and for each daemon."""
        self._former_epoch_ids: deque[str] = deque(maxlen=FORMER_HISTORIES)
        self._history = session.history.number
        self.session = session
        self.table = NodeTable()
        self.roots = Roots()
        self.reader = Reader(
            session,
            self.table,
            self.roots,
            self._publish,
            lambda path, readable: self.keeper.on_readable(path, readable=readable),
        )
        self.keeper = Keeper(
            session,
            self.settings,
            self.table,
            self.roots,
            self.reader,
            on_reconnected=self._on_reconnected,
            on_torn=self._on_torn,
            on_stale=self._on_stale,
            on_drop=self._on_drop,
            on_history=self._on_history,
        )
        self.watchdog = Watchdog(session, self.roots, self.reader, self.keeper)
        self.reads = Reads(session, self.table, self.roots, self.reader, self.keeper, self.settings)
        self._feeds: dict[tuple[str, Scope], list[Feed]] = {}
        self._subscriptions: set[Subscription] = set()
        self._events = EventIndex()
        self._taps = Taps(session, self.table, self.reader, self.keeper)
        self._unlisten: Callable[[], None] = lambda: None
        self._ended_at: int | None = None
        """As Feed.ended_at."""
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
        self.watchdog.start()
        self._unlisten = self.session.listen(status=self._on_status, event=self._on_event)
        self._on_status(self.session.status)

    async def close(self) -> None:
        """Stop following; caches are written to disk."""
        self._unlisten()
        await self.watchdog.close()
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
        is_vital: bool = False,
    ) -> Subscription:
        """A STATE subscription, once all its targets are cached; what is vital needs no room in the caches.

        `resume` is (epoch_id, zxid); one of a history that is over is answered with a snapshot. Raises: NoAuth, Quota;
        SessionSuspended if a target is not cached and there is no connection.
        """
        held: list[Root] = []
        try:
            for target in targets:
                root = self.keeper.acquire(target.path, target.scope, is_vital=is_vital)
                held.append(root)
                await self.keeper.ready(root)
                if resume is None:  # who was told on a stream that it may not is told on the next one when it may
                    await self._ask_for_the_right(target.path)
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
            feeds,
            list(held),
            lambda: self.reader.settled_zxid,
            resume_zxid,
            bookmark_interval_s,
            closed,
            is_of_history=self._ended_at is None and (resume is None or resume[0] not in self._former_epoch_ids),
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
                await self._ask_for_the_right(target.path)
                if target.kind in (WatchKind.DATA, WatchKind.CHILDREN) and self.table.records.get(target.path) is None:
                    raise NoNode.at(target.path)
        except BaseException:
            subscription.close()
            raise
        return subscription

    async def _ask_for_the_right(self, path: str) -> None:
        """Raises NoAuth for a node that may not be read, by the server's word of now: who asks again after its ACL
        was changed is not refused for what the cache still believes."""
        if self.table.records.get(path) == UNREADABLE and self.session.status.state.is_connected:
            with suppress(NoNode):
                await self.reads.get(path, Freshness())

    def on_deleted(
        self,
        path: str,
        czxid: int | None,
        callback: Callable[[], None],
        *,
        on_data: Callable[[bytes], None] | None = None,
        on_failed: Callable[[ZksideError], None],
    ) -> Callable[[], None]:
        """Call back once when the node with this czxid is gone, also if it was deleted during an outage.

        Without a czxid, for names that are not made again, the event of the deletion is enough; with it the
        node is read first. `on_data` is called with the node's data whenever that was read: as it was first
        seen, and after every change. Keeps a watch on the path until the returned function is called, or the
        callback was. Needs no room in the caches. A node that may not be read is looked for among its parent's
        children; if that may not be read either `on_failed` is called, once and instead of the callback.
        """
        return self._taps.add(path, czxid, callback, on_data, on_failed)

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
            set_aside=self.keeper.set_aside,
            revalidation_age_s=self.keeper.revalidation.age_s,
            revalidation_found=self.keeper.revalidation.found,
            revalidation_errors=self.keeper.revalidation.errors,
            unreadable=len(self.reader.unreadable),
            doubted=dict(self.watchdog.found),
            not_kept=self.watchdog.not_kept,
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
                self._taps.count(root.path) if root.scope is Scope.NODE else 0,
                root.live,
                now_s - root.stale_since if root.stale_since is not None else 0.0,
                watch.path if watch is not None else "",
                watch is not None and watch.recursive,
            )

    # From the session

    def _on_event(self, event: WatchedEvent) -> None:
        try:
            self._take_event(event)
        except BaseException:
            self.keeper.doubt()  # it is lost, and nothing else would tell of what it said
            raise

    def _take_event(self, event: WatchedEvent) -> None:
        self._events_in += 1
        self._events.dispatch(event, is_recursive_at=self.keeper.watches.is_recursive_at)
        announced = Announced(event.since, event.since, event.zxid)
        self.keeper.announce(event.path, announced)
        if event.type in (EventType.NODE_CREATED, EventType.NODE_DELETED) and event.path != "/":
            self.keeper.announce(paths.parent(event.path), announced)  # its Stat changed with it
            self._taps.heard(paths.parent(event.path))
        elif event.type is EventType.NODE_CHILDREN_CHANGED:
            self._taps.heard(event.path)
        if event.type is EventType.NODE_DELETED:
            self._taps.deleted(event.path)

    def _on_status(self, status: SessionStatus) -> None:
        try:
            self._take_status(status)
        except BaseException:
            self.keeper.doubt()
            raise

    def _take_status(self, status: SessionStatus) -> None:
        if status.history != self._history:
            self.begin_history(status.history)
        self.keeper.on_status(status)
        for subscription in list(self._subscriptions):
            subscription.session_changed(status)
        for events in list(self._events.subscriptions):
            events.session_changed(status.keeper_state)

    def begin_history(self, number: int) -> None:
        """ZooKeeper's history went back (GUARANTEES V2): what is kept has to be compared before it is told again.

        From the session's status, before the connection is taken note of.
        """
        self._history = number
        self.recent.note("session.history_changed", "", str(number))
        if self._ended_at is None:
            self._ended_at = self.reader.settled_zxid
        for feed in self._all_feeds():
            feed.ended_at = self._ended_at
        self.keeper.begin_history()

    def _on_history(self) -> None:
        """All that is kept is of the new history: every subscriber gets a snapshot of it."""
        self._former_epoch_ids.append(self.epoch_id)
        self.epoch_id = secrets.token_hex(8)
        self._ended_at = None
        for feed in self._all_feeds():
            feed.begin_history(self.epoch_id)

    def _on_reconnected(self) -> None:
        """What changed during an outage is about to be published."""
        for events in self._events.subscriptions:
            events.disconnected()

    def _on_stale(self) -> None:
        """Roots have become stale, or current again, with no change of the session that would tell."""
        status = self.session.status
        for subscription in list(self._subscriptions):
            subscription.staleness_changed(status)

    def _on_torn(self) -> None:
        """The reader died while a cut was published: who has heard what of it is not known."""
        for feed in self._all_feeds():
            feed.begin_anew()
        self._taps.look_again()

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
            self._taps.published(change.path, change.new)
        for feed, changes in by_feed.items():
            feed.append(zxid, changes)
        self._taps.settle()
        self.keeper.settle_ready()
        if self.table.unlisted:
            self.keeper.list_again()

    # Feeds

    def _feed(self, target: Target) -> Feed:
        feeds = self._feeds.setdefault((target.path, target.scope), [])
        for feed in feeds:
            if feed.target == target:
                return feed
        feed = Feed(target, self.table, lambda: self.reader.settled_zxid, self.settings.window_size, self.epoch_id)
        feed.ended_at = self._ended_at
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

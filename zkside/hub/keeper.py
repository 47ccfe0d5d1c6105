"""The keeper: brings roots to life, keeps them true over outages, and lets them go.

A connection's way: `on_status` pauses the reader; `_follow_session` sets the watches again, compares all roots
with ZooKeeper, and lets the reader publish what changed meanwhile as one cut. A doubt goes the same way: whatever may
have kept a root from being current, such as a task that died, makes all of them stale until they have been compared.

Invariant (GUARANTEES V1): a root that is not stale is kept, as `why_not_kept` has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain

from zkside import log
from zkside.errors import Quota, SessionSuspended, ZksideError
from zkside.hub.asking import PASSING, pause
from zkside.hub.disk import DiskSnapshot, NotSaved
from zkside.hub.loader import Loader
from zkside.hub.reader import Announced, Reader
from zkside.hub.revalidation import Revalidation
from zkside.hub.roots import Root, Roots
from zkside.hub.settings import HubSettings
from zkside.hub.table import NodeTable
from zkside.hub.watches import Watches
from zkside.model.session import SessionStatus
from zkside.model.watch import Scope
from zkside.supervisor import Flow, Permanent, Work, Works, nothing
from zkside.zk.session import Session

TRY_UNREADABLE_S = 1.0
MOST_UNREADABLE_S = 30.0


class Keeper:
    """Life of the roots: loading → live ⇄ stale → gone. It owns every task of the hub."""

    def __init__(
        self,
        session: Session,
        settings: HubSettings,
        table: NodeTable,
        roots: Roots,
        reader: Reader,
        *,
        on_reconnected: Callable[[], None],
        on_torn: Callable[[], None],
        on_stale: Callable[[], None],
        on_drop: Callable[[Root], None],
        on_history: Callable[[], None],
    ) -> None:
        """`on_torn`: the reader died in the middle of a cut, whose subscribers need everything anew. `on_stale`:
        roots have become stale, or current again, although the session has not changed."""
        self.watches = Watches(session)
        self._session = session
        self._settings = settings
        self._configured = asyncio.Event()
        self._table = table
        self._roots = roots
        self._reader = reader
        self._loader = Loader(session, table, roots, reader, settings)
        self._disk = DiskSnapshot(settings.state_dir, settings.identity) if settings.state_dir else None
        self.revalidation = Revalidation(
            session, table, roots, reader, self._loader, settings.revalidate_interval_s, self._make_current
        )
        self._on_reconnected = on_reconnected
        self._on_torn = on_torn
        self._on_stale = on_stale
        self._on_drop = on_drop
        self._on_history = on_history
        self._permanent: list[Permanent] = []
        self._works = Works(session.supervisor)
        self._loading: dict[Root, Work] = {}
        self._settling: list[tuple[int, Root]] = []
        self._connected = asyncio.Event()
        self._outages = 0
        self._outage_began = 0
        self._is_new_history = False
        """What is kept is of a history of ZooKeeper that is over, as far as it has not been published anew."""
        self._history_reached: int | None = None
        """Once that is settled, all is of the new one; None while not everything has been compared."""
        self._epoch = 0
        self._news = asyncio.Event()
        """The session's status is another one, or there is a doubt."""
        self.is_current = False
        """All roots have been compared since the last connection, and the last doubt."""
        self.is_lagging = False
        """The reader has not got on for too long: nothing is current until it has."""
        self.refused = self.save_errors = 0
        """Targets refused for their size, and failures to write caches to disk, counted."""

    @property
    def set_aside(self) -> int:
        """Files of caches that were not believed at the start."""
        return self._disk.set_aside if self._disk is not None else 0

    def start(self) -> None:
        """Restore what was kept on disk, and follow the session."""
        if self._disk is not None:
            self._restore(self._disk)
        start = self._session.supervisor.start
        self._permanent = [
            start("reader", self._reader.run, self._on_reader_died),
            start("keeper", self._follow_session, self.doubt),
            start("sweep", self._sweep, nothing),
            start("revalidation", self.revalidation.run, nothing),
        ]

    async def close(self) -> None:
        """Let all tasks end; caches are written to disk."""
        for permanent in self._permanent:
            permanent.stop()
        self.watches.close()
        await self._works.close()
        await asyncio.gather(*(permanent.wait() for permanent in self._permanent))
        if self._disk is not None:
            await self._save(self._disk)

    def own(self, flow: Flow, name: str, on_failed: Callable[[ZksideError], None]) -> None:
        """Run a flow for one purpose; whoever needs it hears its failure."""
        self._works.run(name, flow, lambda error: on_failed(_told(error)))

    def acquire(self, path: str, scope: Scope, *, is_vital: bool = False) -> Root:
        """Keep a part of the tree; give it back with `release`. What is vital needs no room in the caches."""
        root = self._roots.get(path, scope)
        if root is None:
            root = Root(path, scope, asyncio.get_running_loop().create_future())
            root.ready.add_done_callback(_seen)
            self._roots.add(root)
            root.is_vital = is_vital
            self._begin_loading(root)
        root.is_vital = root.is_vital or is_vital
        root.users += 1
        return root

    def release(self, root: Root, *, linger: bool = True) -> None:
        """The user of a root has gone. It stays for a while, or goes at once if it was the last."""
        root.users -= 1
        root.last_used = time.monotonic()
        if not linger and root.users == 0:
            self._drop(root)

    async def ready(self, root: Root) -> None:
        """Wait until a root can be used.

        Raises: why it cannot be (NoAuth, Quota); SessionSuspended if it would have to be loaded and there is no
        connection.
        """
        if not root.ready.done() and not self._session.status.state.is_connected:
            raise SessionSuspended(f"{root.path} is not cached, and there is no connection to ZooKeeper")
        await asyncio.shield(root.ready)

    def announce(self, path: str, announced: Announced) -> None:
        """An event says that a path may have changed."""
        covered = False
        for root in self._roots.covering(path):
            covered = True
            if not root.live:
                root.announced.add(path)
        if covered:
            self._reader.announce(path, announced)

    def on_status(self, status: SessionStatus) -> None:
        """The session has another state."""
        self._news.set()
        if status.state.is_connected:
            self._connected.set()
        elif self._connected.is_set():
            self._connected.clear()
            self._outages += 1
            self._begin_outage()

    def doubt(self) -> None:
        """Something may have been missed: all roots are stale until they have been compared with ZooKeeper."""
        self._outages += 1
        self._begin_outage()
        self._news.set()
        self._on_stale()

    def _begin_outage(self) -> None:
        self._outage_began = self._reader.settled_zxid
        self.is_current = False
        self._reader.pause()
        self._history_reached = None
        self._make_stale(self._roots)

    def repair(self, roots: Iterable[Root]) -> None:
        """Roots that nothing keeps: they are loaded anew if they are not live, and compared otherwise."""
        for root in roots:
            if not root.live and self._roots.get(root.path, root.scope) is root:
                self._begin_loading(root)
        self.doubt()

    def lag(self, *, is_lagging: bool) -> None:
        """Take note that the reader does not get on, or does again."""
        self.is_lagging = is_lagging
        if is_lagging:
            self._make_stale(self._roots)
            self._on_stale()
        else:
            self._make_current()

    def on_readable(self, path: str, *, readable: bool) -> None:
        """Take note, from the reader, that a path cannot be read any more, or can again."""
        if readable:
            self._make_current()
        elif self._make_stale(self._roots.covering(path)):
            self._on_stale()

    def list_again(self) -> None:
        """Have the children of nodes listed that may be read again; what keeps them is stale until that is done."""
        if self._make_stale(root for path in self._table.unlisted for root in self._roots.covering_children(path)):
            self._on_stale()
        self.revalidation.list_soon()

    def _make_stale(self, roots: Iterable[Root]) -> bool:
        """Returns whether any of them was current."""
        now_s, any_was_current = time.monotonic(), False
        for root in roots:
            if root.live and root.stale_since is None:
                root.stale_since, any_was_current = now_s, True
        return any_was_current

    def _make_current(self) -> None:
        """Mark the roots that are kept as current, unless something of them cannot be read."""
        if not self.is_current or self.is_lagging:
            return
        unread: set[Root] = set()
        for path in chain(self._reader.unreadable, self._loader.unlisted):
            unread.update(self._roots.covering(path))
        for path in self._table.unlisted:
            unread.update(self._roots.covering_children(path))
        for root in self._roots:
            if root.stale_since is not None and root not in unread and not self.why_not_kept(root):
                root.stale_since = None
        self._on_stale()

    def why_not_kept(self, root: Root) -> str:
        """Why a root may not say that it is current, or hope to become so; '' if nothing is wrong with it."""
        if not root.live:
            loading = self._loading.get(root)
            return "" if loading is not None and not loading.is_over else "nobody loads it"
        if not self._session.status.state.is_connected:
            return "there is no connection"
        watch = self.watches.of(root)
        if watch is None:
            return "it has no watch"
        return "" if self.watches.is_in_place(watch) else "its watch is not in place in this session"

    def why_not_run(self) -> str:
        """Why nothing at all may say that it is current; '' if nothing is wrong."""
        dead = [permanent.name for permanent in self._permanent if not permanent.is_alive]
        return f"the {dead[0]} is dead" if dead else ""

    def _on_reader_died(self) -> None:
        self._reader.recover()
        if self._reader.torn:
            self._reader.torn = False
            self._on_torn()
        self.doubt()

    def begin_history(self) -> None:
        """ZooKeeper's history went back. To be called before the connection to the new one is taken note of.

        All roots are stale, and are compared with what there is now; `on_history` is called when that is published.
        """
        self._is_new_history = True
        self._outage_began = 0
        self._settling = [(0, root) for _, root in self._settling]
        self._reader.begin_history()

    def settle_ready(self) -> None:
        """Roots are ready once all transactions up to the end of their load are settled."""
        settled = self._reader.settled_zxid
        if self._history_reached is not None and settled >= self._history_reached:
            self._history_reached, self._is_new_history = None, False
            self._on_history()
        waiting, self._settling = self._settling, []
        for reached, root in waiting:
            if reached > settled:
                self._settling.append((reached, root))
            elif not root.ready.done():
                root.ready.set_result(None)

    async def _follow_session(self) -> None:
        """Compare all roots with ZooKeeper, once for each connection and for each doubt."""
        attempt = 0
        while True:
            await self._connected.wait()
            self._news.clear()
            status = self._session.status
            try:
                await self.watches.synchronise(new_session=status.epoch != self._epoch)
                self._epoch = status.epoch
                await self._loader.compare(self._outage_began + 1, is_same_history=not self._is_new_history)
            except ZksideError as error:
                # Whatever it is, the caches stay stale and are compared again: at once on the next connection.
                log.cache_compare_interrupted(error=error)
                if not self._news.is_set():
                    await pause(attempt)
                    attempt += 1
                continue
            attempt = 0
            if not self._news.is_set():
                self.is_current = True
                self._make_current()
                if self._outages:
                    self._on_reconnected()
                if self._is_new_history:
                    self._history_reached = self._session.last_zxid
                self._reader.resume()
                self.settle_ready()
                await self._news.wait()

    def _begin_loading(self, root: Root) -> None:
        work = self._works.run("load", lambda: self._load(root), lambda error: self._cannot_load(root, _told(error)))
        self._loading[root] = work

    async def _load(self, root: Root) -> None:
        """Bring a root to life, over as many connections as it takes."""
        reached = None
        while reached is None:
            await self._connected.wait()
            sequence = self._session.status.sequence
            root.announced.clear()
            try:
                await asyncio.shield(self.watches.serve(root))
                reached = await self._loader.load(root)
            except ZksideError as error:
                if isinstance(error, PASSING) and self._session.status.sequence != sequence:
                    await self._loader.purge(root.path, root.scope, but=root)
                    continue
                self.refused += isinstance(error, Quota)
                self._cannot_load(root, error)
                return
        del self._loading[root]
        root.live = True
        root.announced.clear()
        if not self.is_current or self.is_lagging or any(map(root.covers, self._reader.unreadable)):
            root.stale_since = time.monotonic()
        self._settling.append((reached, root))
        self.settle_ready()

    def _cannot_load(self, root: Root, error: ZksideError) -> None:
        if not root.ready.done():
            root.ready.set_exception(error)
        self._drop(root)

    def _drop(self, root: Root) -> None:
        if self._roots.get(root.path, root.scope) is not root:
            return
        self._roots.remove(root)
        root.live = False
        loading = self._loading.pop(root, None)
        if loading is not None and loading.task is not asyncio.current_task():
            loading.cancel()
        self.watches.release(root)
        self._on_drop(root)
        self._works.run("purge", lambda: self._purge(root), lambda error: None)

    async def _purge(self, root: Root) -> None:
        await self._loader.purge(root.path, root.scope)
        # What was waited for to be settled may have been of it.
        self.settle_ready()

    def configure(self, settings: HubSettings) -> None:
        """These hold from now on, but for state_dir."""
        self._settings = settings
        self._loader.settings = settings
        self.revalidation.configure(settings.revalidate_interval_s)
        self._configured.set()

    async def _sweep(self) -> None:
        """Drop idle roots, and write caches to disk, from time to time."""
        saved = tried = time.monotonic()
        every_s = TRY_UNREADABLE_S
        while True:
            interval_s = max(0.05, min(self._settings.idle_eviction_s / 4, self._settings.snapshot_interval_s, every_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._configured.wait()
            self._configured.clear()
            now = time.monotonic()
            for root in self._roots:
                idle = root.users == 0 and now - root.last_used > self._settings.idle_eviction_s
                if idle and root.ready.done() and (root.stale_since is None or self.is_current):
                    self._drop(root)
            if not (self._reader.unreadable or self._loader.unlisted):
                tried, every_s = now, TRY_UNREADABLE_S
            elif now - tried >= every_s and self.is_current:
                tried, every_s = now, min(2 * every_s, MOST_UNREADABLE_S)
                self._reader.try_unreadable()
                if self._loader.unlisted:
                    self.doubt()
            if self._disk is not None and now - saved >= self._settings.snapshot_interval_s:
                saved = now
                await self._save(self._disk)

    def _restore(self, disk: DiskSnapshot) -> None:
        loaded = disk.load()
        if loaded is None:
            return
        now = time.monotonic()
        for path, record in loaded.nodes:
            self._table.put(path, record)
        for path, scope in loaded.roots:
            root = Root(path, scope, asyncio.get_running_loop().create_future(), live=True)
            root.ready.set_result(None)
            root.stale_since = now - loaded.age_s
            root.last_used = now
            self._roots.add(root)
            self.watches.serve(root)
        self._outage_began = loaded.zxid
        self._session.history.has_seen(loaded.zxid)

    async def _save(self, disk: DiskSnapshot) -> None:
        if not self.is_current:
            return  # what is on disk is younger, or as good
        live = [(root.path, root.scope) for root in self._roots if root.live and root.stale_since is None]
        try:
            await disk.save(self._reader.settled_zxid, live, self._table)
        except NotSaved as error:
            # What was written before stays, and grows old: that weakens the next start, not this daemon.
            self.save_errors += 1
            log.cache_not_saved(error=error)


def _told(error: Exception) -> ZksideError:
    """The error that whoever waits is told; a defect of our own is in the log."""
    return error if isinstance(error, ZksideError) else ZksideError(f"a defect of zkside: {error!r}; see its log")


def _seen(ready: asyncio.Future[None]) -> None:
    """Marks a failure as looked at: whoever waits for the root gets it, and nobody may be waiting."""
    if not ready.cancelled():
        ready.exception()

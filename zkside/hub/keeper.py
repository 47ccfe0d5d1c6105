"""The keeper: brings roots to life, keeps them true over outages, and lets them go.

A connection's way: `on_status` pauses the reader; `_follow_session` sets the watches again, compares all roots
with ZooKeeper, and lets the reader publish what changed meanwhile as one cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from zkside import log
from zkside.errors import Quota, SessionSuspended, ZksideError
from zkside.hub.disk import DiskSnapshot, NotSaved
from zkside.hub.loader import Loader
from zkside.hub.reader import Announced, Reader
from zkside.hub.roots import Root, Roots
from zkside.hub.settings import HubSettings
from zkside.hub.table import NodeTable
from zkside.hub.watches import PASSING, Watches
from zkside.model.session import SessionStatus
from zkside.model.watch import Scope
from zkside.zk.session import Session


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
        on_drop: Callable[[Root], None],
    ) -> None:
        self.watches = Watches(session)
        self._session = session
        self._settings = settings
        self._configured = asyncio.Event()
        self._table = table
        self._roots = roots
        self._reader = reader
        self._loader = Loader(session, table, roots, reader, settings)
        self._disk = DiskSnapshot(settings.state_dir) if settings.state_dir else None
        self._on_reconnected = on_reconnected
        self._on_drop = on_drop
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: dict[Root, asyncio.Task[None]] = {}
        self._settling: list[tuple[int, Root]] = []
        self._connected = asyncio.Event()
        self._outages = 0
        self._outage_began = 0
        self._epoch = 0
        self.refused = self.save_errors = 0
        """Targets refused for their size, and failures to write caches to disk, counted."""

    def start(self) -> None:
        """Restore what was kept on disk, and follow the session."""
        if self._disk is not None:
            self._restore(self._disk)
        self._own(self._reader.run(), "zkside-reader")
        self._own(self._follow_session(), "zkside-keeper")
        self._own(self._sweep(), "zkside-sweep")

    async def close(self) -> None:
        """Let all tasks end; caches are written to disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._disk is not None:
            await self._save(self._disk)

    def acquire(self, path: str, scope: Scope) -> Root:
        """Keep a part of the tree; give it back with `release`."""
        root = self._roots.get(path, scope)
        if root is None:
            root = Root(path, scope, asyncio.get_running_loop().create_future())
            root.ready.add_done_callback(_seen)
            self._roots.add(root)
            self._loading[root] = self._own(self._load(root), "zkside-load")
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
        if status.state.is_connected:
            self._connected.set()
        elif self._connected.is_set():
            self._connected.clear()
            self._outages += 1
            self._outage_began = self._reader.settled_zxid
            self._reader.pause()
            now = time.monotonic()
            for root in self._roots:
                if root.live and root.stale_since is None:
                    root.stale_since = now

    def settle_ready(self) -> None:
        """Roots are ready once all transactions up to the end of their load are settled."""
        settled = self._reader.settled_zxid
        waiting, self._settling = self._settling, []
        for reached, root in waiting:
            if reached > settled:
                self._settling.append((reached, root))
            elif not root.ready.done():
                root.ready.set_result(None)

    async def _follow_session(self) -> None:
        """One round of this for each connection."""
        while True:
            await self._connected.wait()
            status = self._session.status
            try:
                await self.watches.synchronise(new_session=status.epoch != self._epoch)
                self._epoch = status.epoch
                await self._loader.compare(self._outage_began + 1)
            except PASSING as error:
                log.cache_compare_interrupted(error=error)
                await self._next_status(status.sequence)
                continue
            if self._session.status.sequence == status.sequence:
                for root in self._roots:
                    root.stale_since = None
                if self._outages:
                    self._on_reconnected()
                self._reader.resume()
                self.settle_ready()
                await self._next_status(status.sequence)

    async def _next_status(self, sequence: int) -> None:
        """Wait until the session's status is another one."""
        changed = asyncio.Event()
        unlisten = self._session.listen(status=lambda status: changed.set())
        try:
            if self._session.status.sequence == sequence:
                await changed.wait()
        finally:
            unlisten()

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
                root.ready.set_exception(error)
                self._drop(root)
                return
        del self._loading[root]
        root.live = True
        root.announced.clear()
        self._settling.append((reached, root))
        self.settle_ready()

    def _drop(self, root: Root) -> None:
        if self._roots.get(root.path, root.scope) is not root:
            return
        self._roots.remove(root)
        loading = self._loading.pop(root, None)
        if loading is not None and loading is not asyncio.current_task():
            loading.cancel()
        self.watches.release(root)
        self._on_drop(root)
        self._own(self._loader.purge(root.path, root.scope), "zkside-purge")

    def configure(self, settings: HubSettings) -> None:
        """These hold from now on, but for state_dir."""
        self._settings = settings
        self._loader.settings = settings
        self._configured.set()

    async def _sweep(self) -> None:
        """Drop idle roots, and write caches to disk, from time to time."""
        saved = time.monotonic()
        while True:
            interval_s = max(0.05, min(self._settings.idle_eviction_s / 4, self._settings.snapshot_interval_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._configured.wait()
            self._configured.clear()
            now = time.monotonic()
            for root in self._roots:
                idle = root.users == 0 and now - root.last_used > self._settings.idle_eviction_s
                if idle and root.ready.done() and root.stale_since is None:
                    self._drop(root)
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

    async def _save(self, disk: DiskSnapshot) -> None:
        if any(root.stale_since is not None for root in self._roots):
            return  # what is on disk is younger, or as good
        live = [(root.path, root.scope) for root in self._roots if root.live]
        try:
            await disk.save(self._reader.settled_zxid, live, self._table)
        except NotSaved as error:
            # What was written before stays, and grows old: that weakens the next start, not this daemon.
            self.save_errors += 1
            log.cache_not_saved(error=error)

    def _own(self, flow: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(flow, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.cache_task_failed(task=task.get_name(), error=error)


def _seen(ready: asyncio.Future[None]) -> None:
    """Marks a failure as looked at: whoever waits for the root gets it, and nobody may be waiting."""
    if not ready.cancelled():
        ready.exception()

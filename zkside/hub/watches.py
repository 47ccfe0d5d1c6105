"""Watches on the server: as few as serve all roots.

A recursive watch serves every root below its path, so there is at most one watch for a path, and none where
one above serves. The table here is what the server is meant to have; `synchronise` makes it so after a
connection was lost in the middle of a change.

Invariant: a root is served at every moment from the answer to its first AddWatch on: it moves to another
watch only after that one is set, and the old one is removed after that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from zkside.errors import ZksideError
from zkside.hub.asking import BACKOFF, is_passing
from zkside.hub.roots import Root
from zkside.model import path as paths
from zkside.model.operation import AddWatch, RemoveWatch, Reply
from zkside.model.watch import Scope
from zkside.zk.session import Session


@dataclass(eq=False, slots=True)
class Watch:
    """A persistent watch on the server and the roots that live on it."""

    path: str
    recursive: bool
    in_place: asyncio.Future[None]
    """Done once the server has it."""
    epoch: int = 0
    """Of the session in which the server has it; 0 before the first."""
    roots: set[Root] = field(default_factory=set)


class Watches:
    """The watches of the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._watches: dict[str, Watch] = {}
        self._serving: dict[Root, Watch] = {}
        self._removing: set[str] = set()
        self._again: dict[asyncio.TimerHandle, None] = {}
        """Requests that were refused for the moment, and are to be made again."""

    def close(self) -> None:
        """Ask for nothing more."""
        for timer in self._again:
            timer.cancel()
        self._again.clear()

    def serve(self, root: Root) -> asyncio.Future[None]:
        """Give a root a watch; the future is done once the server has it.

        It stays pending while there is no connection (`synchronise` sets it then), and fails if the server
        refuses the watch.
        """
        recursive = root.scope is not Scope.NODE
        watch = self._above(root.path, recursive)
        if watch is None:
            former = self._watches.get(root.path)
            watch = Watch(root.path, recursive, asyncio.get_running_loop().create_future())
            if former is not None:  # recursive replaces plain, and takes over its roots
                watch.roots |= former.roots
                for moved in former.roots:
                    self._serving[moved] = watch
                if not former.in_place.done():
                    watch.in_place.add_done_callback(lambda done: _copy(done, former.in_place))
            self._watches[root.path] = watch
            self._add(watch)
        watch.roots.add(root)
        self._serving[root] = watch
        return watch.in_place

    def release(self, root: Root) -> None:
        """The root is gone; so is its watch, if no other root needs it."""
        watch = self._serving.pop(root, None)
        if watch is None:
            return
        watch.roots.discard(root)
        if not watch.roots:
            self._remove(watch)
        elif watch.recursive and all(r.path != watch.path for r in watch.roots):
            # Only roots below are left on it: narrower watches of their own cost the server less. They are
            # sent before the removal, so there is no gap.
            del self._watches[watch.path]
            for rider in watch.roots:
                self.serve(rider)
            self._watches[watch.path] = watch
            self._remove(watch)

    def is_recursive_at(self, path: str) -> bool:
        """Whether a recursive watch reports on a path: then its children's changes come as their own events."""
        watch = self._above(path, recursive=True)
        return watch is not None and watch.in_place.done()

    async def synchronise(self, *, new_session: bool) -> None:
        """After (re)connecting: send what the server may lack, and wait until it has it.

        A new session lacks everything. Raises: what a lost connection raises; then call it again.
        """
        for path in list(self._removing) if not new_session else ():
            self._send_removal(path)
        if new_session:
            self._removing.clear()
        adding = [self._add(watch) for watch in self._watches.values() if new_session or not self.is_in_place(watch)]
        for result in await asyncio.gather(*adding, return_exceptions=True):
            if isinstance(result, BaseException) and is_passing(result):
                raise result

    def is_in_place(self, watch: Watch) -> bool:
        """Whether the server has it, for the present session."""
        return watch.epoch == self._session.epoch and watch.in_place.done() and watch.in_place.exception() is None

    def count(self) -> dict[str, int]:
        """Watches that the server has, by kind."""
        recursive = sum(watch.recursive for watch in self._watches.values())
        return {"persistent": len(self._watches) - recursive, "persistent_recursive": recursive}

    def all(self) -> list[Watch]:
        return list(self._watches.values())

    def __len__(self) -> int:
        return len(self._watches)

    def of(self, root: Root) -> Watch | None:
        """The watch that serves a root."""
        return self._serving.get(root)

    def _above(self, path: str, recursive: bool) -> Watch | None:
        own = self._watches.get(path)
        if own is not None and (own.recursive or not recursive):
            return own
        for above in paths.ancestors(path):
            watch = self._watches.get(above)
            if watch is not None and watch.recursive:
                return watch
        return None

    def _add(self, watch: Watch, attempt: int = 0) -> asyncio.Future[Reply[None]]:
        self._removing.discard(watch.path)
        epoch = self._session.epoch
        adding = self._session.call(AddWatch(watch.path, watch.recursive))
        adding.add_done_callback(lambda done: self._added(watch, epoch, attempt, done))
        return adding

    def _added(self, watch: Watch, epoch: int, attempt: int, done: asyncio.Future[Reply[None]]) -> None:
        # Looked at in any case, lest asyncio report it as overlooked.
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if self._watches.get(watch.path) is not watch:
            return
        if error is None:
            watch.epoch = epoch
            if not watch.in_place.done():
                watch.in_place.set_result(None)
            if watch.recursive:
                self._subsume(watch)
        elif is_passing(error):
            self._later(attempt, lambda: self._add_again(watch, attempt + 1))
        elif isinstance(error, ZksideError) and not watch.in_place.done():
            watch.in_place.set_exception(error)

    def _add_again(self, watch: Watch, attempt: int) -> None:
        if self._watches.get(watch.path) is watch and not self.is_in_place(watch):
            self._add(watch, attempt)

    def _later(self, attempt: int, act: Callable[[], object]) -> None:
        """Do it again in a while if there is a connection, as no event would say when. Without one `synchronise` does
        it on the next."""
        if not self._session.status.state.is_connected:
            return

        def due() -> None:
            del self._again[timer]
            act()

        delay_s = BACKOFF.delay_s(attempt, random.random())
        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._again[timer] = None

    def _subsume(self, watch: Watch) -> None:
        """Move the roots of the watches below onto this one, which is set, and remove those."""
        for below in [w for w in self._watches.values() if w is not watch and paths.is_within(w.path, watch.path)]:
            for root in below.roots:
                watch.roots.add(root)
                self._serving[root] = watch
            below.roots.clear()
            if not below.in_place.done():
                below.in_place.set_result(None)
            self._remove(below)

    def _remove(self, watch: Watch) -> None:
        del self._watches[watch.path]
        self._send_removal(watch.path)

    def _send_removal(self, path: str, attempt: int = 0) -> None:
        self._removing.add(path)
        removing = self._session.call(RemoveWatch(path))
        removing.add_done_callback(lambda done: self._removed(path, attempt, done))

    def _removed(self, path: str, attempt: int, done: asyncio.Future[Reply[None]]) -> None:
        if done.cancelled():
            return
        if not is_passing(done.exception()):
            self._removing.discard(path)
        elif path in self._removing:
            self._later(attempt, lambda: self._remove_again(path, attempt + 1))

    def _remove_again(self, path: str, attempt: int) -> None:
        if path in self._removing:
            self._send_removal(path, attempt)


def _copy(source: asyncio.Future[None], target: asyncio.Future[None]) -> None:
    if target.done():
        return
    if source.cancelled():
        target.cancel()
    elif source.exception() is not None:
        target.set_exception(source.exception())  # type: ignore[arg-type]
    else:
        target.set_result(None)

"""The one reader: turns announcements into published cuts.

An event announces a path; the reader reads it. While one multiRead is under way the paths announced meanwhile
gather into the next. What a reply shows is published only as far as it is a consistent cut (core/cut.py);
the rest is read again together with what came meanwhile, so a batch grows until it is closed.

Invariant: the node table is at every moment one consistent cut of ZooKeeper, and `unsettled` holds every
covered path that may differ from it, but for those of `unreadable`, whose roots are stale.

Whatever a read fails with, there is a next attempt: see hub/asking.py for the policy. A batch that is too large is read
in smaller ones; one node that cannot be read at all goes to `unreadable`, so that it holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from zkside import log
from zkside.core.cut import publishable_up_to
from zkside.core.diff import made_by
from zkside.errors import NoAuth, OutcomeUnknown, TooLarge, ZksideError
from zkside.hub.asking import MOST_UNKNOWN, PASSING, is_unreadable, limit_of, pause
from zkside.hub.roots import Roots
from zkside.hub.table import NodeTable
from zkside.model import path as paths
from zkside.model import record as records
from zkside.model.operation import GetData, ReadMany, ReadResult
from zkside.model.record import UNREADABLE, Record
from zkside.zk.session import Session

LARGEST_BATCH = 4000
REQUEST_BYTES = 512 * 1024
REPLY_BYTES = 8 * 1024 * 1024
# Rounds without anything to publish after which a batch is published as it is. Only a set of paths that is
# rewritten faster than it can be read, and too large for one batch, gets there.
MOST_FUTILE_ROUNDS = 16


class Announced(NamedTuple):
    """A path that may have changed."""

    since: int
    """The earliest transaction that may have changed it since it was published."""
    newest: int
    """A lower bound of the last transaction that changed it. An event before a reply at R has newest <= R, one
    behind it newest > R: so a read at R has seen all that was announced if newest <= R."""
    zxid: int = 0
    """The transaction of the last event; 0 where the server does not tell."""

    def merge(self, later: Announced) -> Announced:
        return Announced(min(self.since, later.since), max(self.newest, later.newest), max(self.zxid, later.zxid))


class Settled(NamedTuple):
    """A path's new state, as it goes out."""

    zxid: int
    path: str
    old: Record | None
    new: Record | None
    compared: bool
    """Found by comparing after an outage, not announced by an event."""
    hidden: bool = False
    """An ACL hid it until now: all up to its zxid may have been declared told before."""


class Unreadable(NamedTuple):
    """A path that could not be read."""

    announced: Announced
    error: ZksideError


Publish = Callable[[int, list[Settled]], None]
"""Takes a cut: its zxid, and what it changes, sorted by zxid. The table has been changed already."""


class Reader:
    """Reads what was announced, in one round after the other."""

    def __init__(
        self,
        session: Session,
        table: NodeTable,
        roots: Roots,
        publish: Publish,
        on_readable: Callable[[str, bool], None] = lambda path, readable: None,
    ) -> None:
        """`on_readable` is called with False when a path joins `unreadable`, and with True when it has been read."""
        self._session = session
        self._table = table
        self._roots = roots
        self._publish = publish
        self._on_readable = on_readable
        self.unsettled: dict[str, Announced] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.answered = 0
        """Attempts that brought something new: an answer, or an error that says of which path. The measure of
        progress."""
        self.torn = False
        """A cut was being published when the task died: who has heard what of it is not known."""
        self._retried: set[str] = set()
        """Of the unsettled: they were unreadable before."""
        self._most = LARGEST_BATCH
        self._reply_bytes = REPLY_BYTES
        self._compared: dict[str, Record | None] = {}
        self._reading: set[str] = set()
        self._again: dict[str, Announced] = {}
        self._work = asyncio.Event()
        self._cut = 0
        self._paused = True
        self._futile = 0
        self.rounds = self.forced = 0

    @property
    def is_paused(self) -> bool:
        """Whether all waits for the roots to be compared."""
        return self._paused

    @property
    def settled_zxid(self) -> int:
        """Every transaction up to here is in the table, as far as it is covered."""
        if self._paused or self.unsettled:
            return self._cut
        return max(self._cut, self._session.last_zxid)

    def announce(self, path: str, announced: Announced) -> None:
        """A covered path may have changed."""
        if path in self._reading:
            former = self._again.get(path)
            self._again[path] = announced if former is None else former.merge(announced)
            return
        failed = self.unreadable.pop(path, None)
        if failed is not None:
            # All up to `settled_zxid` has been declared told without it: that is not taken back.
            announced = failed.announced.merge(announced)._replace(since=self.settled_zxid + 1)
            self._retried.add(path)
        if not self.unsettled:
            self._cut = max(self._cut, min(self.settled_zxid, announced.since - 1))
        former = self.unsettled.get(path)
        self.unsettled[path] = announced if former is None else former.merge(announced)
        if self._compared:
            self._compared.pop(path, None)
        self._work.set()

    def doubt(self, path: str) -> None:
        """Read a covered path again that may differ from ZooKeeper although no event has told it, or will."""
        if path not in self.unsettled and path not in self._reading:
            settled = self.settled_zxid
            self.announce(path, Announced(settled + 1, settled))

    def compared(self, path: str, record: Record | None, since: int) -> None:
        """A state found by comparing after an outage; published with the next cut unless an event is newer."""
        if path not in self.unsettled and path not in self._reading:
            self.unsettled[path] = Announced(since, since)
            self._compared[path] = record

    def fail(self, path: str, announced: Announced, error: ZksideError) -> None:
        """Put a path aside that cannot be read now, and make its roots stale. It is read again when it is announced
        again, or by `try_unreadable`."""
        former = self.unreadable.get(path)
        if former is None and path not in self._retried:
            log.cache_read_failed(path=path, reason=str(error))
        self._retried.discard(path)
        self.unreadable[path] = Unreadable(announced if former is None else former.announced.merge(announced), error)
        self._on_readable(path, False)

    def try_unreadable(self) -> None:
        """Read once more what could not be read."""
        for path, failed in list(self.unreadable.items()):
            self.announce(path, failed.announced)

    def read_elsewhere(self, path: str) -> None:
        """Take back a path that could not be read, and was compared by somebody else."""
        if self.unreadable.pop(path, None) is not None:
            log.cache_read_again(path=path)
            self._on_readable(path, True)

    def forget(self, path: str) -> None:
        """The path is no longer covered."""
        self.unsettled.pop(path, None)
        self._compared.pop(path, None)
        self._again.pop(path, None)
        self._retried.discard(path)
        self.unreadable.pop(path, None)

    def recover(self) -> None:
        """Announce again what was under way when the task died, wherever it was."""
        self._reading = set()
        self._futile = 0
        self._announce_again()
        self._work.set()

    def pause(self) -> None:
        """The connection is gone: the table stays as it is until `resume`."""
        self._cut = self.settled_zxid
        self._paused = True
        self._compared.clear()

    def begin_history(self) -> None:
        """Announce all again, as no zxid of before means anything any more. Only while paused."""
        self._cut = 0
        self._compared.clear()
        self._again.clear()
        self.unsettled = dict.fromkeys(self.unsettled, Announced(1, 1))
        self.unreadable = {path: failed._replace(announced=Announced(1, 1)) for path, failed in self.unreadable.items()}

    def resume(self) -> None:
        """All roots have been compared with ZooKeeper again."""
        self._paused = False
        self._work.set()

    async def run(self) -> None:
        """Read for ever; a permanent task of the hub."""
        attempt = 0
        while True:
            await self._work.wait()
            self._work.clear()
            while self.unsettled and not self._paused:
                batch = self._next_batch()
                try:
                    read_at, results = await self._read(batch)
                except ZksideError as error:
                    if isinstance(error, PASSING) or (isinstance(error, OutcomeUnknown) and attempt < MOST_UNKNOWN):
                        # Without a connection the reader is paused by now, and this ends with it.
                        await pause(attempt)
                        attempt += 1
                    else:
                        self._refused(batch, error)
                else:
                    attempt = 0
                    self._take(batch, read_at, results)

    async def _read(self, batch: list[str]) -> tuple[int, list[ReadResult]]:
        """Returns a reply's zxid and its results. What is announced meanwhile is in `_again` until it is taken."""
        if not batch:
            return self._session.last_zxid, []
        self._reading = set(batch)
        try:
            return await self._session.call(ReadMany(tuple(map(GetData, batch))))
        except BaseException:
            self._reading = set()
            self._announce_again()
            raise

    def _take(self, batch: list[str], read_at: int, results: list[ReadResult]) -> None:
        """Take the results in, as one atomic section."""
        self._reading = set()
        self.rounds += 1
        self.answered += 1
        self._batch_taken(len(batch), sum(len(result) for result in results if isinstance(result, bytes)))
        if self._paused:
            self._announce_again()
            return
        self.torn = True
        again, self._again = self._again, {}
        read: dict[str, Record | None] = {}
        for path, result in zip(batch, results, strict=True):
            if isinstance(result, bytes):
                read[path] = result
            elif is_unreadable(result):
                if (announced := self.unsettled.pop(path, None)) is not None:
                    self.fail(path, announced.merge(again.pop(path, announced)), result)
            else:
                # The server looks for the node before it looks at its ACL, so one that it refuses is there.
                read[path] = UNREADABLE if isinstance(result, NoAuth) else None
        self._settle(read_at, read, again)
        self.torn = False

    def _announce_again(self) -> None:
        again, self._again = self._again, {}
        for path, announced in again.items():
            self.announce(path, announced)

    def _refused(self, batch: list[str], error: ZksideError) -> None:
        """Halve the next batch, as this one failed as a whole; if it was one node, put that aside."""
        if isinstance(error, TooLarge) and (limit := limit_of(error)):
            self._reply_bytes = min(REPLY_BYTES, limit)
        if len(batch) > 1:
            self._most = len(batch) // 2
        elif batch[0] in self.unsettled:
            self.answered += 1
            self.fail(batch[0], self.unsettled.pop(batch[0]), error)

    def _batch_taken(self, size: int, reply_bytes: int) -> None:
        """Let batches grow again as long as one twice as large would be answered too."""
        if size >= self._most and 2 * reply_bytes <= self._reply_bytes:
            self._most = min(LARGEST_BATCH, 2 * self._most)

    def _next_batch(self) -> list[str]:
        batch: list[str] = []
        request_bytes = reply_bytes = 0
        known = self._table.records
        for path in self.unsettled:
            if path in self._compared:
                continue
            batch.append(path)
            request_bytes += 16 + 4 * len(path)
            reply_bytes += len(known.get(path) or b"") + 100
            if len(batch) >= self._most or request_bytes > REQUEST_BYTES or reply_bytes > self._reply_bytes:
                break
        return batch

    def _settle(self, read_at: int, read: dict[str, Record | None], again: dict[str, Announced]) -> None:
        """Publish what the reply allows. One atomic section."""
        unsettled, compared, table = self.unsettled, self._compared, self._table
        states = {**compared, **read} if compared else read
        outside = min((a.since for path, a in unsettled.items() if path not in states), default=None)
        changes: list[Settled] = []
        for path, new in states.items():
            announced = unsettled.get(path)
            if announced is None:  # forgotten meanwhile
                continue
            old = table.records.get(path)
            if _same(old, new):
                if new and new != old:  # an ACL change: no event tells, the Stat shows it
                    table.put(path, new)
                elif new is None and self._roots.is_root(path):
                    table.put(path, None)  # its absence is worth remembering
                self._done(path, read_at, again)
                continue
            zxid = made_by(old, new) if new is not None else self._deleted_at(path, announced, read_at, states)
            hidden = zxid <= self._cut or new == UNREADABLE
            if hidden:
                zxid = read_at
            changes.append(Settled(zxid, path, old, new, path in compared, hidden))
        bound = publishable_up_to(read_at, ((unsettled[c.path].since, c.zxid) for c in changes), outside)
        self._futile = self._futile + 1 if changes and all(c.zxid > bound for c in changes) else 0
        if self._futile >= MOST_FUTILE_ROUNDS:
            self.forced += 1
            bound = read_at
        cut = [change for change in changes if change.zxid <= bound]
        cut.sort()
        for change in cut:
            is_kept = self._roots.is_root if change.new is None else self._roots.is_covered
            if is_kept(change.path):
                table.put(change.path, change.new)
            else:
                table.forget(change.path)
            self._done(change.path, read_at, again)
        for path, announced in again.items():
            if path in unsettled:
                unsettled[path] = unsettled[path].merge(announced)
        if bound > self._cut:
            self._cut = bound
        # Called for an empty cut too: that all up to here is settled is news.
        self._publish(self._cut, cut)

    def _done(self, path: str, read_at: int, again: dict[str, Announced]) -> None:
        """A path's state is in the table, as of read_at: what was announced later stays announced."""
        del self.unsettled[path]
        if path in self._retried:
            self._retried.discard(path)
            log.cache_read_again(path=path)
            self._on_readable(path, True)
        self._compared.pop(path, None)
        later = again.pop(path, None)
        if later is not None and later.newest > read_at:
            self.unsettled[path] = Announced(read_at + 1, later.newest, later.zxid)

    def _deleted_at(self, path: str, announced: Announced, read_at: int, states: dict[str, Record | None]) -> int:
        """The transaction that deleted a node, or the best upper bound: ZooKeeper keeps it nowhere."""
        if announced.zxid:
            return min(announced.zxid, read_at)
        parent = states.get(paths.parent(path))
        if parent:  # there, and readable
            pzxid = records.zxids(parent)[2]
            if pzxid >= announced.since:
                return pzxid
        return read_at


def _same(old: Record | None, new: Record | None) -> bool:
    if not old or not new:
        return old == new
    return records.are_same(old, new)

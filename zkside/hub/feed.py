"""Feeds: what the subscribers of one target share.

A feed keeps one conflating log: path → its latest change, in order of time. A subscriber is a cursor into it:
what it has not seen is the tail behind its cursor, already conflated. So a subscriber that does not read
costs nothing, delays nobody, and is bounded by what it watches; and what is sent to many is made (and
encoded) once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from zkside.errors import Unavailable
from zkside.hub.reader import Settled
from zkside.hub.table import NodeTable
from zkside.model import record as records
from zkside.model.record import UNREADABLE, Record
from zkside.model.watch import Change, ChangeType, Target

SNAPSHOT_CHUNK_BYTES = 512 * 1024
# Nodes copied for a snapshot between two turns of the event loop.
SNAPSHOT_SLICE = 5000
# Cuts kept for subscribers that stand at the same cursor, with their encoded form.
CUTS_KEPT = 8
# Incarnations remembered for a path that is deleted and created again and again inside the window.
MOST_INCARNATIONS = 8
_ABSENT, _HIDDEN = 0, -1


@dataclass(eq=False, slots=True)
class Cut:
    """What a subscriber at one cursor has not seen up to another. `changes` are sorted by zxid."""

    zxid: int
    changes: list[Change]
    epoch_id: str = ""
    """The history of its zxids, as the hub names it."""
    encoded: dict[int, Iterable[bytes]] = field(default_factory=dict)
    """A place for the encoded form, by index of the target, so that all streams send the same bytes."""


@dataclass(eq=False, slots=True)
class Image:
    """The state of a target at one cut, in chunks."""

    sequence: int
    zxid: int
    chunks: list[list[tuple[str, Record]]]
    epoch_id: str = ""
    """The history of its zxids, as the hub names it."""
    encoded: dict[object, bytes] = field(default_factory=dict)
    """A place for the encoded chunks."""


class _Entry(NamedTuple):
    sequence: int
    zxid: int
    record: Record | None
    incarnations: tuple[tuple[int, int], ...]
    """(sequence, czxid, or _ABSENT, or _HIDDEN if it could not be read), oldest first; the first says what was before
    the log began."""


class Feed:
    """One target's log, its subscribers' wake-up calls, and its snapshots."""

    def __init__(
        self, target: Target, table: NodeTable, settled: Callable[[], int], window_size: int, epoch_id: str = ""
    ) -> None:
        self.target = target
        self.epoch_id = epoch_id
        """Names the history to which its zxids belong."""
        self.history_floor = 0
        """Cursors before this are of another history."""
        self.ended_at: int | None = None
        """Where the history ended from which the table is being brought to the next; until then nothing of it is told.
        None while there is but one."""
        self.wakes: dict[Callable[[], None], None] = {}
        """Called in the order in which the subscribers came, never in a set's: streams of one connection mostly
        came together, and what they are sent in one go leaves in one packet (a third of the clients' work)."""
        self.sequence = 0
        """Number of the newest cut."""
        self.floor = 0
        """Cursors before this have lost changes."""
        self.floor_zxid = settled()
        """Points before this have lost changes: the history begins here."""
        self.conflated = 0
        self._table = table
        self._settled = settled
        self._window_size = window_size
        self._log: dict[str, _Entry] = {}
        self._cut_zxids: OrderedDict[int, int] = OrderedDict()  # zxid → sequence, of the cuts in the window
        self._cuts: OrderedDict[int, Cut] = OrderedDict()  # cursor → cut up to `sequence`
        self._image: Image | None = None
        self._imaging: asyncio.Task[Image] | None = None
        self._is_closed = False

    def append(self, zxid: int, changes: list[Settled]) -> None:
        """Add a cut (of changes that match the target), and wake the subscribers."""
        if self.ended_at is not None:
            return  # all that was known is told anew
        self.sequence += 1
        log = self._log
        for change in changes:
            former = log.pop(change.path, None)
            was, now = _incarnation(change.old), _incarnation(change.new)
            incarnations = former.incarnations if former is not None else ((0, was),)
            if former is not None:
                self.conflated += 1
            if now != incarnations[-1][1]:
                incarnations = (*incarnations, (self.sequence, now))
                if len(incarnations) > MOST_INCARNATIONS:
                    self._raise_floor(incarnations[1][0], zxid)
                    incarnations = incarnations[1:]
            log[change.path] = _Entry(self.sequence, change.zxid, change.new, incarnations)
            if change.hidden:  # somebody may have seen all up to this zxid, but not this
                self._raise_floor(self.floor, zxid + 1)
        self._cut_zxids[zxid] = self.sequence
        while len(log) > self._window_size:
            path = next(iter(log))
            self._raise_floor(log.pop(path).sequence, zxid)
        while len(self._cut_zxids) > self._window_size:
            floor_zxid, sequence = self._cut_zxids.popitem(last=False)
            self._raise_floor(sequence, floor_zxid)
        self._cuts.clear()
        for wake in self.wakes:
            wake()

    def begin_history(self, epoch_id: str) -> None:
        """From now on zxids are those of another history, of which every subscriber gets a snapshot."""
        self.epoch_id, self.ended_at = epoch_id, None
        self.sequence += 1
        self.floor = self.history_floor = self.sequence
        self.floor_zxid = self._settled()
        self._log.clear()
        self._cut_zxids.clear()
        self._cuts.clear()
        self._image = None
        for wake in self.wakes:
            wake()

    def begin_anew(self) -> None:
        """A cut may have been published by half: whoever subscribes gets a snapshot, and nobody resumes before it."""
        self.sequence += 1
        self._log.clear()
        self._cuts.clear()
        self._cut_zxids.clear()
        self._image = None
        self._raise_floor(self.sequence, self._settled())
        for wake in self.wakes:
            wake()

    def resume_at(self, zxid: int) -> int | None:
        """The cursor of a subscriber that has seen all up to this zxid; None if it lies outside the window."""
        if not self.floor_zxid <= zxid <= self._settled():
            return None
        cursor = self.floor
        for cut_zxid, sequence in reversed(self._cut_zxids.items()):
            if cut_zxid <= zxid:
                cursor = sequence
                break
        return cursor

    def since(self, cursor: int) -> Cut:
        """What follows a cursor, up to the newest cut. The cursor must not be before `floor`."""
        cut = self._cuts.get(cursor)
        if cut is None:
            cut = self._cuts[cursor] = Cut(self._settled(), self._changes_since(cursor), self.epoch_id)
            if len(self._cuts) > CUTS_KEPT:
                self._cuts.popitem(last=False)
        return cut

    def pending(self, cursor: int) -> int:
        """How many paths wait for a subscriber at this cursor."""
        count = 0
        for entry in reversed(self._log.values()):
            if entry.sequence <= cursor:
                break
            count += 1
        return count

    async def image(self) -> Image:
        """The present state, as of one cut. Made once for all who ask at the same time."""
        while True:
            if self._image is not None and self._image.sequence == self.sequence:
                return self._image
            if self._imaging is None:
                self._imaging = asyncio.get_running_loop().create_task(self._make_image(), name="zkside-image")
                self._imaging.add_done_callback(self._imaged)
            imaging = self._imaging
            await asyncio.wait([imaging])
            if not imaging.cancelled():
                return imaging.result()
            if self._is_closed:
                raise Unavailable(f"{self.target.path} is not watched any more")
            # Cancelled by somebody else: whoever waits has not been, and wants it all the same.

    def close(self) -> None:
        """Nobody needs the feed any more."""
        self._is_closed = True
        if self._imaging is not None:
            self._imaging.cancel()

    def _imaged(self, task: asyncio.Task[Image]) -> None:
        self._imaging = None

    async def _make_image(self) -> Image:
        target = self.target
        while True:
            begun = self.sequence
            nodes: dict[str, Record] = {}
            for path, record in self._table.walk(target.path, target.scope.value):
                nodes[path] = record
                if len(nodes) % SNAPSHOT_SLICE == 0:
                    await asyncio.sleep(0)
            if begun >= self.floor:
                # What changed while the copy was made is in the log: with it the copy is as of now.
                for path, entry in self._tail(begun):
                    if entry.record is None:
                        nodes.pop(path, None)
                    else:
                        nodes[path] = entry.record
                sequence, zxid, epoch_id = self.sequence, self._settled(), self.epoch_id
                chunks = []
                for chunk in _chunks(nodes, target.with_data):
                    chunks.append(chunk)
                    await asyncio.sleep(0)
                image = Image(sequence, zxid, chunks, epoch_id)
                self._image = image if len(nodes) <= SNAPSHOT_SLICE else None
                return image

    def _tail(self, cursor: int) -> list[tuple[str, _Entry]]:
        tail = []
        for path in reversed(self._log):
            entry = self._log[path]
            if entry.sequence <= cursor:
                break
            tail.append((path, entry))
        tail.reverse()
        return tail

    def _changes_since(self, cursor: int) -> list[Change]:
        changes = []
        for path, entry in self._tail(cursor):
            before = _ABSENT
            for sequence, czxid in entry.incarnations:
                if sequence > cursor:
                    break
                before = czxid
            record = entry.record
            if record is None:
                if before == _ABSENT:
                    continue  # came and went between
                kind = ChangeType.DELETED
            elif record == UNREADABLE:
                if before == _HIDDEN:
                    continue  # it could be read for a moment between
                kind = ChangeType.UNREADABLE
            elif before == _ABSENT:
                kind = ChangeType.CREATED
            elif before == _HIDDEN:
                kind = ChangeType.CHANGED
            elif before != entry.incarnations[-1][1]:
                kind = ChangeType.RECREATED
            else:
                kind = ChangeType.CHANGED
            changes.append(Change(kind, entry.zxid, path, record))
        changes.sort(key=lambda change: change.zxid)
        return changes

    def _raise_floor(self, sequence: int, zxid: int) -> None:
        self.floor = max(self.floor, sequence)
        self.floor_zxid = max(self.floor_zxid, zxid)


def _incarnation(record: Record | None) -> int:
    if record is None:
        return _ABSENT
    return _HIDDEN if record == UNREADABLE else records.zxids(record)[0]


def _chunks(nodes: dict[str, Record], with_data: bool) -> Iterator[list[tuple[str, Record]]]:
    """At least one chunk, each of about SNAPSHOT_CHUNK_BYTES."""
    chunk: list[tuple[str, Record]] = []
    size = 0
    for path, record in nodes.items():
        size += len(path) + (len(record) if with_data else 68) + 40
        if chunk and size > SNAPSHOT_CHUNK_BYTES:
            yield chunk
            chunk, size = [], len(path) + len(record)
        chunk.append((path, record))
    yield chunk

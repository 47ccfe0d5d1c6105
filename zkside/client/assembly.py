"""From the messages of a stream to complete cuts, and the state that they add up to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType

from zkside.client.event import (
    Bookmark,
    Change,
    Changes,
    ChangeType,
    SessionChanged,
    Snapshot,
    SnapshotReason,
    Target,
    WatchEvent,
)
from zkside.client.value import Header, Node, header_of, node_of, session_of
from zkside.pb import watch_pb2

_CHANGE_TYPES = {kind.value: kind for kind in ChangeType}
_WITHOUT_NODE = (ChangeType.DELETED, ChangeType.UNREADABLE)


class Assembly:
    """One subscription's state, over any number of streams.

    Invariants: `nodes` changes only by complete cuts; `resume_point` never claims a cut that `nodes` lacks.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = tuple(targets)
        self.nodes: list[dict[str, Node]] = [{} for _ in self.targets]
        """By target, then by path. A Snapshot puts a new dict in place, Changes change it."""
        self.unreadable: list[set[str]] = [set() for _ in self.targets]
        """Paths that exist and may not be read, as `nodes`."""
        self.header = Header("", 0, 0, True, 0.0)
        """Of the newest message."""
        self._points: list[tuple[str, int] | None] = [None for _ in self.targets]
        # What of a target has been handed out already when a stream resumes at an older point of others.
        self._floors = [0 for _ in self.targets]
        self._chunks: dict[int, tuple[dict[str, Node], set[str]]] = {}
        self._cut: list[Change] = []

    def has_state(self, target: int) -> bool:
        """Whether this target's Snapshot is complete."""
        return self._points[target] is not None

    def snapshot(self, target: int, reason: SnapshotReason) -> Snapshot:
        """The target's present state."""
        nodes, unreadable = MappingProxyType(dict(self.nodes[target])), frozenset(self.unreadable[target])
        return Snapshot(self.header, self.targets[target], reason, nodes, unreadable)

    def restart(self) -> watch_pb2.Resume | None:
        """Forget the parts of a broken stream; where the next one is to resume, if that is known."""
        self._chunks.clear()
        self._cut.clear()
        points = [point for point in self._points if point is not None]
        if len(points) < len(self._points) or len({epoch_id for epoch_id, _ in points}) != 1:
            return None
        self._floors = [zxid for _, zxid in points]
        return watch_pb2.Resume(epoch_id=points[0][0], zxid=min(self._floors))

    def feed(self, message: watch_pb2.WatchResponse) -> WatchEvent | None:
        """Take in one message; the event that it completes, or None if more of it is to come."""
        self.header = header = header_of(message.header)
        kind = message.WhichOneof("message")
        if kind == "changes":
            return self._feed_changes(message, header)
        if kind == "snapshot":
            return self._feed_snapshot(message, header)
        if kind == "session":
            return SessionChanged(header, session_of(message.session.session))
        if kind == "bookmark":
            self._advance(message.epoch_id, header.zxid)
            return Bookmark(header)
        return None

    def _feed_snapshot(self, message: watch_pb2.WatchResponse, header: Header) -> Snapshot | None:
        part = message.snapshot
        target = part.target
        nodes, unreadable = self._chunks.setdefault(target, ({}, set()))
        for node in part.nodes:
            nodes[node.path] = node_of(node)
        unreadable.update(part.unreadable)
        if part.more:
            return None
        del self._chunks[target]
        self.nodes[target], self.unreadable[target] = nodes, unreadable
        self._points[target] = (message.epoch_id, header.zxid)
        self._floors[target] = header.zxid
        return self.snapshot(target, SnapshotReason(part.reason))

    def _feed_changes(self, message: watch_pb2.WatchResponse, header: Header) -> Changes | None:
        targets, floors = self.targets, self._floors
        for change in message.changes.changes:
            target = change.target
            if change.zxid <= floors[target] and floors[target] > min(floors):
                continue
            kind = _CHANGE_TYPES.get(change.type, ChangeType.UNSPECIFIED)
            node = None if kind in _WITHOUT_NODE else node_of(change.node)
            self._cut.append(Change(targets[target], kind, change.zxid, change.node.path, node))
            # Applied only when the cut is complete.
        if message.changes.more:
            return None
        cut, self._cut = self._cut, []
        for change_value in cut:
            index = self._index(change_value.target)
            apply(self.nodes[index], change_value)
            if change_value.type is ChangeType.UNREADABLE:
                self.unreadable[index].add(change_value.path)
            elif self.unreadable[index]:
                self.unreadable[index].discard(change_value.path)
        self._advance(message.epoch_id, header.zxid)
        return Changes(header, tuple(cut)) if cut else None

    def _index(self, target: Target) -> int:
        return 0 if len(self.targets) == 1 else self.targets.index(target)

    def _advance(self, epoch_id: str, zxid: int) -> None:
        for target, point in enumerate(self._points):
            if point is not None and point[0] == epoch_id:
                self._points[target] = (epoch_id, max(zxid, point[1]))


def apply(nodes: dict[str, Node], change: Change) -> None:
    """Bring a state forward by one change."""
    if change.node is None:
        nodes.pop(change.path, None)
    else:
        nodes[change.path] = change.node


def diff(
    target: Target,
    before: Mapping[str, Node],
    after: Mapping[str, Node],
    zxid: int,
    *,
    unreadable_before: Set[str] = frozenset(),
    unreadable: Set[str] = frozenset(),
) -> tuple[Change, ...]:
    """The changes that lead from one state to the other, sorted by zxid; `zxid` stands for what no Stat tells.

    Identity is czxid, data is mzxid: versions alone would miss a node that was created anew (W7).
    """
    found: list[Change] = []
    for path, node in after.items():
        known = before.get(path)
        if path in unreadable_before:
            found.append(Change(target, ChangeType.CHANGED, zxid, path, node))
        elif known is None:
            found.append(Change(target, ChangeType.CREATED, node.stat.czxid, path, node))
        elif known.encoded_stat != node.encoded_stat:
            old, new = known.stat, node.stat
            if old.czxid != new.czxid:
                found.append(Change(target, ChangeType.RECREATED, new.mzxid, path, node))
            elif old.mzxid != new.mzxid:
                found.append(Change(target, ChangeType.CHANGED, new.mzxid, path, node))
            elif (old.ctime, old.mtime) != (new.ctime, new.mtime):  # the same zxids in another history
                found.append(Change(target, ChangeType.RECREATED, new.mzxid, path, node))
    hidden = unreadable - unreadable_before
    gone = [path for path in (*before, *unreadable_before) if path not in after and path not in unreadable]
    found.extend(Change(target, ChangeType.UNREADABLE, zxid, path, None) for path in hidden)
    found.extend(Change(target, ChangeType.DELETED, zxid, path, None) for path in gone)
    found.sort(key=_by_zxid)
    return tuple(found)


def _by_zxid(change: Change) -> int:
    return change.zxid

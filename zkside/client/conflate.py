"""What a slow subscriber has not taken yet, merged: bounded by the size of what it watches. Pure."""

from __future__ import annotations

from collections.abc import Callable

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
from zkside.client.value import Header

_CREATED, _CHANGED = ChangeType.CREATED, ChangeType.CHANGED
_DELETED, _RECREATED = ChangeType.DELETED, ChangeType.RECREATED
_UNREADABLE = ChangeType.UNREADABLE

MERGED: dict[tuple[ChangeType, ChangeType], ChangeType | None] = {
    (_CREATED, _CHANGED): _CREATED,
    (_CREATED, _DELETED): None,
    (_CREATED, _RECREATED): _CREATED,
    (_CHANGED, _CHANGED): _CHANGED,
    (_CHANGED, _DELETED): _DELETED,
    (_CHANGED, _RECREATED): _RECREATED,
    (_DELETED, _CREATED): _RECREATED,
    (_RECREATED, _CHANGED): _RECREATED,
    (_RECREATED, _DELETED): _DELETED,
    (_RECREATED, _RECREATED): _RECREATED,
    (_CREATED, _UNREADABLE): _UNREADABLE,
    (_CHANGED, _UNREADABLE): _UNREADABLE,
    (_DELETED, _UNREADABLE): _UNREADABLE,
    (_RECREATED, _UNREADABLE): _UNREADABLE,
    (_UNREADABLE, _UNREADABLE): _UNREADABLE,
    (_UNREADABLE, _CHANGED): _CHANGED,
    (_UNREADABLE, _DELETED): _DELETED,
    (_UNREADABLE, _RECREATED): _RECREATED,
}
"""What two changes of one path, the older first, are together; None: nothing happened. Pairs that cannot
follow one another (CHANGED after DELETED) are not in it: the newer one stands."""


def merge(older: Change, newer: Change) -> Change | None:
    """One change for two of the same path: the newest state, and what led there from the oldest."""
    pair = (older.type, newer.type)
    kind = MERGED.get(pair, newer.type)
    return None if kind is None else newer._replace(type=kind)


class Backlog:
    """Events that wait for their subscriber.

    Taken in this order: Changes, Snapshots, SessionChanged, Bookmark; of the last two the newest only. A
    Snapshot is made when it is taken, of the state at that time, and swallows the changes before it.
    """

    __slots__ = ("_bookmark", "_changes", "_header", "_session", "_snapshots")

    def __init__(self) -> None:
        self._snapshots: dict[Target, SnapshotReason] = {}
        self._changes: dict[tuple[Target, str], Change] = {}
        self._header: Header | None = None
        self._session: SessionChanged | None = None
        self._bookmark: Bookmark | None = None

    def __len__(self) -> int:
        return len(self._changes) + len(self._snapshots) + (self._session is not None) + (self._bookmark is not None)

    def want_snapshot(self, target: Target, reason: SnapshotReason) -> None:
        self._snapshots[target] = reason
        for key in [key for key in self._changes if key[0] == target]:
            del self._changes[key]

    def add(self, event: WatchEvent) -> None:
        if isinstance(event, Changes):
            self._header, self._bookmark = event.header, None
            for change in event.changes:
                if change.target in self._snapshots:
                    continue
                key = (change.target, change.path)
                older = self._changes.pop(key, None)
                merged = change if older is None else merge(older, change)
                if merged is not None:
                    self._changes[key] = merged
        elif isinstance(event, Snapshot):
            # The reason for which the first of several was due is the one that tells what was missed.
            self.want_snapshot(event.target, self._snapshots.get(event.target, event.reason))
            self._bookmark = None
        elif isinstance(event, SessionChanged):
            self._session = event
        else:
            self._bookmark = event

    def take(self, snapshot: Callable[[Target, SnapshotReason], Snapshot]) -> WatchEvent | None:
        """The next event, or None when none waits."""
        if self._changes and self._header is not None:
            changes, self._changes = self._changes, {}
            return Changes(self._header, tuple(sorted(changes.values(), key=lambda change: change.zxid)))
        if self._snapshots:
            target, reason = next(iter(self._snapshots.items()))
            del self._snapshots[target]
            return snapshot(target, reason)
        if self._session is not None:
            session, self._session = self._session, None
            return session
        bookmark, self._bookmark = self._bookmark, None
        return bookmark

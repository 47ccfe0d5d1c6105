"""The node table: what is cached, as one flat map.

Holds published state only: at any moment it is one consistent cut of ZooKeeper (see hub/reader.py). A node that
exists and may not be read is in it as UNREADABLE: it is no absent one (docs/adr/0020).
"""

from __future__ import annotations

from collections.abc import Iterator

from zkside.model import path as paths
from zkside.model.record import UNREADABLE, Record


class NodeTable:
    """path → record, or → UNREADABLE, or → None for a path that is known to be absent."""

    def __init__(self) -> None:
        self.records: dict[str, Record | None] = {}
        self.bytes = 0
        # Names of the existing cached nodes below each path. Complete only where a root covers the children.
        self._children: dict[str, set[str]] = {}
        self._sorted: dict[str, list[str]] = {}
        self.unlisted: set[str] = set()
        """Nodes that may be read again: which children came while they could not is not known until they are listed."""

    def put(self, path: str, record: Record | None) -> Record | None:
        """Set a path's state; returns the state before (None also when it was unknown)."""
        old = self.records.get(path)
        self.records[path] = record
        if old is not None:
            self.bytes -= len(old)
        if record is not None:
            self.bytes += len(record)
        if record and old == UNREADABLE:
            self.unlisted.add(path)
        elif not record:
            self.unlisted.discard(path)
        if (old is None) != (record is None):
            self._link(path, record is not None)
        return old

    def forget(self, path: str) -> None:
        """Drop what is known of a path."""
        old = self.records.pop(path, None)
        self.unlisted.discard(path)
        if old is not None:
            self.bytes -= len(old)
            self._link(path, False)

    def children(self, path: str) -> list[str]:
        """Names of the cached nodes directly below, sorted. Do not change the list."""
        names = self._sorted.get(path)
        if names is None:
            names = self._sorted[path] = sorted(self._children.get(path, ()))
        return names

    def is_hidden(self, path: str) -> bool:
        """Whether a path that is not known may exist all the same."""
        return path not in self.records and self.is_out_of_sight(path)

    def is_out_of_sight(self, path: str) -> bool:
        """Whether it lies below a node that may not be read, or was not listed since: it may be there unseen."""
        while path != "/":
            path = paths.parent(path)
            if path in self.records:
                return self.records[path] == UNREADABLE or path in self.unlisted
        return False

    def names(self, path: str) -> frozenset[str] | set[str]:
        """Names of the cached nodes directly below, in no order. Do not change the set."""
        return self._children.get(path, frozenset())

    def walk(self, path: str, levels: int) -> Iterator[tuple[str, Record]]:
        """The existing cached nodes from a path down, at most so many levels below it, parents first.

        The table may change while the iterator is used: what has been passed is not visited again, what lies
        ahead is seen as it then is.
        """
        record = self.records.get(path)
        if record is not None:
            yield path, record
        level = [path]
        while level and levels > 0:
            levels -= 1
            below = []
            for parent in level:
                prefix = "/" if parent == "/" else parent + "/"
                for name in list(self._children.get(parent, ())):
                    child = prefix + name
                    record = self.records.get(child)
                    if record is not None:
                        yield child, record
                    if child in self._children:
                        below.append(child)
            level = below

    def _link(self, path: str, exists: bool) -> None:
        if path == "/":
            return
        parent = paths.parent(path)
        name = paths.name(path)
        self._sorted.pop(parent, None)
        if exists:
            self._children.setdefault(parent, set()).add(name)
            return
        names = self._children.get(parent)
        if names is not None:
            names.discard(name)
            if not names:
                del self._children[parent]

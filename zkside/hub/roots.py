"""Roots: which parts of the tree are cached, why, and how current they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from zkside.model import path as paths
from zkside.model.watch import Scope


@dataclass(eq=False, slots=True)
class Root:
    """One part of the tree that is kept cached: a path and the levels below it.

    Life: loading (`live` False, in no answer yet) → live → gone. While live it is current or, from the loss
    of the connection until it has been compared with ZooKeeper again, stale.
    """

    path: str
    scope: Scope
    ready: asyncio.Future[None]
    """Done once it is live and settled; fails if it can never be: the path may not be read, the cache is full."""
    live: bool = False
    stale_since: float | None = None
    """Loop time of the last moment at which it was known to be current; None while it is."""
    users: int = 0
    last_used: float = 0.0
    announced: set[str] = field(default_factory=set)
    """While loading: the paths that an event has announced; the reader has them, so the load leaves them alone."""

    def covers(self, path: str) -> bool:
        """Whether this root keeps the path."""
        if path == self.path:
            return True
        if self.scope is Scope.NODE or not paths.is_within(path, self.path):
            return False
        return self.scope is Scope.SUBTREE or paths.parent(path) == self.path


class Roots:
    """All roots, found by the paths that they cover in a number of steps that is the depth of the path."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, Scope], Root] = {}
        self._subtrees = 0

    def __iter__(self) -> Iterator[Root]:
        return iter(list(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, path: str, scope: Scope) -> Root | None:
        return self._by_key.get((path, scope))

    def add(self, root: Root) -> None:
        self._by_key[root.path, root.scope] = root
        self._subtrees += root.scope is Scope.SUBTREE

    def remove(self, root: Root) -> None:
        del self._by_key[root.path, root.scope]
        self._subtrees -= root.scope is Scope.SUBTREE

    def covering(self, path: str) -> Iterator[Root]:
        """The roots that keep a path, nearest first."""
        by_key = self._by_key
        for scope in Scope:
            root = by_key.get((path, scope))
            if root is not None:
                yield root
        if path == "/":
            return
        above = paths.parent(path)
        root = by_key.get((above, Scope.CHILDREN))
        if root is not None:
            yield root
        if self._subtrees:
            for above in paths.ancestors(path):
                root = by_key.get((above, Scope.SUBTREE))
                if root is not None:
                    yield root

    def covering_children(self, path: str) -> Iterator[Root]:
        """The roots that keep all children of a path."""
        root = self._by_key.get((path, Scope.CHILDREN))
        if root is not None:
            yield root
        if self._subtrees:
            for above in (path, *paths.ancestors(path)):
                root = self._by_key.get((above, Scope.SUBTREE))
                if root is not None:
                    yield root

    def is_covered(self, path: str) -> bool:
        """Whether any root keeps the path."""
        return next(self.covering(path), None) is not None

    def live_at(self, path: str) -> Root | None:
        """The nearest live root that keeps a path."""
        for root in self.covering(path):
            if root.live:
                return root
        return None

    def live_below(self, path: str) -> Root | None:
        """The nearest live root that keeps all children of a path."""
        for root in self.covering_children(path):
            if root.live:
                return root
        return None

    def is_root(self, path: str) -> bool:
        """Whether some root begins at this path: then its absence is worth remembering."""
        return any((path, scope) in self._by_key for scope in Scope)

    def maximal(self) -> list[Root]:
        """The live roots that no other live root keeps whole, largest scopes first."""
        live = [root for root in self._by_key.values() if root.live]
        live.sort(key=lambda root: root.scope.value, reverse=True)
        return [root for root in live if not any(self._contains(other, root) for other in self.covering(root.path))]

    @staticmethod
    def _contains(other: Root, root: Root) -> bool:
        if other is root or not other.live:
            return False
        return other.scope is Scope.SUBTREE or root.scope is Scope.NODE

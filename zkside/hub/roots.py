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
    is_vital: bool = False
    """Somebody waits for the end of its node, or holds it: it is kept however full the caches are."""
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
        self._nodes: dict[str, Root] = {}
        self._children: dict[str, Root] = {}
        self._subtrees: dict[str, Root] = {}
        self._by_scope = {Scope.NODE: self._nodes, Scope.CHILDREN: self._children, Scope.SUBTREE: self._subtrees}

    def __iter__(self) -> Iterator[Root]:
        return iter([*self._subtrees.values(), *self._children.values(), *self._nodes.values()])

    def __len__(self) -> int:
        return len(self._nodes) + len(self._children) + len(self._subtrees)

    def get(self, path: str, scope: Scope) -> Root | None:
        return self._by_scope[scope].get(path)

    def add(self, root: Root) -> None:
        self._by_scope[root.scope][root.path] = root

    def remove(self, root: Root) -> None:
        del self._by_scope[root.scope][root.path]

    def covering(self, path: str) -> list[Root]:
        """The roots that keep a path, nearest first."""
        found = []
        if (root := self._nodes.get(path)) is not None:
            found.append(root)
        if self._children and (root := self._children.get(path)) is not None:
            found.append(root)
        if self._children and path != "/" and (root := self._children.get(paths.parent(path))) is not None:
            found.append(root)
        if self._subtrees:
            found += self._subtrees_over(path)
        return found

    def covering_children(self, path: str) -> list[Root]:
        """The roots that keep all children of a path."""
        found = [root] if (root := self._children.get(path)) is not None else []
        return found + self._subtrees_over(path)

    def is_covered(self, path: str) -> bool:
        """Whether any root keeps the path."""
        return bool(self.covering(path))

    def live_at(self, path: str) -> Root | None:
        """The nearest live root that keeps a path."""
        # As covering() finds them; every cached read passes here.
        root = self._nodes.get(path)
        if root is not None and root.live:
            return root
        if self._children:
            for above in (path, paths.parent(path)):
                root = self._children.get(above)
                if root is not None and root.live:
                    return root
        if self._subtrees:
            above = path
            while True:
                root = self._subtrees.get(above)
                if root is not None and root.live:
                    return root
                if above == "/":
                    break
                above = paths.parent(above)
        return None

    def live_below(self, path: str) -> Root | None:
        """The nearest live root that keeps all children of a path."""
        return next((root for root in self.covering_children(path) if root.live), None)

    def is_root(self, path: str) -> bool:
        """Whether some root begins at this path: then its absence is worth remembering."""
        return path in self._nodes or path in self._children or path in self._subtrees

    def maximal(self) -> list[Root]:
        """The live roots that no other live root keeps whole, largest scopes first."""
        live = [root for root in self if root.live]
        return [root for root in live if not any(self._contains(other, root) for other in self.covering(root.path))]

    def _subtrees_over(self, path: str) -> list[Root]:
        return [root for above in (path, *paths.ancestors(path)) if (root := self._subtrees.get(above)) is not None]

    @staticmethod
    def _contains(other: Root, root: Root) -> bool:
        if other is root or not other.live:
            return False
        return other.scope is Scope.SUBTREE or root.scope is Scope.NODE

"""Who may hold, among the contenders below one path: names, order, and who has to wait for whom.

A contender is an ephemeral sequential node. ZooKeeper numbers the children of a parent in the order of their
creation, whatever their names, so the numbers alone are the order of the queue; the name tells what the contender
wants. The names are those of Apache Curator and kazoo, with which they share the queue.

    "_c_4f2e…-lock-0000000012"      Kind.LOCK, number 12
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a contender wants; the value is what its name ends with, before the number."""

    LOCK = "lock-"
    """Curator's InterProcessMutex and LeaderSelector."""
    LATCH = "latch-"
    """Curator's LeaderLatch."""
    READ = "__READ__"
    WRITE = "__WRIT__"
    """Curator's InterProcessReadWriteLock."""
    LEASE = "lease-"
    """A permit of Curator's InterProcessSemaphoreV2."""
    KAZOO_LOCK = "__lock__"
    KAZOO_READ = "__rlock__"

    @property
    def is_shared(self) -> bool:
        return self in (Kind.READ, Kind.KAZOO_READ)

    @property
    def needs_lasting_parent(self) -> bool:
        """kazoo looks for a lock's path once, and fails when the path has gone since, as a container would."""
        return self in (Kind.KAZOO_LOCK, Kind.KAZOO_READ)


_QUEUE_TOGETHER = {
    Kind.LOCK: {Kind.LOCK, Kind.READ},
    Kind.WRITE: {Kind.WRITE, Kind.READ},
    Kind.READ: {Kind.LOCK, Kind.WRITE, Kind.READ},
    Kind.LATCH: {Kind.LATCH},
    Kind.LEASE: {Kind.LEASE},
    Kind.KAZOO_LOCK: {Kind.KAZOO_LOCK, Kind.KAZOO_READ},
    Kind.KAZOO_READ: {Kind.KAZOO_LOCK, Kind.KAZOO_READ},
}
"""Kinds that may wait for each other. LOCK and WRITE do not meet: zkside could wait for either, but Curator's
InterProcessMutex takes no notice of a WRITE, nor its InterProcessReadWriteLock of a LOCK."""

# ZooKeeper's counter turns negative after 2^31 children of one parent; then the sign is one of its ten characters.
# Parents are containers, which the server deletes when they have been empty for a while, so their numbers begin anew.
_NAME = re.compile(f"({'|'.join(re.escape(kind.value) for kind in Kind)})" + r"(\d{10,}|-\d{9,})$")


@dataclass(frozen=True, slots=True)
class Contender:
    """One child in the queue; ordered by number."""

    number: int
    name: str
    kind: Kind

    def __lt__(self, other: Contender) -> bool:
        return self.number < other.number


def contender(name: str) -> Contender | None:
    """None for a child that is none."""
    match = _NAME.search(name)
    if match is None:
        return None
    return Contender(int(match[2]), name, Kind(match[1]))


def contenders(names: Iterable[str]) -> list[Contender]:
    """In the order of the queue."""
    return sorted(each for each in map(contender, names) if each is not None)


def mixed(one: Contender, queue: Iterable[Contender]) -> Kind | None:
    """A kind ahead of this contender that it cannot wait for, nor the other way round.

    Whoever is ahead but was mixed there himself is about to be refused and does not count: the layout is that of
    those who came first, and a stranger who tries again and again harms nobody.
    """
    present: set[Kind] = set()
    for each in queue:
        if not each < one:
            break
        if present <= _QUEUE_TOGETHER[each.kind]:
            present.add(each.kind)
    return next(iter(present - _QUEUE_TOGETHER[one.kind]), None)


class Queue:
    """The contenders that are known, in order.

    Invariant: it may still have some that are gone, but lacks nobody who is alive and ahead of one it has:
    whoever was listed was listed with all before, and numbers only grow, so nobody comes in between later.
    """

    def __init__(self) -> None:
        self.known: list[Contender] = []

    def listed(self, names: Iterable[str]) -> None:
        """The parent's children at one moment.

        Who is behind the last one listed may have come later than the listing, and stays.
        """
        listing = contenders(names)
        if not listing:
            return
        behind = bisect_left(self.known, listing[-1])
        later = [each for each in self.known[behind:] if each.number > listing[-1].number]
        self.known = listing + later

    def has(self, one: Contender) -> bool:
        """Whether it was listed and is not known to be gone. Then all ahead of it are known too."""
        index = bisect_left(self.known, one)
        return index < len(self.known) and self.known[index].name == one.name

    def remove(self, gone: Contender) -> None:
        """One that is surely gone; it may have been removed before."""
        index = bisect_left(self.known, gone)
        if index < len(self.known) and self.known[index].name == gone.name:
            del self.known[index]

    def nearest_blocker(self, waiter: Contender) -> Contender | None:
        """The last of those that the waiter has to wait for; None: it has its turn.

        An exclusive contender waits for everybody ahead, a shared one for the exclusive ones. Waiting for the
        last of them only is what wakes one waiter for a release, or one group of readers (GUARANTEES H7).
        """
        return next(self._blockers(waiter), None)

    def blockers(self, waiter: Contender) -> list[Contender]:
        """All that it has to wait for, the last one first."""
        return list(self._blockers(waiter))

    def position(self, waiter: Contender) -> int:
        """How many are ahead of the waiter, not counting those who hold: 0 is the next."""
        return max(0, bisect_left(self.known, waiter) - len(holders(self.known)))

    def _blockers(self, waiter: Contender) -> Iterator[Contender]:
        for index in range(bisect_left(self.known, waiter) - 1, -1, -1):
            ahead = self.known[index]
            if not (waiter.kind.is_shared and ahead.kind.is_shared):
                yield ahead


def holders(queue: list[Contender]) -> list[Contender]:
    """Who holds by the order of the queue: the first, or the readers at its head; of permits all."""
    if queue and queue[0].kind is Kind.LEASE:
        return queue
    if not queue or not queue[0].kind.is_shared:
        return queue[:1]
    first_exclusive = next((n for n, each in enumerate(queue) if not each.kind.is_shared), len(queue))
    return queue[:first_exclusive]

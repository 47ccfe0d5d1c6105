"""Who may hold, among the contenders below one path: names, order, and who has to wait for whom.

A contender is an ephemeral sequential node. ZooKeeper numbers the children of a parent in the order of their
creation, whatever their names, so the numbers are the order of the queue; the name tells what the contender wants,
and is all that tells it from others. The names are those of Apache Curator and kazoo, with which they share the queue.

    "_c_4f2e…-lock-0000000012"      Kind.LOCK, number 12
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile
from operator import attrgetter

from zkside.model.stat import LAST_NUMBER, Stat


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
        return self is Kind.READ or self is Kind.KAZOO_READ

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

# Behind LAST_NUMBER ZooKeeper gives the same again, and at times negative ones, whose sign is one of the ten
# characters: no contender of zkside has one (recipes/node.py), others may.
_NAME = re.compile(f"({'|'.join(re.escape(kind.value) for kind in Kind)})" + r"(\d{10,}|-\d{9,})$")


@dataclass(frozen=True, slots=True)
class Contender:
    """One child in the queue, known by its name.

    Numbers are the order, but do not tell contenders apart: Curator's read-write lock gives the read lock of who has
    the write lock the number of that one.
    """

    number: int
    name: str
    kind: Kind
    rank: tuple[int, bool, str] = field(init=False, repr=False, compare=False)
    """Sorts a queue. Of one number the exclusive ones come first: a downgraded lock was a write lock before."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", (self.number, self.kind.is_shared, self.name))

    def __lt__(self, other: Contender) -> bool:
        return self.rank < other.rank


_RANK, _NUMBER = attrgetter("rank"), attrgetter("number")
_ABSENT = Stat(*[0] * 11)


def contender(name: str) -> Contender | None:
    """None for a child that is none."""
    match = _NAME.search(name)
    if match is None:
        return None
    return Contender(int(match[2]), name, Kind(match[1]))


def contenders(names: Iterable[str]) -> list[Contender]:
    """In the order of the queue."""
    return sorted((each for each in map(contender, names) if each is not None), key=_RANK)


def holders(queue: Sequence[Contender]) -> list[Contender]:
    """Who holds by the order of the queue: the first, or the readers at its head; of permits all.

    Those that have the number of an exclusive holder hold with it: they are its own.
    """
    if not queue or queue[0].kind is Kind.LEASE:
        return list(queue)
    first = queue[0]
    if first.kind.is_shared:
        return list(takewhile(lambda each: each.kind.is_shared, queue))
    return list(takewhile(lambda each: each.number == first.number, queue))


class Queue:
    """The contenders that were there at one moment, and which of them are known to have gone since.

    What is missing in it says nothing of a later moment, for a contender can come late, and ahead: Curator's read-write
    lock creates a read lock with the number of the write lock that it is about to release. But it comes beside one
    that is ahead too. So who had nobody to wait for at one moment has its turn for good (docs/adr/0017).

    Only `listed` takes longer for a longer queue; all else is a few comparisons.
    """

    def __init__(self) -> None:
        self.is_whole = False
        """Whether all that it has were there at its moment. Otherwise some may have been gone by then."""
        self._moment = 0
        """Counts the moments that it was of."""
        self._queue: list[Contender] = []
        self._place: dict[str, int] = {}
        self._kinds: list[tuple[int, Kind]] | None = None
        """Kinds that others have to fit, each with the number of its first contender."""
        self._creates = (0, 0)
        self._children = 0
        """All that the parent had at the moment, contenders or not."""
        self._rows: tuple[_Row, _Row] | None = None
        """Who was there at the moment, and who is not known to be gone. Made when first needed: who is alone in a queue
        does without."""
        self._gone: list[Contender] = []
        """As it became known, those alone that were there at the moment."""
        self._gaps: list[int] = []
        """The places of all that are gone, in order."""
        self._head = self._first_exclusive = 0

    def __len__(self) -> int:
        """How many are not known to be gone."""
        return len(self._queue) - len(self._gaps)

    def __iter__(self) -> Iterator[Contender]:
        """Those that are not known to be gone, in order."""
        now = self._now
        return (each for place, each in enumerate(self._queue) if now.any.has(place))

    def listed(self, names: Sequence[str], parent: Stat) -> None:
        """The parent's children at a moment, later than the one before, with its Stat of the same moment."""
        before, place = self._queue, self._place
        found = [before[place[name]] if name in place else contender(name) for name in names]
        queue = self._queue = sorted([each for each in found if each is not None], key=_RANK)
        self._place = {each.name: place for place, each in enumerate(queue)}
        self._creates, self._children = _creates(parent), len(names)
        self._kinds = self._rows = None
        self._gone, self._gaps = [], []
        self._head = self._first_exclusive = 0
        self.is_whole = True
        self._moment += 1

    def nobody(self) -> None:
        """The parent is gone, and all its children with it."""
        self.listed((), _ABSENT)

    def is_current(self, parent: Stat) -> bool:
        """Whether, by the parent's Stat of a later moment, nobody has come since."""
        return _creates(parent) == self._creates and self._creates[1] < LAST_NUMBER

    def asks(self) -> Question:
        """To be kept when the parent's Stat is asked for, and given to `answered` with that."""
        return Question(self._moment, len(self._gone))

    def answered(self, question: Question, parent: Stat, gone: Iterable[Contender] = ()) -> bool:
        """Be of the moment of this Stat, less those who were gone when it was asked for, and these.

        False, and it stays of its moment, if it cannot be: somebody has come since, or there was a listing meanwhile.
        Who went later may have been there at that moment, and somebody may have come in its place after it.
        """
        gone = list(gone)
        if question.moment != self._moment or not self.is_current(parent):
            for each in gone:
                self.remove(each)
            return False
        later = self._gone[question.gone :]
        before = {each.name: each for each in (*self._gone[: question.gone], *gone)}
        for each in gone:
            self.remove(each)
        then = self._then
        for name in before:
            then.take_out(self._place[name])
        self._gone = [each for each in later if each.name not in before]
        self._children -= len(before)
        self.is_whole = self._children == parent.num_children
        self._moment += 1
        return True

    def has(self, one: Contender) -> bool:
        """Whether it was there, and is not known to be gone."""
        place = self._place.get(one.name)
        return place is not None and (not self._gaps or self._now.any.has(place))

    def remove(self, gone: Contender) -> None:
        """One that is surely gone; it may have been removed before."""
        if self.has(gone):
            place = self._place[gone.name]
            self._now.take_out(place)
            self._gone.append(gone)
            insort(self._gaps, place)

    def mixed(self, one: Contender) -> Kind | None:
        """A kind ahead of this contender that it cannot wait for, nor the other way round.

        Whoever was ahead but was mixed there himself is about to be refused and does not count: the layout is that of
        those who came first, and a stranger who tries again and again harms nobody.
        """
        if not self._place[one.name]:
            return None
        if self._kinds is None:
            self._kinds = _layout(self._queue)
        ahead = (kind for number, kind in self._kinds if number < one.number)
        return next((kind for kind in ahead if kind not in _QUEUE_TOGETHER[one.kind]), None)

    def has_turn(self, waiter: Contender) -> bool:
        """Whether it had nobody to wait for at the moment of which this is."""
        return self._is_alone_ahead(waiter) or next(self._ahead(waiter, self._then), None) is None

    def nearest_blocker(self, waiter: Contender) -> Contender | None:
        """The last of those that the waiter has to wait for; None: all that were ahead are gone.

        An exclusive contender waits for everybody ahead, a shared one for the exclusive ones; both for who has the same
        number, as nobody knows who of the two came first. Waiting for the last of them only is what wakes one waiter
        for a release, or one group of readers (GUARANTEES H7).
        """
        return None if self._is_alone_ahead(waiter) else next(self.blockers(waiter), None)

    def blockers(self, waiter: Contender) -> Iterator[Contender]:
        """All that it has to wait for, the last one first."""
        return self._ahead(waiter, self._now)

    def position(self, waiter: Contender) -> int:
        """How many are ahead of the waiter, not counting those who hold: 0 is the next."""
        return max(0, self._count_before(self._place[waiter.name]) - self._holding())

    @property
    def _then(self) -> _Row:
        return self._made_rows()[0]

    @property
    def _now(self) -> _Row:
        return self._made_rows()[1]

    def _made_rows(self) -> tuple[_Row, _Row]:
        if self._rows is None:
            are_exclusive = [not each.rank[1] for each in self._queue]
            self._rows = _Row(are_exclusive), _Row(are_exclusive)
        return self._rows

    def _is_alone_ahead(self, waiter: Contender) -> bool:
        """It is the first that was listed, and no other has its number."""
        queue = self._queue
        return queue[0].name == waiter.name and (len(queue) == 1 or queue[1].number != waiter.number)

    def _ahead(self, waiter: Contender, row: _Row) -> Iterator[Contender]:
        own = self._place[waiter.name]
        those = row.exclusive if waiter.kind.is_shared else row.any
        place = bisect_right(self._queue, waiter.number, key=_NUMBER)
        while (place := those.nearest(place - 1)) >= 0:
            if place != own:
                yield self._queue[place]

    def _count_before(self, place: int) -> int:
        return place - bisect_left(self._gaps, place)

    def _holding(self) -> int:
        """As `holders` of those that are not known to be gone."""
        queue, now = self._queue, self._now
        # Places at the head are only passed once, until the next listing.
        while self._head < len(queue) and not now.any.has(self._head):
            self._head += 1
        if self._head == len(queue):
            return 0
        first = queue[self._head]
        if not first.kind.is_shared:
            return self._count_before(bisect_right(queue, first.number, key=_NUMBER))
        while self._first_exclusive < len(queue) and not now.exclusive.has(self._first_exclusive):
            self._first_exclusive += 1
        return self._count_before(self._first_exclusive)


@dataclass(frozen=True, slots=True)
class Question:
    """What was known when the parent's Stat was asked for."""

    moment: int
    gone: int


class _Row:
    """Places, some of which are taken out."""

    __slots__ = ("any", "exclusive")

    def __init__(self, are_exclusive: Sequence[bool]) -> None:
        self.any = _Places([True] * len(are_exclusive))
        self.exclusive = _Places(are_exclusive)

    def take_out(self, place: int) -> None:
        self.any.take_out(place)
        self.exclusive.take_out(place)


class _Places:
    """Places of which the nearest at or before any other is found in next to no steps, however many were taken out.

    Source: disjoint sets, with path halving (Tarjan and van Leeuwen 1984).
    """

    __slots__ = ("_up_to",)

    def __init__(self, are_there: Sequence[bool]) -> None:
        # Shifted by one: 0 stands for none.
        self._up_to = [0, *(place + is_there for place, is_there in enumerate(are_there))]

    def has(self, place: int) -> bool:
        return self._up_to[place + 1] == place + 1

    def take_out(self, place: int) -> None:
        if self.has(place):
            self._up_to[place + 1] = place

    def nearest(self, place: int) -> int:
        """At this place or before; -1: none."""
        up_to, at = self._up_to, place + 1
        while up_to[at] != at:
            up_to[at] = up_to[up_to[at]]
            at = up_to[at]
        return at - 1


def _layout(queue: Iterable[Contender]) -> list[tuple[int, Kind]]:
    present: dict[Kind, int] = {}
    for each in queue:
        if each.kind not in present and present.keys() <= _QUEUE_TOGETHER[each.kind]:
            present[each.kind] = each.number
    return [(number, kind) for kind, number in present.items()]


def _creates(parent: Stat) -> tuple[int, int]:
    """Grows with each child that is created; of another parent under the same path it is another one."""
    return parent.czxid, parent.creates

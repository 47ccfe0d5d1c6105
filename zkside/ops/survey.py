"""What the status page lists: of everything the worst, and how much there is in all.

A daemon may have 10,000 holds and 100,000 watches. They are looked at a few at a time, so that the event loop
never waits: `survey` is a generator that yields between, and what drives it (ops/turns.py) gives the loop its turns.
A row is as it was when it was looked at; rows of a large daemon are some milliseconds apart. What is kept on the
way is the worst rows alone, but for four numbers of each path at which something is held.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import Any, Generic, Protocol, TypeVar

from zkside.hub.hub import RootStatus
from zkside.model.hold import HoldState, HoldStatus
from zkside.model.watch import Place, Scope

MOST_ROWS = 40
"""Of each list."""
MOST_OWNERS = 4
MOST_WAITERS = 6
MOST_SUBSCRIBERS = 6
MOST_PLACES = 16
"""Of what one stream watches."""
MOST_COUNTED = 10_000
"""Nodes of one cache; beyond, the page says "more than"."""
ELECTION = "election"
"""The recipe of a candidacy."""
SLOW_S = 1.0
"""A stream whose client has not read for so long is slow."""
AT_ONCE = 32

T = TypeVar("T")
Survey_ = Generator[None, None, T]
"""Yields where the event loop may have a turn."""


class StreamLine(Protocol):
    """An open stream, as rpc/streams.py has it."""

    @property
    def method(self) -> str: ...
    @property
    def peer(self) -> str: ...
    @property
    def sent(self) -> int: ...
    @property
    def pending(self) -> Callable[[], int]: ...
    @property
    def watches(self) -> Callable[[], Sequence[Place]]: ...
    @property
    def is_infrastructure(self) -> bool: ...
    def age_s(self) -> float: ...
    def unread_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the rows come from; called on the event loop."""

    holds: Callable[[], Iterable[HoldStatus]]
    roots: Callable[[], Iterable[RootStatus]]
    nodes: Callable[[Place], Iterable[object]]
    """The nodes of a cache; may change while they are passed."""
    streams: Callable[[], Iterable[StreamLine]]


@dataclass(slots=True)
class Counts:
    """Holds by what has to be known of them."""

    owned: int = 0
    waiting: int = 0
    in_jeopardy: int = 0
    unattended: int = 0
    """Without a stream: their processes may come back for them."""
    led: int = 0
    """Leaderships among those that are owned."""

    def add(self, hold: HoldStatus) -> None:
        """Count a hold in."""
        if hold.update.state is HoldState.WAITING:
            self.waiting += 1
        else:
            self.owned += 1
            self.led += hold.recipe == ELECTION
            self.in_jeopardy += hold.update.state is HoldState.JEOPARDY
            self.unattended += not hold.attached


@dataclass(slots=True)
class Held:
    """All holds of one recipe at one path, of this daemon's processes."""

    recipe: str
    path: str
    counts: Counts = field(default_factory=Counts)
    owners: list[HoldStatus] = field(default_factory=list)
    """The first MOST_OWNERS that have it."""
    waiters: list[HoldStatus] = field(default_factory=list)
    """The first MOST_WAITERS in the queue."""
    longest_wait_s: float = 0.0

    def add(self, hold: HoldStatus) -> None:
        """Take a hold in."""
        self.counts.add(hold)
        if hold.update.state is HoldState.WAITING:
            self.longest_wait_s = max(self.longest_wait_s, hold.age_s)
            _keep(self.waiters, hold, MOST_WAITERS, lambda each: (each.update.position, -each.age_s))
        else:
            _keep(self.owners, hold, MOST_OWNERS, lambda each: (each.update.state is HoldState.HELD, -each.age_s))


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A stream that watches."""

    peer: str
    age_s: float
    unread_s: float


@dataclass(frozen=True, slots=True)
class Cached:
    """A cached part of the tree, and for whom."""

    root: RootStatus
    nodes: int
    is_all: bool
    """False: there are more nodes than were counted."""
    subscribers: tuple[Subscriber, ...]


@dataclass(frozen=True, slots=True)
class Slow:
    """A stream whose client does not read."""

    method: str
    peer: str
    age_s: float
    unread_s: float
    sent: int
    pending: int
    watches: tuple[Place, ...]
    watched: int


@dataclass(frozen=True, slots=True)
class Survey:
    """The lists, each worst first, with how many there are in all."""

    held: tuple[Held, ...]
    held_paths: int
    counts: Counts
    caches: tuple[Cached, ...]
    cached: int
    of_holds: int
    """Of them, those that only holds and waiters need: single nodes with names of their own. They are neither
    listed nor counted below."""
    stale: int
    loading: int
    slow: tuple[Slow, ...]
    slow_streams: int
    streams: int


def survey(sources: Sources) -> Survey_[Survey]:
    """Look at everything, a few at a time."""
    worst, held_paths, counts = yield from _worst_held(sources.holds())
    held = yield from _held(sources.holds(), worst)
    roots, cached, of_holds, stale, loading = yield from _roots(sources.roots())
    slow, slow_streams, streams, subscribers = yield from _streams(sources.streams(), roots)
    caches = []
    for root in roots:
        nodes, is_all = yield from _count(sources.nodes(Place(root.path, root.scope)))
        yield
        caches.append(Cached(root, nodes, is_all, tuple(subscribers[root.path, root.scope])))
    return Survey(
        held=tuple(held),
        held_paths=held_paths,
        counts=counts,
        caches=tuple(caches),
        cached=cached,
        of_holds=of_holds,
        stale=stale,
        loading=loading,
        slow=slow,
        slow_streams=slow_streams,
        streams=streams,
    )


class Worst(Generic[T]):
    """Keeps the rows of the greatest badness out of any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[tuple[float, ...], int, T]] = []
        self._offered = 0

    def offer(self, badness: tuple[float, ...], row: T) -> None:
        """Of equal ones the first stays."""
        self._offered += 1
        entry = (badness, -self._offered, row)
        if len(self._heap) < self._most:
            heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heappushpop(self._heap, entry)

    def rows(self) -> list[T]:
        """Worst first."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def _worst_held(holds: Iterable[HoldStatus]) -> Survey_[tuple[list[tuple[str, str]], int, Counts]]:
    """The recipes and paths that most need a look, worst first; of how many; and all holds counted.

    Four numbers are kept of each path, and no more: what lives on while thousands are looked at is looked at by the
    garbage collector too, in one go.
    """
    found: dict[tuple[str, str], list[float]] = {}
    counts = Counts()
    for number, hold in enumerate(holds):
        counts.add(hold)
        badness = found.setdefault((hold.recipe, hold.requested_path), [0, 0, 0.0, 0.0])
        if hold.update.state is HoldState.WAITING:
            badness[2] = max(badness[2], hold.age_s)
        else:
            badness[0] += not hold.attached
            badness[1] += hold.update.state is HoldState.JEOPARDY
            badness[3] = max(badness[3], hold.age_s)
        if number % AT_ONCE == 0:
            yield
    worst: Worst[tuple[str, str]] = Worst(MOST_ROWS)
    held_paths = len(found)
    for number, key in enumerate([*found]):
        # Taken out one by one: to let go of them all at once would be the longest slice.
        worst.offer(tuple(found.pop(key)), key)
        if number % AT_ONCE == 0:
            yield
    return worst.rows(), held_paths, counts


def _held(holds: Iterable[HoldStatus], keys: list[tuple[str, str]]) -> Survey_[list[Held]]:
    found = {key: Held(*key) for key in keys}
    for number, hold in enumerate(holds):
        one = found.get((hold.recipe, hold.requested_path))
        if one is not None:
            one.add(hold)
        if number % AT_ONCE == 0:
            yield
    # What ended in between has no row.
    return [one for one in found.values() if one.owners or one.waiters]


def _roots(roots: Iterable[RootStatus]) -> Survey_[tuple[list[RootStatus], int, int, int, int]]:
    worst: Worst[RootStatus] = Worst(MOST_ROWS)
    number = of_holds = stale = loading = 0
    for number, root in enumerate(roots, 1):
        if root.holds and root.holds == root.users:
            of_holds += 1
        else:
            stale += root.stale_s > 0
            loading += not root.live
            worst.offer((root.stale_s, not root.live, root.users), root)
        if number % AT_ONCE == 0:
            yield
    return worst.rows(), number, of_holds, stale, loading


def _streams(
    streams: Iterable[StreamLine], roots: list[RootStatus]
) -> Survey_[tuple[tuple[Slow, ...], int, int, dict[tuple[str, Scope], list[Subscriber]]]]:
    subscribers: dict[tuple[str, Scope], list[Subscriber]] = {(root.path, root.scope): [] for root in roots}
    worst: Worst[StreamLine] = Worst(MOST_ROWS)
    number = slow = 0
    for stream in streams:
        if stream.is_infrastructure:
            continue
        number += 1
        unread_s = stream.unread_s()
        if unread_s >= SLOW_S:
            slow += 1
            worst.offer((unread_s,), stream)
        for place in stream.watches()[:MOST_PLACES]:
            rows = subscribers.get(place)
            if rows is not None:
                one = Subscriber(stream.peer, stream.age_s(), unread_s)
                _keep(rows, one, MOST_SUBSCRIBERS, lambda each: (-each.unread_s, -each.age_s))
        if number % AT_ONCE == 0:
            yield
    found = []
    for stream in worst.rows():
        found.append(_slow(stream))
        yield
    return tuple(found), slow, number, subscribers


def _slow(stream: StreamLine) -> Slow:
    watches = stream.watches()
    return Slow(
        stream.method,
        stream.peer,
        stream.age_s(),
        stream.unread_s(),
        stream.sent,
        stream.pending(),
        tuple(watches[:MOST_PLACES]),
        len(watches),
    )


def _count(nodes: Iterable[object]) -> Survey_[tuple[int, bool]]:
    number = 0
    for number, _ in enumerate(nodes, 1):
        if number % (16 * AT_ONCE) == 0:
            yield
        if number >= MOST_COUNTED:
            return number, False
    return number, True


def _keep(rows: list[T], row: T, most: int, key: Callable[[T], Any]) -> None:
    """Put a row where it belongs among the first few."""
    if len(rows) == most and key(row) >= key(rows[-1]):
        return
    rows.append(row)
    rows.sort(key=key)
    del rows[most:]

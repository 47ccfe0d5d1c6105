"""The network between in-process connections and the in-process ZooKeeper, with faults to order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from zkside.zk.clock import Clock

T = TypeVar("T")
Up = TypeVar("Up")
Down = TypeVar("Down")


class MemoryNetwork:
    """What lies between some connections and the servers. Each fault affects all of them, at once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.delay_ns = 0
        self.is_half_open = False
        self.is_refusing = False
        self.requests_to_lose = 0
        self.replies_to_lose = 0
        self._links: set[Link[Any, Any]] = set()

    def drop_connections(self, reason: str = "connection reset") -> None:
        """Cut all connections; what was under way in either direction is lost. New ones are accepted."""
        for link in list(self._links):
            link.cut(reason)

    def refuse_connections(self, refuse: bool) -> None:
        """Refuse new connections; those that are up stay."""
        self.is_refusing = refuse

    def half_open(self, half_open: bool) -> None:
        """Connections stay up and nothing passes; what was sent meanwhile passes when this ends."""
        self.is_half_open = half_open
        for link in list(self._links):
            link.pump()

    def delay(self, delay_s: float) -> None:
        """Each direction takes this long. Order is kept."""
        self.delay_ns = int(delay_s * 1e9)

    def lose_next_request(self, count: int = 1) -> None:
        """Instead of arriving at the server the next request cuts its connection. Pings do not count."""
        self.requests_to_lose += count

    def lose_next_reply(self, count: int = 1) -> None:
        """The next request is carried out, and its connection cut in place of the answer."""
        self.replies_to_lose += count

    def add(self, link: Link[Any, Any]) -> None:
        self._links.add(link)

    def discard(self, link: Link[Any, Any]) -> None:
        self._links.discard(link)


@dataclass(frozen=True, slots=True)
class Closed:
    """The server closed the connection: the last thing that comes down."""

    reason: str


class Channel(Generic[T]):
    """One direction of a connection: what is sent arrives later, one by one and in order."""

    def __init__(self, network: MemoryNetwork, receive: Callable[[T], None]) -> None:
        self._network = network
        self._receive = receive
        self._under_way: deque[tuple[int, T]] = deque()
        self._is_pumping = False
        self._is_closed = False

    def send(self, item: T) -> None:
        if not self._is_closed:
            self._under_way.append((self._network.clock.boottime_ns() + self._network.delay_ns, item))
            self.pump()

    def pump(self) -> None:
        """See to it that what is under way arrives when it may."""
        if self._under_way and not self._is_pumping and not self._network.is_half_open:
            self._is_pumping = True
            due = self._under_way[0][0]
            if due > self._network.clock.boottime_ns():
                self._network.clock.call_at(due, self._deliver)
            else:
                asyncio.get_running_loop().call_soon(self._deliver)

    def close(self) -> None:
        """Nothing arrives any more."""
        self._is_closed = True
        self._under_way.clear()

    def _deliver(self) -> None:
        self._is_pumping = False
        now = self._network.clock.boottime_ns()
        while self._under_way and not self._network.is_half_open and self._under_way[0][0] <= now:
            self._receive(self._under_way.popleft()[1])
        self.pump()


class Link(Generic[Up, Down]):
    """One connection between a client and a server."""

    def __init__(
        self,
        network: MemoryNetwork,
        *,
        to_server: Callable[[Up], None],
        to_client: Callable[[Down], None],
        on_cut: Callable[[str], None],
    ) -> None:
        self._network = network
        self._to_client = to_client
        self._on_cut = on_cut
        self.up = Channel(network, to_server)
        self.down: Channel[Down | Closed] = Channel(network, self._arrived)
        self.is_up = True
        network.add(self)

    def pump(self) -> None:
        self.up.pump()
        self.down.pump()

    def cut(self, reason: str) -> None:
        """Both ends find it broken at once; calling it again changes nothing."""
        if self.is_up:
            self.is_up = False
            self._network.discard(self)
            self.up.close()
            self.down.close()
            self._on_cut(reason)

    def close_by_server(self, reason: str) -> None:
        """The client hears of it after all that was sent before, and never while nothing passes."""
        self.up.close()
        self.down.send(Closed(reason))

    def _arrived(self, item: Down | Closed) -> None:
        if isinstance(item, Closed):
            self.cut(item.reason)
        else:
            self._to_client(item)

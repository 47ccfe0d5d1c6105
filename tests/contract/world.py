"""A ZooKeeper with a bad network before it, as the contract's tests see it: in process, or real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from tests.parts.proxy import Proxy
from zkside.model.event import EventType, WatchedEvent
from zkside.model.operation import Create, Exists, Operation, Reply, Sync
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.memory import MemoryNetwork, MemoryZooKeeper, memory_connector
from zkside.zk.port import Connected, Connection, Connector, Ending, Listener, Ticket

T = TypeVar("T")

WITHIN_S = 20.0
"""Every wait of a test ends in a failure after this time."""


class Peer(Listener):
    """One session and all that its connection tells, in order, in `log`."""

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []
        self.before_failures: Callable[[], None] = lambda: None
        """Called in `suspended`."""
        self.connection: Connection
        self._news = asyncio.Event()

    def connected(self, connected: Connected) -> None:
        self._note("connected", connected)

    def suspended(self, reason: str) -> None:
        self.before_failures()
        self._note("suspended", reason)

    def ended(self, ending: Ending, reason: str) -> None:
        self._note("ended", ending)

    def event(self, event: WatchedEvent) -> None:
        self._note("event", event)

    def acknowledged(self, operation: Operation[object] | None, sent_boottime_ns: int) -> None:
        self._note("acknowledged", operation)

    def _note(self, kind: str, what: object) -> None:
        self.log.append((kind, what))
        self._news.set()

    def all(self, kind: str) -> list[Any]:
        return [what for noted, what in self.log if noted == kind]

    @property
    def events(self) -> list[tuple[EventType, str]]:
        return [(event.type, event.path) for event in self.all("event")]

    @property
    def ticket(self) -> Ticket:
        """Of the session, as of now."""
        first: Ticket = self.all("connected")[0].ticket
        return Ticket(first.session_id, first.password, self.connection.last_zxid)

    async def wait_for(self, kind: str, count: int = 1) -> Any:
        """The `count`th entry of that kind, when it is there."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.all(kind)) < count:
                assert kind == "ended" or not self.all("ended"), f"the session has ended: {self.log}"
                self._news.clear()
                await self._news.wait()
        return self.all(kind)[count - 1]

    def call(self, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        return self.connection.call(operation)

    async def ask(self, operation: Operation[T]) -> Reply[T]:
        async with asyncio.timeout(WITHIN_S):
            return await self.connection.call(operation)

    async def do(self, operation: Operation[T]) -> T:
        """The result alone."""
        return (await self.ask(operation)).value

    async def catch_up(self) -> int:
        """When this returns, all that was written before has been heard of. Returns its zxid."""
        await self.ask(Sync("/"))
        return (await self.ask(Exists("/"))).zxid


class World(Protocol):
    """A ZooKeeper, a chroot of the test's own in it, and the network of those who asked for a `faulty` one."""

    chroot: str

    def connector(
        self,
        *,
        faulty: bool = False,
        timeout_s: float = 10.0,
        auth: tuple[tuple[str, str], ...] = (),
        below: str = "",
        max_in_flight: int = 1000,
        max_queued: int = 10_000,
    ) -> Connector: ...

    async def cut(self) -> None:
        """Reset the connections; new ones are accepted unless refused."""

    async def refuse(self) -> None: ...

    async def accept(self) -> None: ...

    async def half_open(self) -> None:
        """Connections stay up and nothing passes."""

    async def heal(self) -> None: ...

    async def lose_request(self, peer: Peer, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        """The connection is cut after it was sent and before it arrived."""

    async def lose_reply(self, peer: Peer, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        """The connection is cut after it was carried out and before the answer arrived."""


class MemoryWorld:
    """zkside.zk.memory, on the system's clock, as real time as the other."""

    def __init__(self, *, event_zxids: bool = True) -> None:
        self.chroot = "/test-1"
        self.zookeeper = MemoryZooKeeper(tick_s=0.2, container_check_s=1.0, event_zxids=event_zxids)
        self.zookeeper.apply(Create(self.chroot))
        self.network = MemoryNetwork(self.zookeeper.clock)

    def connector(
        self,
        *,
        faulty: bool = False,
        timeout_s: float = 10.0,
        auth: tuple[tuple[str, str], ...] = (),
        below: str = "",
        max_in_flight: int = 1000,
        max_queued: int = 10_000,
    ) -> Connector:
        return memory_connector(
            self.zookeeper,
            network=self.network if faulty else None,
            chroot=self.chroot + below,
            timeout_s=timeout_s,
            auth=auth,
            max_in_flight=max_in_flight,
            max_queued=max_queued,
        )

    async def cut(self) -> None:
        self.network.drop_connections()

    async def refuse(self) -> None:
        self.network.refuse_connections(True)

    async def accept(self) -> None:
        self.network.refuse_connections(False)

    async def half_open(self) -> None:
        self.network.half_open(True)

    async def heal(self) -> None:
        self.network.half_open(False)

    async def lose_request(self, peer: Peer, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        self.network.lose_next_request()
        future = peer.call(operation)
        await asyncio.wait([future], timeout=WITHIN_S)
        return future

    async def lose_reply(self, peer: Peer, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        self.network.lose_next_reply()
        future = peer.call(operation)
        await asyncio.wait([future], timeout=WITHIN_S)
        return future


class RealWorld:
    """zkside.zk.kazoo, a ZooKeeper server, and a TCP proxy."""

    def __init__(self, server: str, chroot: str, proxy: Proxy) -> None:
        self.chroot = chroot
        self._server = server
        self._proxy = proxy

    def connector(
        self,
        *,
        faulty: bool = False,
        timeout_s: float = 10.0,
        auth: tuple[tuple[str, str], ...] = (),
        below: str = "",
        max_in_flight: int = 1000,
        max_queued: int = 10_000,
    ) -> Connector:
        hosts = (self._proxy.hosts if faulty else self._server) + self.chroot + below
        settings = KazooSettings(
            hosts,
            session_timeout_s=timeout_s,
            auth=auth,
            max_in_flight=max_in_flight,
            max_queued=max_queued,
        )
        return kazoo_connector(settings)

    async def cut(self) -> None:
        await asyncio.to_thread(self._proxy.cut)

    async def refuse(self) -> None:
        await asyncio.to_thread(self._proxy.refuse)

    async def accept(self) -> None:
        await asyncio.to_thread(self._proxy.accept)

    async def half_open(self) -> None:
        await asyncio.to_thread(self._proxy.half_open)

    async def heal(self) -> None:
        await asyncio.to_thread(self._proxy.heal)

    async def lose_request(self, peer: Peer, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        self._proxy.hold_requests()
        before = self._proxy.requests.frames
        future = peer.call(operation)
        await asyncio.to_thread(self._proxy.wait_for, lambda p: p.requests.frames > before)
        return await self._cut_and_heal(future)

    async def lose_reply(self, peer: Peer, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        self._proxy.hold_replies()
        before = self._proxy.replies.frames
        future = peer.call(operation)
        await asyncio.to_thread(self._proxy.wait_for, lambda p: p.replies.frames > before)
        return await self._cut_and_heal(future)

    async def _cut_and_heal(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        await asyncio.to_thread(self._proxy.cut)
        self._proxy.heal()
        await asyncio.wait([future], timeout=WITHIN_S)
        return future

"""Hosts in one process: each has a daemon, which may be stopped, killed and followed by another."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tests.parts.virtual_loop import Process, ProcessClock, VirtualLoop
from zkside.core.queueing import Kind
from zkside.errors import HoldLost, SessionSuspended, Unavailable, ZksideError
from zkside.hub.hub import Hub
from zkside.model.hold import HoldUpdate, Terms
from zkside.recipes.hold import Hold
from zkside.recipes.holds import Holds, HoldSettings
from zkside.recipes.lock import acquire_permit
from zkside.recipes.node import Writes
from zkside.recipes.queueing import Bid, Queueing
from zkside.zk.journal import Journal
from zkside.zk.memory import MemoryNetwork, MemoryZooKeeper, memory_connector
from zkside.zk.session import Session, SessionSettings

TIMEOUT_S = 4.0
TICK_S = 1.0
RECLAIM_GRACE_S = 6.0
DELAY_S = 0.001
"""Of the network to ZooKeeper, in each direction."""
MAX_SOCKET_DELAY_S = 0.002
"""Of one message between a client and its daemon; the delays differ."""

Flow = Callable[[Queueing, Hold, Bid, int], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client opens a stream with."""

    bid: Bid
    terms: Terms
    permits: int = 1
    resume_token: str = ""


async def in_order(queueing: Queueing, hold: Hold, bid: Bid, permits: int) -> None:
    """What rpc/lock.py and rpc/election.py do with a request."""
    if bid.kind is Kind.LEASE:
        await acquire_permit(queueing, hold, bid, permits)
    else:
        await queueing.first(hold, bid)


class Stream:
    """From a daemon to a client: in order, each message takes its time, and those under way outlive the daemon."""

    def __init__(self, daemon: Daemon, client: Process, hear: Callable[[HoldUpdate, int], None]) -> None:
        """`hear` is told the update and when it was sent."""
        self.daemon = daemon
        self.on_end: Callable[[ZksideError | None], None] = lambda error: None
        self.is_open = True
        self.task: asyncio.Task[None] | None = None
        """The daemon's, that serves it."""
        self.client = client
        self._hear = hear
        self._last_s = 0.0

    # On the daemon's side

    def send(self, update: HoldUpdate) -> None:
        self._post(self._hear, update, self.daemon.clock.boottime_ns())

    def end(self, error: ZksideError | None) -> None:
        """None: after the last message."""
        if self.is_open:
            self.is_open = False
            self._post(self._ended, error)

    def cancel(self) -> None:
        """The client has gone, or the connection."""
        self.is_open = False
        if self.task is not None:
            self.task.cancel()

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        now_s = self.daemon.loop.time()
        self._last_s = max(self._last_s + 1e-6, now_s + self.daemon.delay_s())
        self.client.post(self._last_s - now_s, callback, *arguments)

    def _ended(self, error: ZksideError | None) -> None:
        self.on_end(error)


class Daemon:
    """Session, hub, holds and recipes, put together as in zkside/daemon.py; without gRPC."""

    def __init__(
        self, loop: VirtualLoop, zookeeper: MemoryZooKeeper, journal: Journal, rng: random.Random, flow: Flow
    ) -> None:
        self.loop = loop
        self.journal = journal
        self.process = Process(loop)
        self.clock = ProcessClock(loop, self.process)
        self.network = MemoryNetwork(self.clock)
        self.network.delay(DELAY_S)
        self.streams: dict[Stream, None] = {}
        self.silent_since_ns: int | None = None
        """It does not answer any more: since then."""
        self.before_answering: Callable[[], None] = lambda: None
        """Called when that ends."""
        self._rng = rng
        self._flow = flow
        self.session = Session(
            memory_connector(zookeeper, network=self.network, timeout_s=TIMEOUT_S),
            SessionSettings(timeout_s=TIMEOUT_S, tick_s=TICK_S),
            journal,
            self.clock,
        )
        self.hub = Hub(self.session)
        self.holds = Holds(self.session, self.hub, HoldSettings(reclaim_grace_s=RECLAIM_GRACE_S))
        self._writes = Writes(self.session)
        self._queueing = Queueing(self.session, self.hub, self._writes, self.holds.turnstile)
        self.process.post(0.0, self._start)

    def _start(self) -> None:
        self.hub.start()
        self.holds.start()
        self.session.start()

    def delay_s(self) -> float:
        """Of one message over the host's socket."""
        return self._rng.uniform(0.0001, MAX_SOCKET_DELAY_S)

    def open(self, ask: Ask, stream: Stream) -> None:
        self.streams[stream] = None
        self.process.post(self.delay_s(), self._open, ask, stream)

    def _open(self, ask: Ask, stream: Stream) -> None:
        if stream.is_open:
            stream.task = self.loop.create_task(self._serve(ask, stream))

    async def _serve(self, ask: Ask, stream: Stream) -> None:
        try:
            async with aclosing(self._updates(ask)) as updates:
                async for update in updates:
                    stream.send(update)
            stream.end(None)
        except ZksideError as error:
            stream.end(error)
        finally:
            self.streams.pop(stream, None)

    def _updates(self, ask: Ask) -> AsyncGenerator[HoldUpdate, None]:
        return self.holds.wait_for(
            ask.terms, ask.resume_token, lambda hold: self._flow(self._queueing, hold, ask.bid, ask.permits)
        )

    def cancel(self, stream: Stream) -> None:
        self.process.post(self.delay_s(), stream.cancel)

    def release(self, hold_id: str, client: Process, answered: Callable[[], None]) -> None:
        async def release() -> None:
            # If it cannot be seen to go now, it goes later.
            with contextlib.suppress(SessionSuspended):
                await self.holds.release(hold_id)
            client.post(self.delay_s(), answered)

        self.process.post(self.delay_s(), lambda: self.loop.create_task(release()))

    def heartbeat(self, hold_id: str) -> None:
        def beat() -> None:
            with contextlib.suppress(HoldLost):
                self.holds.get(hold_id).heartbeat()

        self.process.post(self.delay_s(), beat)

    def break_streams(self) -> None:
        """As gRPC's watchdog, or a connection's end, does it."""
        for stream in list(self.streams):
            self.break_stream(stream)

    def break_stream(self, stream: Stream) -> None:
        stream.end(Unavailable("the connection to the daemon was lost"))
        if self.process.is_alive:
            stream.cancel()

    def stop(self) -> None:
        """SIGSTOP."""
        self.process.stop()
        self.silent_since_ns = self.silent_since_ns or self.loop.now_ns

    def go_on(self, *, watchdog: bool) -> None:
        """SIGCONT. `watchdog`: its first deed is to break the connections that were silent meanwhile."""
        self.process.go_on(self.break_streams if watchdog else None)
        # A client counts its second answer, not its first.
        self.process.post(4 * DELAY_S, self._answer_again)

    def _answer_again(self) -> None:
        if not self.process.is_stopped:
            self.before_answering()
            self.silent_since_ns = None

    def kill(self) -> None:
        """SIGKILL: ZooKeeper hears no more of it, the clients at once."""
        self.process.kill()
        self.silent_since_ns = self.silent_since_ns or self.loop.now_ns
        self.network.half_open(True)
        self.break_streams()

    async def terminate(self, *, keep: bool) -> None:
        """SIGTERM: in the order of RpcServer.stop and Daemon.stop."""
        stopping = self.loop.create_task(self._terminate(keep=keep), context=self.process.context)
        await asyncio.wait([stopping])
        stopping.result()
        self.kill()

    async def _terminate(self, *, keep: bool) -> None:
        await self.holds.close(keep=keep, within_s=self._rng.choice((0.5, 3.0)))
        tasks = [stream.task for stream in self.streams if stream.task is not None]
        self.break_streams()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        await self._writes.close()
        await self.hub.close()
        await self.session.close(keep_session=keep or self.holds.are_believed(), within_s=2.0)

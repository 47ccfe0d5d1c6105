"""A relay before ZooKeeper, a process of its own: it cuts, delays, and sees the daemon's silences."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, cast

from bench.crew import Crew, Link, Worker


class _Side(asyncio.Protocol):
    """One socket of a relayed connection; what it receives goes to `peer`."""

    def __init__(self, relay: _Relay, *, is_client: bool) -> None:
        self._relay = relay
        self._is_client = is_client
        self.transport: asyncio.Transport | None = None
        self.peer: _Side | None = None
        self._early: list[bytes] = []
        self._delayed: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._relay.sides.add(self)
        if self._is_client:
            self._relay.connect(self)

    def meet(self, peer: _Side) -> None:
        self.peer = peer
        for data in self._early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.peer is None or self.peer.transport is None:
            self._early.append(data)
            return
        if self._is_client:
            self._relay.sent()
        if self._relay.delay_s:
            self._delayed.append(data)
            asyncio.get_running_loop().call_later(self._relay.delay_s, self._pass_on)
        else:
            self.peer.transport.write(data)

    def _pass_on(self) -> None:
        # Whichever timer comes first: the order stays.
        data = self._delayed.popleft()
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._relay.sides.discard(self)
        self.transport = None
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()


class _Relay:
    def __init__(self, port: int, delay_s: float) -> None:
        self._port = port
        self.delay_s = delay_s
        self.sides: set[_Side] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._last_sent = time.monotonic()
        self._longest_silence_s = 0.0

    def connect(self, client: _Side) -> None:
        if self._is_cut:
            assert client.transport is not None
            client.transport.abort()
            return

        async def run() -> None:
            loop = asyncio.get_running_loop()
            _, server = await loop.create_connection(lambda: _Side(self, is_client=False), "127.0.0.1", self._port)
            server.peer = client
            client.meet(server)

        task = asyncio.create_task(run())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def sent(self) -> None:
        now = time.monotonic()
        self._longest_silence_s = max(self._longest_silence_s, now - self._last_sent)
        self._last_sent = now

    def cut(self) -> None:
        self._is_cut = True
        for side in list(self.sides):
            if side.transport is not None:
                side.transport.abort()

    def mend(self) -> None:
        self._is_cut = False

    def silence_s(self) -> float:
        self.sent()
        longest, self._longest_silence_s = self._longest_silence_s, 0.0
        return longest


def _serve(link: Link, port: int, delay_s: float) -> None:
    async def run() -> None:
        relay = _Relay(port, delay_s)
        server = await asyncio.get_running_loop().create_server(lambda: _Side(relay, is_client=True), "127.0.0.1", 0)
        link.say(server.sockets[0].getsockname()[1])
        while True:
            link.say(getattr(relay, await link.heard())())

    asyncio.run(run())


class Relay:
    """The bench's end of a relay to a port of this machine; each way takes `delay_s` longer."""

    def __init__(self, crew: Crew, port: int, *, delay_s: float = 0.0) -> None:
        self._worker: Worker = crew.hire(_serve, port, delay_s)
        self.hosts = f"127.0.0.1:{self._worker.hear(30)}"

    def cut(self) -> None:
        """Reset all connections, and new ones too until it is mended."""
        self._ask("cut")

    def mend(self) -> None:
        self._ask("mend")

    def silence_s(self) -> float:
        """The longest time since the last question in which nothing was sent to the server."""
        return float(self._ask("silence_s"))

    def _ask(self, question: str) -> Any:
        self._worker.tell(question)
        return self._worker.hear(10)

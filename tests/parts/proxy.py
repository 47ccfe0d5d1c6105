"""A TCP proxy whose network can be made bad: cut, refused, half-open, deaf, slow.

It runs on a thread with a loop of its own, so it serves asyncio tests, threads and other processes alike. All
methods return when what they say is so.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Way:
    """One direction of all connections: what is done to it, and what went through."""

    held: bool = False
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """0: as many as come."""
    free_s: float = 0.0
    """When what came so far has passed, at that rate."""
    size_bytes: int = 0
    frames: int = 0
    """ZooKeeper packets: a length of four bytes, then as many bytes. Held ones are counted."""


@dataclass(slots=True)
class _Frames:
    """Counts the frames of one byte stream."""

    _header: bytearray = field(default_factory=bytearray)
    _left: int = 0

    def feed(self, data: bytes) -> int:
        complete = 0
        position = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                complete += self._left == 0
            else:
                step = min(4 - len(self._header), len(data) - position)
                self._header += data[position : position + step]
                position += step
                if len(self._header) == 4:
                    self._left = int.from_bytes(self._header, "big")
                    self._header.clear()
                    complete += self._left == 0
        return complete


class _Side(asyncio.Protocol):
    """One socket of a connection: what it receives goes to its peer, through the way of its direction."""

    def __init__(self, proxy: Proxy, way: _Way) -> None:
        self._proxy = proxy
        self._way = way
        self._frames = _Frames()
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._is_reset = False
        self.transport: asyncio.Transport | None = None
        self.peer: _Side | None = None

    @property
    def is_client(self) -> bool:
        return self._way is self._proxy.requests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(1 << 30)
        self.transport = transport
        if self._is_reset:  # the connection was accepted, and all were cut, before this was called
            self.reset()

    def data_received(self, data: bytes) -> None:
        self._way.size_bytes += len(data)
        self._way.frames += self._frames.feed(data)
        self._proxy.changed()
        self._pass(data)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._pass(None)
        self._proxy.changed()

    def _pass(self, data: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        way, now = self._way, loop.time()
        if way.bytes_per_s:
            way.free_s = max(way.free_s, now) + len(data or b"") / way.bytes_per_s
        due = max(now, way.free_s) + way.delay_s
        self._waiting.append((due, data))
        if due > now:
            loop.call_later(due - now + 0.001, self.flush)
        else:
            self.flush()

    def flush(self) -> None:
        """Hand on what waits, in order, unless it is held. The end of a connection is held like its bytes."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self.peer is not None and not self._way.held:
            due, data = self._waiting[0]
            if due > now:
                return
            self._waiting.popleft()
            if self.peer.transport is None:
                continue
            if data is None:
                self.peer.transport.close()
            else:
                self.peer.transport.write(data)
        if self.transport is None and not self._waiting:
            self._proxy.sides.discard(self)

    def reset(self) -> None:
        self._is_reset = True
        if self.transport is not None:
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()
        self._waiting.clear()
        self._proxy.sides.discard(self)


class Proxy:
    """Listens on a port of 127.0.0.1 and passes everything to a target port, badly if asked to."""

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self.target_port = target_port
        self.port = port
        self.requests = _Way()
        self.replies = _Way()
        self.connections = 0
        """Accepted so far."""
        self.sides: set[_Side] = set()
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def hosts(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset all connections, both ends. New ones are accepted."""
        self._run(self._cut)

    def refuse(self) -> None:
        """Refuse new connections; those that are up stay."""
        self._run(self._refuse)

    def accept(self) -> None:
        """Accept new connections (again)."""
        asyncio.run_coroutine_threadsafe(self._accept(), self._loop).result(10)

    def half_open(self) -> None:
        """Let all connections stay up while nothing passes in either direction, as when a cable is pulled."""
        self._run(lambda: self._hold(requests=True, replies=True))

    def hold_replies(self) -> None:
        """Let requests pass and keep the answers back."""
        self._run(lambda: self._hold(requests=False, replies=True))

    def hold_requests(self) -> None:
        """Keep requests back and let answers pass."""
        self._run(lambda: self._hold(requests=True, replies=False))

    def inject_reply(self, data: bytes) -> None:
        """Send these bytes to all clients, behind what they were sent."""

        def inject() -> None:
            for side in self.sides:
                if side.is_client and side.transport is not None:
                    side.transport.write(data)

        self._run(inject)

    def heal(self) -> None:
        """Let everything pass again without delay, first of all what was held (TCP loses nothing)."""

        def heal() -> None:
            for way in (self.requests, self.replies):
                way.delay_s = way.bytes_per_s = way.free_s = 0.0
            self._hold(requests=False, replies=False)

        self._run(heal)

    def delay(self, delay_s: float) -> None:
        """Slow down each direction by this."""

        def delay() -> None:
            self.requests.delay_s = self.replies.delay_s = delay_s

        self._run(delay)

    def limit_replies(self, bytes_per_s: float) -> None:
        """Let no more than this pass towards clients; what comes faster is kept, however much it is."""

        def limit() -> None:
            self.replies.bytes_per_s = bytes_per_s

        self._run(limit)

    @property
    def open_connections(self) -> int:
        up = [side for side in self.sides if side.transport is not None and side.peer is not None]
        return sum(side.peer in up for side in up) // 2

    def wait_for(self, condition: Callable[[Proxy], bool], *, within_s: float = 10.0) -> None:
        """Block until the condition holds for this proxy's counts (in asyncio: `asyncio.to_thread`).

        Raises: TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), within_s):
                raise TimeoutError(f"after {within_s} s: {self.requests}, {self.replies}")

    def changed(self) -> None:
        """On the proxy's thread: a count has changed."""
        with self._changed:
            self._changed.notify_all()

    def _run(self, action: Callable[[], None]) -> None:
        async def on_loop() -> None:
            action()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(10)

    async def _accept(self) -> None:
        if self._server is None:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=1000)
            self.port = listener.getsockname()[1]
            self._server = await self._loop.create_server(self._accepted, sock=listener)

    def _accepted(self) -> _Side:
        near = _Side(self, self.requests)
        self.connections += 1
        self.sides.add(near)
        task = self._loop.create_task(self._connect(near))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        self.changed()
        return near

    async def _connect(self, near: _Side) -> None:
        far = _Side(self, self.replies)
        try:
            await self._loop.create_connection(lambda: far, "127.0.0.1", self.target_port)
        except OSError:
            near.reset()
            return
        if near not in self.sides:
            far.reset()
            return
        near.peer, far.peer = far, near
        self.sides.add(far)
        near.flush()
        far.flush()

    def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _cut(self) -> None:
        for task in self._connecting:
            task.cancel()
        for side in list(self.sides):
            side.reset()

    def _hold(self, *, requests: bool, replies: bool) -> None:
        self.requests.held = requests
        self.replies.held = replies
        for side in list(self.sides):
            side.flush()

"""A client that asks and takes nothing of what it is sent, as no gRPC library does: its windows of HTTP/2 stay shut.

Its connection is alive: it answers pings. What the first window takes (64 kB of each stream) is all that leaves the
server.
"""

from __future__ import annotations

import asyncio
import struct
from types import TracebackType
from typing import Self

from google.protobuf.message import Message

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x8
OF_ALL_STREAMS = 1 << 30
ACK, END_STREAM, END_HEADERS = 0x1, 0x1, 0x4


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def _header(name: bytes, value: bytes) -> bytes:
    """HPACK's literal without indexing, both of fewer than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Untaking:
    """`async with Untaking(path of the socket) as client`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream = -1

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0))
        self._writer.write(_frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", OF_ALL_STREAMS)))
        self._task = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        self._writer.close()

    def ask(self, method: str, request: Message) -> int:
        """Call a method, such as "/zkside.v1.NodeService/Get"; returns the stream."""
        self._stream += 2
        headers = b"".join(
            _header(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", method.encode()),
                (b":authority", b"localhost"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            )
        )
        encoded = request.SerializeToString()
        self._writer.write(
            _frame(HEADERS, END_HEADERS, self._stream, headers)
            + _frame(DATA, END_STREAM, self._stream, struct.pack("!BI", 0, len(encoded)) + encoded)
        )
        return self._stream

    async def _read(self) -> None:
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, _ = struct.unpack("!BBI", head[3:])
            if kind in (SETTINGS, PING) and not flags & ACK:
                self._writer.write(_frame(kind, ACK, 0, payload if kind == PING else b""))

"""Servers that misbehave at the level of frames: scripted ones, and one between the client and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager

from zkside.zk.wire import REPLY_HEADER

UNIMPLEMENTED = -6
THROTTLED = -127
SYSTEM_ERROR = -1


class Client:
    """One connection of a client, as its server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read_frame(self) -> bytes:
        """Raises: asyncio.IncompleteReadError when the client has gone."""
        (length,) = struct.unpack("!i", await self.reader.readexactly(4))
        return await self.reader.readexactly(length)

    async def read_request(self) -> tuple[int, int]:
        """(xid, opcode)."""
        return struct.unpack_from("!ii", await self.read_frame())

    def send(self, frame: bytes) -> None:
        self.writer.write(struct.pack("!i", len(frame)) + frame)

    def answer(self, xid: int, zxid: int = 1, error: int = 0, body: bytes = b"") -> None:
        self.send(REPLY_HEADER.pack(xid, zxid, error) + body)

    def event(self, kind: int, path: str) -> None:
        encoded = path.encode()
        body = struct.pack("!iii", kind, 3, len(encoded)) + encoded
        self.send(REPLY_HEADER.pack(-1, -1, 0) + body)

    async def greet(self, *, timeout_ms: int = 3000, session_id: int = 7) -> None:
        """Read the request for a session and grant one."""
        await self.read_frame()
        self.send(struct.pack("!iiqi16sB", 0, timeout_ms, session_id, 16, b"p" * 16, 0))


Script = Callable[[Client], Awaitable[None]]


@asynccontextmanager
async def scripted_server(*scripts: Script) -> AsyncIterator[str]:
    """Plays one script for each connection, the last one for all further ones. Yields the hosts."""
    waiting = list(scripts)
    playing: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        script = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await script(Client(reader, writer))
        finally:
            playing.discard(task)
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


async def answer_all(client: Client) -> None:
    """A script: grants a session and answers every request with an empty reply."""
    await client.greet()
    while True:
        xid, _ = await client.read_request()
        client.answer(xid)


async def silent(client: Client) -> None:
    """A script: takes everything and says nothing."""
    while await client.reader.read(65536):
        pass


@asynccontextmanager
async def older_release(port: int, unknown: Set[int]) -> AsyncIterator[str]:
    """A real server that does not know some opcodes, as an older release would not: it answers them with
    Unimplemented, in order. Yields the hosts."""
    async with refusing(port, dict.fromkeys(unknown, 1 << 30), UNIMPLEMENTED) as hosts:
        yield hosts


@asynccontextmanager
async def refusing(port: int, left: dict[int, int], error: int) -> AsyncIterator[str]:
    """A real server that answers so many requests with these opcodes (`left`, which counts down and may be changed)
    with this error, in order. Yields the hosts."""

    async def between(client: Client) -> None:
        upstream = Client(*await asyncio.open_connection("127.0.0.1", port))
        refused: set[int] = set()

        async def up() -> None:
            first = True
            while True:
                frame = await client.read_frame()
                xid, opcode = struct.unpack_from("!ii", frame)
                if not first and left.get(opcode, 0) > 0:
                    left[opcode] -= 1
                    # A `sync` takes its place in the server's queue, so the order of answers is kept.
                    refused.add(xid)
                    frame = struct.pack("!iii", xid, 9, 1) + b"/"
                first = False
                upstream.send(frame)

        async def down() -> None:
            while True:
                frame = await upstream.read_frame()
                xid, zxid, _ = REPLY_HEADER.unpack_from(frame) if len(frame) >= 16 else (0, 0, 0)
                if xid in refused:
                    refused.discard(xid)
                    frame = REPLY_HEADER.pack(xid, zxid, error)
                client.send(frame)

        ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            upstream.writer.close()

    async with scripted_server(between) as hosts:
        yield hosts

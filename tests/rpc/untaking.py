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

from tests.parts.http2 import (
    DATA,
    END_STREAM,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Answers,
    frame,
    header_block,
    opened,
)

OF_ALL_STREAMS = 1 << 30


class Untaking:
    """`async with Untaking(path of the socket) as client`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream = -1

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0))
        self._writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", OF_ALL_STREAMS)))
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
        encoded = request.SerializeToString()
        self._writer.write(
            opened(self._stream, header_block(method))
            + frame(DATA, END_STREAM, self._stream, struct.pack("!BI", 0, len(encoded)) + encoded)
        )
        return self._stream

    async def _read(self) -> None:
        answers = Answers()
        while data := await self._reader.read(1 << 16):
            if answer := answers.to(data):
                self._writer.write(answer)

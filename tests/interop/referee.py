"""The referee: one process outside of every library, to which all contenders report over TCP.

A contender's lines, each answered before it goes on:

    join NAME exclusive|shared      answered "go" when all who are expected have come
    enter SEQUENCE                  it was granted; "-" for a number that it does not know
    leave                           it is about to let go; answered "on", or "end" when there were enough grants

A connection that breaks counts as having left: its process is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from types import TracebackType
from typing import Self

from tests.interop.ledger import UNTOLD, Ledger


class Referee:
    """`async with Referee(contenders=4, grants=1000) as referee`: listens on a free port of 127.0.0.1.

    One loop hears all, so between a "leave" and the "enter" that it made possible there is always an order.
    The first "enter" of a `detained` contender is not answered: it stays inside until it is killed. No "enter" is
    answered before `together` contenders were inside at once.
    """

    def __init__(
        self, *, contenders: int, grants: int, permits: int = 1, detained: Collection[str] = (), together: int = 1
    ) -> None:
        self.ledger = Ledger(permits)
        self.detained = set(detained)
        self.port = 0
        self._expected = contenders
        self._grants = grants
        self._names: set[str] = set()
        self._all_came = asyncio.Event()
        self._together = together
        self._met = asyncio.Event()
        self._entered = asyncio.Condition()
        self._over = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.StreamWriter] = set()

    @property
    def waiting_for(self) -> int:
        """How many have not come yet."""
        return self._expected - len(self._names)

    async def wait_inside(self, who: str) -> None:
        """Return when this contender is inside."""
        async with self._entered:
            await self._entered.wait_for(lambda: who in self.ledger.inside)

    async def wait_grants(self, number: int) -> None:
        """Return when there were so many grants."""
        async with self._entered:
            await self._entered.wait_for(lambda: self.ledger.grants.total() >= number)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        name, shared = "", False
        try:
            # A process that was killed resets its connection.
            with contextlib.suppress(ConnectionError):
                while line := (await reader.readline()).decode().split():
                    match line:
                        case ["join", name, mode]:
                            shared = mode == "shared"
                            answer = await self._join(name)
                        case ["enter", number]:
                            sequence = UNTOLD if number == "-" else int(number)
                            answer = await self._enter(name, shared=shared, sequence=sequence)
                        case ["leave"]:
                            self.ledger.leave(name)
                            answer = "on" if self.ledger.grants.total() < self._grants else "end"
                        case _:
                            raise AssertionError(f"{name} says {line}")
                    writer.write(f"{answer}\n".encode())
        finally:
            self.ledger.leave(name)
            self._lines.discard(writer)
            writer.close()

    async def _join(self, name: str) -> str:
        assert name not in self._names, f"two contenders call themselves {name}"
        self._names.add(name)
        if self.waiting_for == 0:
            self._all_came.set()
        await self._all_came.wait()
        return "go"

    async def _enter(self, name: str, *, shared: bool, sequence: int) -> str:
        self.ledger.enter(name, shared=shared, sequence=sequence)
        async with self._entered:
            self._entered.notify_all()
        if len(self.ledger.inside) >= self._together:
            self._met.set()
        await self._met.wait()
        if name in self.detained:
            await self._over.wait()
        return "ok"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            self._over.set()
            self._all_came.set()
            for line in self._lines:
                line.close()
            await self._server.wait_closed()


class Line:
    """A contender's end, for contenders in asyncio."""

    def __init__(self, port: int, name: str, *, shared: bool = False) -> None:
        self._port = port
        self._greeting = f"join {name} {'shared' if shared else 'exclusive'}"

    async def turn(self, sequence: str = "-") -> bool:
        """Call it only while holding: it enters and leaves. Whether to take another turn."""
        await self.enter(sequence)
        return await self.leave()

    async def enter(self, sequence: str = "-") -> None:
        await self._ask(f"enter {sequence}")

    async def leave(self) -> bool:
        return await self._ask("leave") == "on"

    async def _ask(self, line: str) -> str:
        self._writer.write(f"{line}\n".encode())
        answer = (await self._reader.readline()).decode().strip()
        if not answer:
            raise EOFError("the referee is gone")
        return answer

    async def __aenter__(self) -> Self:
        """Returns when all contenders have come."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        await self._ask(self._greeting)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

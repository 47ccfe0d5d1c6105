"""Members and instances of real Curator, in a process that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.interop.contest import Running, java, running

WITHIN_S = 10.0
"""Longer than it takes until a change is known everywhere, or a session of a dead process ends."""


class Curator:
    """A process of tests/interop/java that answers each command with a line of JSON."""

    def __init__(self, process: Running) -> None:
        self._running = process

    async def ask(self, command: str) -> Any:
        """Raises: AssertionError with its complaints if it ended."""
        process = self._running.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{command}\n".encode())
        line = await process.stdout.readline()
        assert line, f"Curator ended at {command!r}:\n{self._running.told()}"
        return json.loads(line)

    async def leave(self) -> None:
        """End in order: it leaves what it was in."""
        assert self._running.process.stdin is not None
        self._running.process.stdin.close()
        assert await self._running.process.wait() == 0, self._running.told()

    def kill(self) -> None:
        """As a crash would: its session is there until it times out."""
        self._running.process.kill()


@contextlib.asynccontextmanager
async def group_member(hosts: str, path: str, member_id: str, data: str) -> AsyncIterator[Curator]:
    """Commands: "list", "data TEXT"; both answer with all members' data by their ids."""
    async with _answering("group", hosts, path, member_id, data) as curator:
        yield curator


@contextlib.asynccontextmanager
async def discovery(hosts: str, base_path: str) -> AsyncIterator[Curator]:
    """Commands: "register NAME ID ADDRESS PORT PAYLOAD", "unregister ID", "query NAME", "watch NAME"."""
    async with _answering("discovery", hosts, base_path) as curator:
        yield curator


@contextlib.asynccontextmanager
async def _answering(*arguments: str) -> AsyncIterator[Curator]:
    pipe = asyncio.subprocess.PIPE
    async with running(f"curator {arguments[0]}", (*java(), *arguments), stdin=pipe, stdout=pipe) as process:
        yield Curator(process)


async def agree(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Return when somebody who can only be asked knows what is expected.

    Raises: AssertionError with what it knows instead.
    """
    known = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN_S):
            while (known := await ask()) != expected:  # noqa: ASYNC110  # who does not tell has to be asked
                await asyncio.sleep(0.01)
    assert known == expected

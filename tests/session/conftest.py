"""Sessions on ZooKeeper in process under a virtual clock, and on real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.parts.clock import VirtualClock
from tests.session.parts import Heard
from zkside.zk.journal import Journal
from zkside.zk.memory import MemoryZooKeeper, memory_connector
from zkside.zk.port import Connector
from zkside.zk.session import Session, SessionSettings


@asynccontextmanager
async def running(
    connector: Connector,
    settings: SessionSettings | None = None,
    journal: Journal | None = None,
    clock: VirtualClock | None = None,
) -> AsyncIterator[tuple[Session, Heard]]:
    """A started session and what is heard of it; closed in the end, however the test ends."""
    session = Session(connector, settings or SessionSettings(), journal, clock)
    heard = Heard(session)
    session.start()
    try:
        yield session, heard
    finally:
        await close(session, clock)


async def close(session: Session, clock: VirtualClock | None) -> None:
    closing = asyncio.ensure_future(session.close(keep_session=False, within_s=1.0))
    if clock is not None:
        await clock.advance(2.0)
    async with asyncio.timeout(10):
        await closing


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def memory(clock: VirtualClock) -> MemoryZooKeeper:
    return MemoryZooKeeper(clock=clock)


class Sessions:
    """Sessions on the ZooKeeper in process, under the virtual clock."""

    def __init__(self, memory: MemoryZooKeeper, clock: VirtualClock, stack: AsyncExitStack) -> None:
        self._memory = memory
        self._clock = clock
        self._stack = stack

    async def open(
        self,
        settings: SessionSettings | None = None,
        *,
        connector: Connector | None = None,
        journal: Journal | None = None,
    ) -> tuple[Session, Heard]:
        """Started, and settled: connected unless something is in the way."""
        pair = await self._stack.enter_async_context(
            running(connector or memory_connector(self._memory), settings, journal, self._clock)
        )
        await self._clock.settle()
        return pair


@pytest.fixture
async def sessions(memory: MemoryZooKeeper, clock: VirtualClock) -> AsyncIterator[Sessions]:
    async with AsyncExitStack() as stack:
        yield Sessions(memory, clock, stack)

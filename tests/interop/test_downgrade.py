"""Curator's InterProcessReadWriteLock, downgraded while zkside waits."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.interop.contest import Stage, curator, running
from tests.interop.referee import Referee
from tests.interop.zkside_contender import until_held
from zkside.pb import hold_pb2, lock_pb2, lock_pb2_grpc

pytestmark = pytest.mark.interop


async def test_a_writer_waits_for_the_read_lock_that_a_write_lock_became(stage: Stage, path: str) -> None:
    """H1, H8: it is not granted when the write lock is released, and is when the read lock is."""
    crew = curator("downgrade", 1)
    [name] = crew.names
    async with (
        Referee(contenders=1, grants=1, detained={name}) as referee,
        grpc.aio.insecure_channel(stage.daemons[0]) as channel,
    ):
        locks: Any = lock_pb2_grpc.LockServiceStub(channel)
        request = lock_pb2.AcquireRequest(path=path, layout=lock_pb2.LOCK_LAYOUT_CURATOR_READ_WRITE)
        first = locks.Acquire(request)
        await until_held(first)
        async with running(str(crew), stage.command(crew, path, referee.port)):
            # It queues behind the first, and another one behind it before it holds anything.
            contenders = lock_pb2.GetContendersRequest(path=path)
            while len((await locks.GetContenders(contenders)).contenders) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            second = locks.Acquire(request)
            assert (await second.read()).position == 1

            async def held() -> None:
                while (await second.read()).state != hold_pb2.HOLD_STATE_HELD:
                    pass

            granted = asyncio.ensure_future(held())
            first.cancel()
            await referee.wait_inside(name)
            done, _ = await asyncio.wait([granted], timeout=1.0)
            assert not done
        # It was killed, and its session ends.
        await granted

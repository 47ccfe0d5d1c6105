"""What thousands of waiters and steps cost the daemon, in a process of its own, by its own metrics."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.stand import Daemon, daemon
from zkside.pb import carry_pb2_grpc, hold_pb2, lock_pb2_grpc, session_pb2, session_pb2_grpc
from zkside.pb.carry_pb2 import CarryRelease, CarryRequest, CarryStep
from zkside.pb.lock_pb2 import LOCK_MODE_EXCLUSIVE, LOCK_MODE_SHARED, AcquireRequest, LockMode
from zkside.recipes.turnstile import AT_ONCE, FEW, Turnstile

STALL_S = 1.0
"""Far more than is seen where the processors are free (0.2 s, most of it the garbage collector's), far less than when
the work of all waiters was done in one turn (5 to 20 s)."""
WITHIN_S = 100.0
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class Carrying:
    """One stream, and what was heard of its tags."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = carry_pb2_grpc.CarryServiceStub(channel)
        self._stream = stub.Carry()
        self.states: dict[int, int] = {}
        self.refused: dict[int, str] = {}

    async def ask(self, steps: Sequence[CarryStep]) -> None:
        await self._stream.write(CarryRequest(steps=steps))

    async def until(self, count: int, state: int) -> None:
        """So many have been in this state last, or were refused."""
        async with asyncio.timeout(WITHIN_S):
            while sum(each == state for each in self.states.values()) + len(self.refused) < count:
                for told in (await self._stream.read()).updates:
                    if told.HasField("failure"):
                        self.refused[told.tag] = told.failure.reason
                    else:
                        self.states[told.tag] = told.update.state

    def end(self) -> None:
        self._stream.cancel()


@pytest.fixture
async def channel(running: Daemon) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running.address) as channel:
        yield channel


@pytest.fixture
async def running(hosts: str) -> AsyncIterator[Daemon]:
    with daemon(hosts, ZKSIDE_ZOOKEEPER_SESSION_TIMEOUT="30s") as running:
        yield running


def stall_s(running: Daemon) -> float:
    """The longest, as it were if nobody else wanted the processors."""
    wanted = os.getloadavg()[0] / (os.cpu_count() or 1)
    return running.metrics()["zkside_event_loop_lag_max_seconds"] / max(1.0, wanted)


def resident_mb(running: Daemon) -> float:
    (line,) = (each for each in Path(f"/proc/{running.pid}/status").read_text().splitlines() if "VmRSS" in each)
    return int(line.split()[1]) / 1024


def acquires(count: int, mode: LockMode.ValueType = LOCK_MODE_EXCLUSIVE) -> list[CarryStep]:
    return [CarryStep(tag=tag, acquire=AcquireRequest(path="/lock", mode=mode)) for tag in range(1, count + 1)]


@pytest.mark.faults
@pytest.mark.parametrize("mode", [LOCK_MODE_EXCLUSIVE, LOCK_MODE_SHARED])
async def test_six_thousand_wait_at_one_path_and_the_loop_goes_on(
    running: Daemon, channel: grpc.aio.Channel, mode: LockMode.ValueType
) -> None:
    """O1, O4: as they come, as a group of readers is granted, and as their process dies."""
    holder, waiting = Carrying(channel), Carrying(channel)
    await holder.ask(acquires(1))
    await holder.until(1, hold_pb2.HOLD_STATE_HELD)
    await waiting.ask(acquires(6000, mode))
    await waiting.until(6000, hold_pb2.HOLD_STATE_WAITING)
    assert not waiting.refused
    await holder.ask([CarryStep(tag=1, release=CarryRelease())])
    await waiting.until(6000 if mode == LOCK_MODE_SHARED else 1, hold_pb2.HOLD_STATE_HELD)
    waiting.end()
    async with asyncio.timeout(WITHIN_S):
        while any(count for name, count in running.metrics().items() if name.startswith("zkside_holds{")):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert stall_s(running) < STALL_S


@pytest.mark.faults
async def test_sixty_thousand_steps_of_one_message_keep_nobody_else_waiting(
    running: Daemon, channel: grpc.aio.Channel
) -> None:
    """O4: gRPC took one call in two turns of the loop, and each turn was long: others waited for 4.9 s."""
    waited_s: list[float] = []
    heard_s: list[float] = []

    async def call(other: grpc.aio.Channel) -> None:
        stub: Any = session_pb2_grpc.SessionServiceStub(other)
        while True:
            began_s = time.monotonic()
            await stub.GetSession(session_pb2.GetSessionRequest())
            waited_s.append(time.monotonic() - began_s)
            await asyncio.sleep(0.02)

    async def hold(other: grpc.aio.Channel) -> None:
        stub: Any = lock_pb2_grpc.LockServiceStub(other)
        async for update in stub.Acquire(AcquireRequest(path="/mine")):
            assert update.state == hold_pb2.HOLD_STATE_HELD, update
            heard_s.append(time.monotonic())

    async with grpc.aio.insecure_channel(running.address, options=OWN_CONNECTION) as other:
        tasks = [asyncio.ensure_future(each(other)) for each in (call, hold)]
        await asyncio.sleep(1.0)
        carrying = Carrying(channel)
        await carrying.ask(acquires(60_000))
        await asyncio.sleep(10.0)
        carrying.end()
        await asyncio.sleep(5.0)
        for task in tasks:
            assert not task.done(), task
            task.cancel()
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert max(waited_s) < STALL_S * busy
    # A fourth of the session's 30 s, and what a busy host may add.
    assert max(later - before for before, later in pairwise(heard_s)) < 10.0 * busy


@pytest.mark.faults
async def test_sixty_thousand_steps_of_one_message_are_begun_or_refused_in_turns(
    running: Daemon, channel: grpc.aio.Channel
) -> None:
    """O1, O4: so many holds as the daemon may have, and an error for each of the others."""
    carrying = Carrying(channel)
    await carrying.ask(acquires(60_000))
    await carrying.until(59_999, hold_pb2.HOLD_STATE_WAITING)
    assert len(carrying.refused) == 50_000
    assert set(carrying.refused.values()) == {"QUOTA"}
    assert stall_s(running) < STALL_S


@pytest.mark.parametrize("step", [CarryStep(), CarryStep(acquire=AcquireRequest())], ids=["no content", "no path"])
async def test_steps_without_sense_cost_nothing_when_they_are_answered(
    running: Daemon, channel: grpc.aio.Channel, step: CarryStep
) -> None:
    """O1"""
    before_mb = resident_mb(running)
    carrying = Carrying(channel)
    steps = [CarryStep(tag=tag) for tag in range(100_000)]
    for each in steps:
        each.MergeFrom(step)
    for start in range(0, len(steps), 10_000):
        await carrying.ask(steps[start : start + 10_000])
    await carrying.until(100_000, hold_pb2.HOLD_STATE_WAITING)
    assert {*carrying.refused.values()} <= {"INVALID_ARGUMENT", "INVALID_PATH"}
    assert resident_mb(running) - before_mb < 80
    assert stall_s(running) < STALL_S


async def test_a_few_go_on_in_one_turn_of_the_loop() -> None:
    """O4: at once while they are few, and those who have gone meanwhile do not count."""
    loop = asyncio.get_running_loop()
    turnstile = Turnstile()
    turnstile.crowd = FEW + 1
    futures = [loop.create_future() for _ in range(3 * AT_ONCE)]
    for future in futures[:AT_ONCE]:
        future.cancel()
    turnstile.let_through(futures[:1])
    turnstile.let_through(futures[1:])
    through = []
    for _ in range(5):
        through.append(sum(future.done() for future in futures) - AT_ONCE)
        await asyncio.sleep(0)
    assert through == [AT_ONCE, AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE]
    later = loop.create_future()
    turnstile.let_through([later])
    assert later.done()

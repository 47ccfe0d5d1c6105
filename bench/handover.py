"""One lock and N waiters: what a release costs, in time and in ZooKeeper's packets, while N grows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import grpc

from bench import stand
from bench.crew import Crew, Link, cpu_s
from bench.figures import Curve, Findings, Goal, Plan, Row, Samples, at_most, percentile
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.pb import hold_pb2, hold_pb2_grpc, lock_pb2, lock_pb2_grpc

ROOT = "/handover"
DAEMONS = 4
GOAL_GROWTH = 1.25
TOGETHER, SPREAD = "all waiters in one daemon", f"waiters spread over {DAEMONS} daemons"
SETTING = (
    "One client process has a stream for each waiter; the holder releases, the next is granted, and so on, always "
    "one at a time, with at least half of the N still waiting at the end. A hand-over runs from before Release until "
    "the next stream has heard HELD. Events are what the server sends unasked; watches are pairs of path and session, "
    "with the holder's own node among them."
)


class _Queue:
    """Streams on one lock, spread over daemons."""

    def __init__(self, path: str, channels: list[grpc.aio.Channel], tasks: asyncio.TaskGroup) -> None:
        self._request = lock_pb2.AcquireRequest(path=path)
        self._locks: list[Any] = [lock_pb2_grpc.LockServiceStub(channel) for channel in channels]
        self._holds: list[Any] = [hold_pb2_grpc.HoldServiceStub(channel) for channel in channels]
        self._tasks = tasks
        self._granted: asyncio.Queue[tuple[int, tuple[int, str]]] = asyncio.Queue()
        self._holder: tuple[int, str] | None = None
        self._waiting = 0
        self._asked = 0
        self._told = 0
        """Updates of waiters that said something new: another place, or HELD."""
        self._all_there = asyncio.Event()

    async def fill(self, waiters: int) -> float:
        """Until so many wait behind a holder; how long that took, in seconds."""
        start = time.monotonic()
        for _ in range(waiters - self._waiting + (self._holder is None)):
            self._tasks.create_task(self._stand(self._asked % len(self._locks)))
            self._asked += 1
        if self._holder is None:
            _, self._holder = await self._granted.get()
        while self._waiting < waiters:
            self._all_there.clear()
            await self._all_there.wait()
        return time.monotonic() - start

    async def hand_over(self, times: int) -> tuple[list[float], int]:
        """So many in a row; how long each took, in milliseconds, and what all waiters were told."""
        took = []
        before = self._told
        for _ in range(times):
            assert self._holder is not None
            daemon, hold_id = self._holder
            start = time.monotonic_ns()
            released = self._holds[daemon].Release(hold_pb2.ReleaseRequest(hold_id=hold_id))
            when, self._holder = await self._granted.get()
            took.append((when - start) / 1e6)
            await released
        return took, self._told - before

    async def _stand(self, daemon: int) -> None:
        states = set()
        place = -1
        async for update in self._locks[daemon].Acquire(self._request):
            if update.state == hold_pb2.HOLD_STATE_WAITING and update.position != place:
                self._told += 1
                place = update.position
            if update.state in states:
                continue  # another place, or a later lease
            states.add(update.state)
            if update.state == hold_pb2.HOLD_STATE_WAITING:
                self._waiting += 1
                self._all_there.set()
            elif update.state == hold_pb2.HOLD_STATE_HELD:
                self._waiting -= hold_pb2.HOLD_STATE_WAITING in states
                self._told += 1
                self._granted.put_nowait((time.monotonic_ns(), (daemon, update.hold.hold_id)))
            assert update.state != hold_pb2.HOLD_STATE_LOST, update


def queue(link: Link, addresses: list[str], path: str) -> None:
    """Work: told ("fill", N) or ("hand_over", times), says what that brought."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(grpc.aio.insecure_channel(address)) for address in addresses]
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            standing = _Queue(path, channels, tasks)
            while True:
                what, number = await link.heard()
                link.say(await getattr(standing, what)(number))

    asyncio.run(run())


def run(plan: Plan) -> Findings:
    sizes = (10, 30) if plan.quick else (10, 100, 1000)
    times = plan.scaled(100, 5)
    samples = Samples()
    with stand.zookeeper() as server:
        for repetition in range(plan.repetitions):
            for variant, count in ((TOGETHER, 1), (SPREAD, DAEMONS)):
                with contextlib.ExitStack() as stack:
                    daemons = [stack.enter_context(stand.daemon(server.hosts)) for _ in range(count)]
                    crew = stack.enter_context(Crew())
                    worker = crew.hire(queue, [daemon.address for daemon in daemons], f"{ROOT}/{repetition}/{count}")
                    for size in sizes:
                        _measure(samples, (variant, size), server, daemons, worker, size, times)
    curves = tuple(
        Curve(variant, tuple((size, samples.median(variant, size, "p50")) for size in sizes))
        for variant in (TOGETHER, SPREAD)
    )
    return Findings(tuple(_rows(samples, sizes, times)), SETTING, curves, ("waiters", "a hand-over, p50 [ms]"))


def _measure(
    samples: Samples,
    key: tuple[str, int],
    server: ZooKeeperServer,
    daemons: list[stand.Daemon],
    worker: Any,
    size: int,
    times: int,
) -> None:
    """Hand over so many times with this many waiters, or at least half of them."""
    took_ms: list[float] = []
    packets = events = told = 0
    used_s = 0.0
    while len(took_ms) < times:
        worker.tell(("fill", size))
        filled_s = worker.hear(120)
        asked, before = _settled(server)
        if not took_ms:
            samples.add(*key, "filled", value=filled_s)
            samples.add(*key, "watches", value=before.watches / size)
        started_s = sum(cpu_s(daemon.pid) for daemon in daemons)
        worker.tell(("hand_over", min(times - len(took_ms), size // 2)))
        more_ms, heard = worker.hear(60)
        took_ms += more_ms
        told += heard
        used_s += sum(cpu_s(daemon.pid) for daemon in daemons) - started_s
        after = stand.load_of(server)
        packets += after.packets - before.packets - asked.packets
        events += after.events - before.events - asked.events
    samples.add(*key, "p50", value=percentile(took_ms, 50))
    samples.add(*key, "p99", value=percentile(took_ms, 99))
    samples.add(*key, "packets", value=packets / times)
    samples.add(*key, "events", value=events / times)
    samples.add(*key, "told", value=told / times)
    samples.add(*key, "cpu", value=used_s * 1e6 / times)


def _settled(server: ZooKeeperServer) -> tuple[stand.Load, stand.Load]:
    """What asking costs, and the load, when the watches have stopped to change."""
    before = stand.load_of(server)
    while True:
        time.sleep(0.2)
        first, second = stand.load_of(server), stand.load_of(server)
        if before.watches == first.watches == second.watches:
            asked = stand.Load(0, 0, second.packets - first.packets, second.events - first.events)
            return asked, second
        before = second


def _rows(samples: Samples, sizes: tuple[int, ...], times: int) -> Iterator[Row]:
    for variant in (TOGETHER, SPREAD):
        for size in sizes:
            subject = f"{size:,} waiters, {variant}, {times} releases"
            key = (variant, size)
            goals: dict[str, tuple[Goal, ...]] = {}
            if size == sizes[-1]:
                growth = samples.median(*key, "p50") / samples.median(variant, sizes[0], "p50")
                goals = {
                    "p50": (at_most(f"≤ 1.25 times that with {sizes[0]}: does not grow", growth, GOAL_GROWTH),),
                    "told": (at_most("1 waiter is woken", samples.median(*key, "told"), 1),),
                    "events": (at_most("≤ 2: to it, and to the holder's own host", samples.median(*key, "events"), 2),),
                    "watches": (at_most("1 watch per waiter", round(samples.median(*key, "watches"), 2), 1),),
                }
            yield samples.row((*key, "p50"), subject, "a hand-over, p50", "ms", goals.get("p50", ()))
            yield samples.row((*key, "p99"), subject, "a hand-over, p99", "ms")
            yield samples.row((*key, "told"), subject, "updates told to waiters per release", "", goals.get("told", ()))
            yield samples.row((*key, "events"), subject, "events sent per release", "", goals.get("events", ()))
            yield samples.row((*key, "packets"), subject, "packets per release", "")
            yield samples.row((*key, "watches"), subject, "watches per waiter", "", goals.get("watches", ()))
            yield samples.row((*key, "cpu"), subject, "processor time of all daemons, each", "µs")
            yield samples.row((*key, "filled"), subject, "until they wait", "s")

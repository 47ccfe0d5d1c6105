"""Uncontended locks: acquire and release through the daemon, beside kazoo's raw create and delete."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from bench import bare, closed, stand
from bench.crew import Crew, Link
from bench.figures import Findings, Goal, Plan, Row, Samples, at_least
from zkside.pb import carry_pb2, carry_pb2_grpc, hold_pb2, hold_pb2_grpc, lock_pb2, lock_pb2_grpc

ROOT = "/locks"
GOAL_SHARE = 0.6
CARRIED, RELEASE, STREAM_END, KAZOO, KAZOO_LOCK, BARE = (
    "zkside, Carry",
    "zkside, Acquire and Release",
    "zkside, Acquire and end of stream",
    "kazoo create and delete, pipelined",
    "kazoo Lock, a thread each",
    "bare grpc.aio, same messages",
)
VARIANTS = (CARRIED, RELEASE, STREAM_END, KAZOO, KAZOO_LOCK, BARE)
SETTING = (
    "One client process takes locks that nobody else wants and lets them go, in closed loops, each on a lock of its "
    "own whose parent exists. Carry is one stream for all of them, as the SDK uses it; a lock counts when its node is "
    "gone. With Acquire each lock has a stream of its own, and Release answers when the node is gone; where the stream "
    "is just ended the next Acquire does not wait for that. kazoo's create makes an ephemeral sequential node below "
    "such a parent, which is less than a lock: nobody looked whether it is the first. kazoo's Lock does that. The bare "
    "server answers Acquire and Release at once and does nothing else: what gRPC alone costs. ZooKeeper writes its log "
    "without waiting for the disk."
)


def path_of(slot: int) -> str:
    return f"{ROOT}/{slot:03}"


def take_through_daemon(link: Link, address: str, ends_stream: bool, concurrency: int, duration_s: float) -> None:
    """Work: acquire, then release and hear RELEASED; or end the stream instead."""

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            locks: Any = lock_pb2_grpc.LockServiceStub(channel)
            holds: Any = hold_pb2_grpc.HoldServiceStub(channel)
            free = deque(lock_pb2.AcquireRequest(path=path_of(slot)) for slot in range(concurrency))

            async def take() -> None:
                request = free.popleft()
                stream = locks.Acquire(request)
                update = await stream.read()
                while update.state == hold_pb2.HOLD_STATE_WAITING:  # where the end of a stream has just let go
                    assert ends_stream, update
                    update = await stream.read()
                assert update.state == hold_pb2.HOLD_STATE_HELD, update
                if ends_stream:
                    stream.cancel()
                else:
                    await holds.Release(hold_pb2.ReleaseRequest(hold_id=update.hold.hold_id))
                    while update.state == hold_pb2.HOLD_STATE_HELD:  # there may be a later lease on its way
                        update = await stream.read()
                    assert update.state == hold_pb2.HOLD_STATE_RELEASED, update
                free.append(request)

            await closed.report(link, take, concurrency, duration_s)

    asyncio.run(run())


def carry_through_daemon(link: Link, address: str, concurrency: int, duration_s: float) -> None:
    """Work: acquire, then release and hear that the node is gone, all over one stream."""

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = carry_pb2_grpc.CarryServiceStub(channel)
            stream = stub.Carry()
            heard: dict[int, asyncio.Future[Any]] = {}
            steps: list[carry_pb2.CarryStep] = []
            asked = asyncio.Event()

            async def write() -> None:
                while True:
                    await asked.wait()
                    asked.clear()
                    request = carry_pb2.CarryRequest(steps=steps)
                    steps.clear()
                    await stream.write(request)

            async def read() -> None:
                while True:
                    for update in (await stream.read()).updates:
                        assert not update.HasField("failure"), update
                        if update.ended or update.update.state == hold_pb2.HOLD_STATE_HELD:
                            heard.pop(update.tag).set_result(update)

            async def hear(step: carry_pb2.CarryStep) -> Any:
                answer = heard[step.tag] = asyncio.get_running_loop().create_future()
                steps.append(step)
                asked.set()
                return await answer

            free = deque(
                (
                    carry_pb2.CarryStep(tag=slot, acquire=lock_pb2.AcquireRequest(path=path_of(slot))),
                    carry_pb2.CarryStep(tag=slot, release=carry_pb2.CarryRelease()),
                )
                for slot in range(concurrency)
            )

            async def take() -> None:
                acquire, release = free.popleft()
                granted = await hear(acquire)
                assert granted.update.state == hold_pb2.HOLD_STATE_HELD, granted
                assert (await hear(release)).ended
                free.append((acquire, release))

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(write())
                tasks.create_task(read())
                await closed.report(link, take, concurrency, duration_s)

    asyncio.run(run())


def create_and_delete(link: Link, hosts: str, concurrency: int, duration_s: float) -> None:
    """Work: kazoo's asynchronous API; the oldest request is waited for before the next is sent."""
    with stand.kazoo(hosts) as client:

        def loop(duration_s: float) -> closed.Pace:
            latencies: list[int] = []
            creating: deque[tuple[int, Any]] = deque()
            deleting: deque[tuple[int, Any]] = deque()
            slots = itertools.cycle(range(concurrency))
            start = time.perf_counter_ns()
            end = start + int(duration_s * 1e9)
            while (now := time.perf_counter_ns()) < end or creating or deleting:
                while now < end and len(creating) + len(deleting) < concurrency:
                    parent = path_of(next(slots))
                    creating.append((now, client.create_async(f"{parent}/lock-", ephemeral=True, sequence=True)))
                if creating:
                    began, created = creating.popleft()
                    deleting.append((began, client.delete_async(created.get())))
                if deleting and (len(deleting) > concurrency // 2 or not creating):
                    began, deleted = deleting.popleft()
                    deleted.get()
                    latencies.append(time.perf_counter_ns() - began)
            return closed.pace(latencies, time.perf_counter_ns() - start)

        _serve(link, loop, duration_s)


def take_with_kazoo(link: Link, hosts: str, concurrency: int, duration_s: float) -> None:
    """Work: kazoo's Lock, which blocks; so a thread for each that is under way."""
    with stand.kazoo(hosts) as client, ThreadPoolExecutor(concurrency) as threads:
        locks = [client.Lock(path_of(slot)) for slot in range(concurrency)]

        def take(lock: Any, end: int) -> list[int]:
            latencies: list[int] = []
            while (start := time.perf_counter_ns()) < end:
                with lock:
                    pass
                latencies.append(time.perf_counter_ns() - start)
            return latencies

        def loop(duration_s: float) -> closed.Pace:
            start = time.perf_counter_ns()
            taken = threads.map(take, locks, [start + int(duration_s * 1e9)] * concurrency)
            latencies = list(itertools.chain.from_iterable(taken))
            return closed.pace(latencies, time.perf_counter_ns() - start)

        _serve(link, loop, duration_s)


def _serve(link: Link, loop: Callable[[float], closed.Pace], duration_s: float) -> None:
    loop(closed.WARM_S)
    link.say("ready")
    while True:
        link.hear()
        link.say(loop(duration_s))


def run(plan: Plan) -> Findings:
    duration_s, turns = (0.3, 1) if plan.quick else (1.0, 5)
    concurrencies = (1, 16) if plan.quick else (1, 16, 64)
    samples = Samples()
    with stand.zookeeper() as server, stand.kazoo(server.hosts) as writer:
        for slot in range(max(concurrencies)):
            writer.ensure_path(path_of(slot))
        for _ in range(plan.repetitions):
            with stand.daemon(server.hosts) as daemon, stand.socket_address() as bare_address, Crew() as crew:
                bare_pid = crew.hire(bare.serve, bare_address, path_of(0), b"").pid
                crew.hear()
                for concurrency in concurrencies:
                    loop = (concurrency, duration_s)
                    with closed.Peers() as peers:
                        peers.add(CARRIED, daemon.pid, 1, carry_through_daemon, daemon.address, *loop)
                        peers.add(RELEASE, daemon.pid, 1, take_through_daemon, daemon.address, False, *loop)
                        peers.add(STREAM_END, daemon.pid, 1, take_through_daemon, daemon.address, True, *loop)
                        peers.add(KAZOO, server.pid, 1, create_and_delete, server.hosts, *loop)
                        peers.add(KAZOO_LOCK, server.pid, 1, take_with_kazoo, server.hosts, *loop)
                        peers.add(BARE, bare_pid, 1, take_through_daemon, bare_address, False, *loop)
                        peers.run(samples, turns, concurrency)
    return Findings(rows=tuple(_rows(samples, concurrencies)), setting=SETTING)


def _rows(samples: Samples, concurrencies: tuple[int, ...]) -> Iterator[Row]:
    for concurrency in concurrencies:
        for variant in VARIANTS:
            subject = f"{variant}, {concurrency} under way"
            goals = _goals(samples, variant, concurrency)
            yield samples.row((variant, concurrency, "rate"), subject, "locks", "/s", goals)
            yield samples.row((variant, concurrency, "p50"), subject, "latency, p50", "µs")
            yield samples.row((variant, concurrency, "server"), subject, "processor time of the server, each", "µs")


def _goals(samples: Samples, variant: str, concurrency: int) -> tuple[Goal, ...]:
    if variant != CARRIED:
        return ()
    share = samples.median(CARRIED, concurrency, "rate") / samples.median(KAZOO, concurrency, "rate")
    return (at_least("≥ 60 % of kazoo's create and delete", share, GOAL_SHARE),)

"""5,000 holds in one daemon: what each occupies, and how soon all hear that the connection is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc

from bench import stand
from bench.crew import Crew, Link, settled_bytes
from bench.figures import Findings, Plan, Row, Samples
from bench.relay import Relay
from zkside.pb import carry_pb2, carry_pb2_grpc, hold_pb2, lock_pb2, lock_pb2_grpc, node_pb2, node_pb2_grpc

ROOT = "/jeopardy"
PROCESSES = 8
LOCKS, EPHEMERALS, CARRIED = "locks (Acquire)", "ephemeral nodes (HoldEphemeral)", "locks (Carry)"
SETTING = (
    f"Every hold is a stream of its own, or (Carry) one of many on the stream of its process; {PROCESSES} client "
    "processes. The connection between daemon and ZooKeeper is reset, and refused until all have heard JEOPARDY; then "
    "it is allowed again. Times run from before the reset, or before the permission, until a client process has the "
    "message. Memory is growth of the daemon's RSS by a hold with its stream."
)

Updates = AsyncIterator[tuple[object, hold_pb2.HoldUpdate]]
"""Of one stream: which hold, and what of it."""
Open = Callable[[grpc.aio.Channel, list[str]], list[Updates]]
"""The streams that hold these paths."""


async def each_alone(stream: Any) -> Updates:
    async for update in stream:
        yield stream, update


def lock(channel: grpc.aio.Channel, paths: list[str]) -> list[Updates]:
    stub: Any = lock_pb2_grpc.LockServiceStub(channel)
    return [each_alone(stub.Acquire(lock_pb2.AcquireRequest(path=path))) for path in paths]


def ephemeral(channel: grpc.aio.Channel, paths: list[str]) -> list[Updates]:
    stub: Any = node_pb2_grpc.NodeServiceStub(channel)
    requests = [node_pb2.HoldEphemeralRequest(path=path, make_parents=True) for path in paths]
    return [each_alone(stub.HoldEphemeral(request)) for request in requests]


def carry(channel: grpc.aio.Channel, paths: list[str]) -> list[Updates]:
    stub: Any = carry_pb2_grpc.CarryServiceStub(channel)

    async def updates() -> Updates:
        steps = [
            carry_pb2.CarryStep(tag=tag, acquire=lock_pb2.AcquireRequest(path=path)) for tag, path in enumerate(paths)
        ]
        async for response in stub.Carry(iter([carry_pb2.CarryRequest(steps=steps)])):
            for told in response.updates:
                yield told.tag, told.update

    return [updates()]


def hold(link: Link, address: str, open_streams: Open, paths: list[str]) -> None:
    """Work: holds all paths; says when the first and the last of them were HELD, in JEOPARDY, and HELD again."""

    expected = [hold_pb2.HOLD_STATE_HELD, hold_pb2.HOLD_STATE_JEOPARDY, hold_pb2.HOLD_STATE_HELD]

    async def follow(updates: Updates, passed: list[list[int]], turns: list[asyncio.Event]) -> None:
        heard: Counter[object] = Counter()
        async for which, update in updates:
            assert update.state in expected, update
            turn = heard[which]
            if turn < len(expected) and update.state == expected[turn]:
                passed[turn].append(time.monotonic_ns())
                if len(passed[turn]) == len(paths):
                    turns[turn].set()
                heard[which] += 1

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
            passed: list[list[int]] = [[], [], []]
            turns = [asyncio.Event() for _ in passed]
            for updates in open_streams(channel, paths):
                tasks.create_task(follow(updates, passed, turns))
            for turn, times in zip(turns, passed, strict=True):
                await turn.wait()
                link.say((min(times), max(times)))

    asyncio.run(run())


def run(plan: Plan) -> Findings:
    holds = plan.scaled(5_000, 40)
    samples = Samples()
    with stand.zookeeper() as server:
        for repetition in range(plan.repetitions):
            for variant, open_streams in ((LOCKS, lock), (CARRIED, carry), (EPHEMERALS, ephemeral)):
                paths = [f"{ROOT}/{repetition}-{open_streams.__name__}/{number:05}" for number in range(holds)]
                with Crew() as relays:
                    relay = Relay(relays, server.port)
                    with stand.daemon(relay.hosts) as daemon, Crew() as crew:
                        # The first client pays for what is loaded and made only once.
                        first = crew.hire(hold, daemon.address, open_streams, [f"{paths[0]}-first"])
                        first.hear(30)
                        before = settled_bytes(daemon.pid)
                        crowd = [
                            crew.hire(hold, daemon.address, open_streams, paths[number::PROCESSES])
                            for number in range(PROCESSES)
                        ]
                        heard = [worker.hear(120) for worker in crowd]
                        samples.add(variant, "taken", value=_to_last_s(heard, min(first for first, _ in heard)))
                        samples.add(variant, "bytes", value=(settled_bytes(daemon.pid) - before) / holds / 1e3)
                        for key, act in (("jeopardy", relay.cut), ("again", relay.mend)):
                            start = time.monotonic_ns()
                            act()
                            heard = crew.hear(60)
                            first_s = (min(first for first, _ in heard) - start) / 1e9
                            samples.add(variant, key, "first", value=first_s * 1e3)
                            samples.add(variant, key, "last", value=_to_last_s(heard, start) * 1e3)
    return Findings(rows=tuple(_rows(samples, holds)), setting=SETTING)


def _to_last_s(heard: list[tuple[int, int]], start: int) -> float:
    return (max(last for _, last in heard) - start) / 1e9


def _rows(samples: Samples, holds: int) -> Iterator[Row]:
    for variant in (LOCKS, CARRIED, EPHEMERALS):
        subject = f"{holds:,} {variant}"
        yield samples.row((variant, "bytes"), subject, "RSS growth, each", "kB")
        yield samples.row((variant, "taken"), subject, "from the first HELD to the last", "s")
        yield samples.row((variant, "jeopardy", "first"), subject, "reset to the first JEOPARDY", "ms")
        yield samples.row((variant, "jeopardy", "last"), subject, "reset to the last JEOPARDY", "ms")
        yield samples.row((variant, "again", "last"), subject, "connection back to the last HELD", "ms")

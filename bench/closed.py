"""Closed loops: a fixed number of requests is under way, and each answer sends the next.

Every loop is work for a worker process: it warms up, says "ready", is told to go, and says its `Pace`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from bench import stand
from bench.crew import Crew, Link, cpu_s
from bench.figures import percentile
from zkside.pb import node_pb2

WARM_S = 0.5

Request = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a loop went."""

    calls: int
    per_s: float
    p50_us: float
    p99_us: float


def _pace(latencies_ns: list[int], took_ns: int) -> Pace:
    return Pace(
        len(latencies_ns),
        len(latencies_ns) / (took_ns / 1e9),
        percentile(latencies_ns, 50) / 1e3,
        percentile(latencies_ns, 99) / 1e3,
    )


async def measure(request: Request, concurrency: int, duration_s: float) -> Pace:
    """So many tasks that send, await the answer, and send again."""
    latencies: list[int] = []

    async def one(end: int) -> None:
        now = time.perf_counter_ns()
        while now < end:
            await request()
            sent, now = now, time.perf_counter_ns()
            latencies.append(now - sent)

    start = time.perf_counter_ns()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one(start + int(duration_s * 1e9)))
    return _pace(latencies, time.perf_counter_ns() - start)


async def report(link: Link, request: Request, concurrency: int, duration_s: float) -> None:
    """Warm up, wait for the others, measure, tell."""
    await measure(request, concurrency, WARM_S)
    link.say("ready")
    await link.heard()
    link.say(await measure(request, concurrency, duration_s))


def call_unary(
    link: Link, address: str, method: str, request: bytes, answer: str, concurrency: int, duration_s: float
) -> None:
    """Work: one channel and a unary method; its answers are parsed, by the class named, as a stub would."""

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(method, response_deserializer=getattr(node_pb2, answer).FromString)
            await report(link, lambda: call(request), concurrency, duration_s)

    asyncio.run(run())


def call_kazoo(link: Link, hosts: str, path: str, data: bytes | None, concurrency: int, duration_s: float) -> None:
    """Work: stock kazoo's asynchronous API, pipelined: sets `data`, or gets if there is none.

    The oldest request is waited for before the next is sent. A callback that sends the next is slower.
    """
    with stand.kazoo(hosts) as client:

        def send() -> Any:
            return client.get_async(path) if data is None else client.set_async(path, data)

        def loop(duration_s: float) -> Pace:
            latencies: list[int] = []
            under_way: deque[tuple[int, Any]] = deque()
            start = time.perf_counter_ns()
            end = start + int(duration_s * 1e9)
            while (now := time.perf_counter_ns()) < end or under_way:
                if now < end:
                    under_way.append((now, send()))
                if len(under_way) == concurrency or now >= end:
                    sent, result = under_way.popleft()
                    result.get()
                    latencies.append(time.perf_counter_ns() - sent)
            return _pace(latencies, time.perf_counter_ns() - start)

        loop(WARM_S)
        link.say("ready")
        link.hear()
        link.say(loop(duration_s))


@dataclass(frozen=True, slots=True)
class Throughput:
    """What several loops did together, and what it cost the server that they called."""

    per_s: float
    p50_us: float
    p99_us: float
    server_us: float
    """Processor time of the server's process for each call."""


def run(crew: Crew, duration_s: float, server_pid: int) -> Throughput:
    """Let all start at once, and hear how fast they went."""
    crew.hear()
    before_s = cpu_s(server_pid)
    crew.tell("go")
    paces: list[Pace] = crew.hear(duration_s + 60)
    used_s = cpu_s(server_pid) - before_s
    per_s = sum(pace.per_s for pace in paces)
    return Throughput(
        per_s,
        max(pace.p50_us for pace in paces),
        max(pace.p99_us for pace in paces),
        used_s * 1e6 / sum(pace.calls for pace in paces),
    )

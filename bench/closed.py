"""Closed loops: a fixed number of requests is under way, and each answer sends the next.

Every loop is work for a worker process: it warms up, says "ready", and each time that it is told to go it says its
`Pace`. Peers are measured in turns of a second, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from bench import stand
from bench.crew import Crew, Link, cpu_s
from bench.figures import Samples, percentile
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


def pace(latencies_ns: list[int], took_ns: int) -> Pace:
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
    return pace(latencies, time.perf_counter_ns() - start)


async def report(link: Link, request: Request, concurrency: int, duration_s: float) -> None:
    """Warm up, and then measure for so long whenever told."""
    await measure(request, concurrency, WARM_S)
    link.say("ready")
    while True:
        await link.heard()
        link.say(await measure(request, concurrency, duration_s))


def call_unary(
    link: Link, address: str, method: str, requests: list[bytes], answer: str, concurrency: int, duration_s: float
) -> None:
    """Work: one channel and a unary method, with one request after the other.

    The answers are parsed, by the class named, as a generated stub would.
    """

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(method, response_deserializer=getattr(node_pb2, answer).FromString)
            following = itertools.cycle(requests)
            await report(link, lambda: call(next(following)), concurrency, duration_s)

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
            return pace(latencies, time.perf_counter_ns() - start)

        loop(WARM_S)
        link.say("ready")
        while True:
            link.hear()
            link.say(loop(duration_s))


@dataclass(frozen=True, slots=True)
class Peer:
    """Loops that have said "ready", and the process of the server that they call."""

    name: str
    crew: Crew
    server_pid: int

    def run(self, samples: Samples, *key: object) -> None:
        """Let all start at once; adds rate, p50, p99 and the server's processor time for each call."""
        before_s = cpu_s(self.server_pid)
        self.crew.tell("go")
        paces: list[Pace] = self.crew.hear()
        used_s = cpu_s(self.server_pid) - before_s
        samples.add(self.name, *key, "rate", value=sum(pace.per_s for pace in paces))
        samples.add(self.name, *key, "p50", value=max(pace.p50_us for pace in paces))
        samples.add(self.name, *key, "p99", value=max(pace.p99_us for pace in paces))
        samples.add(self.name, *key, "server", value=used_s * 1e6 / sum(pace.calls for pace in paces))


class Peers:
    """Peers that are measured in turns; leaving the `with` ends their loops."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._peers: list[Peer] = []

    def add(self, name: str, server_pid: int, processes: int, work: Callable[..., None], *arguments: Any) -> None:
        """So many processes with the same work."""
        crew = self._stack.enter_context(Crew())
        for _ in range(processes):
            crew.hire(work, *arguments)
        crew.hear()
        self._peers.append(Peer(name, crew, server_pid))

    def run(self, samples: Samples, turns: int, *key: object) -> None:
        for _ in range(turns):
            for peer in self._peers:
                peer.run(samples, *key)

    def __enter__(self) -> Peers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

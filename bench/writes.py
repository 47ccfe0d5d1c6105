"""Writes: at the port beside stock kazoo, and through gRPC beside a bare grpc.aio server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from bench import bare, closed, stand
from bench.crew import Crew, Link
from bench.figures import Findings, Goal, Plan, Row, Samples, at_least
from zkside.model.event import WatchedEvent
from zkside.model.operation import Operation, SetData
from zkside.pb import node_pb2, node_pb2_grpc
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.port import Connected, Ending

PATH = "/bench"
DATA = bytes(100)
REQUEST = node_pb2.SetRequest(path=PATH, data=DATA)

PORT, KAZOO, UNARY, PIPELINE, BARE = (
    "zkside, at the port",
    "kazoo set_async, pipelined",
    "zkside, Set",
    "zkside, Pipeline",
    "bare grpc.aio, same bytes",
)
SETTING = (
    "One client process sets one znode of 100 bytes in a closed loop, so many requests under way. ZooKeeper "
    "writes its log without waiting for the disk (forceSync=no), so that the disk is not what is compared. "
    "The bare server writes nothing anywhere, and runs on asyncio's own event loop, as grpc.aio does by default; "
    "the daemon runs on uvloop. Before the first turn the server is written to for 4 s, so that Java's compiler is "
    "done with it when the first of the variants is measured."
)
WARM_UP_S = 4.0


def call_pipeline(link: Link, address: str, concurrency: int, duration_s: float) -> None:
    """Work: one Pipeline stream with so many writes under way."""

    async def run() -> None:
        requests: asyncio.Queue[node_pb2.PipelineRequest] = asyncio.Queue()
        answers: deque[asyncio.Future[None]] = deque()
        operation = node_pb2.Operation(set=REQUEST)

        async def written() -> AsyncIterator[node_pb2.PipelineRequest]:
            while True:
                yield await requests.get()

        async def listen(stub: Any) -> None:
            # The answers come in the order of the requests.
            async for response in stub.Pipeline(written()):
                assert response.result.HasField("set"), response
                answers.popleft().set_result(None)

        def write() -> asyncio.Future[None]:
            answer = asyncio.get_running_loop().create_future()
            answers.append(answer)
            requests.put_nowait(node_pb2.PipelineRequest(operation=operation))
            return answer

        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
            tasks.create_task(listen(node_pb2_grpc.NodeServiceStub(channel)))
            await closed.report(link, write, concurrency, duration_s)

    asyncio.run(run())


class _Waiting:
    """A port listener that only waits for the connection."""

    def __init__(self) -> None:
        self.is_connected = asyncio.Event()

    def connected(self, connected: Connected) -> None:
        self.is_connected.set()

    def suspended(self, reason: str) -> None:
        raise AssertionError(reason)

    def ended(self, ending: Ending, reason: str) -> None: ...

    def event(self, event: WatchedEvent) -> None: ...

    def acknowledged(self, operation: Operation[object] | None, sent_boottime_ns: int) -> None: ...


def call_port(link: Link, hosts: str, concurrency: int, duration_s: float) -> None:
    """Work: the real backend behind zk/port.py, without session, hub or gRPC above it."""

    async def run() -> None:
        listener = _Waiting()
        connection = kazoo_connector(KazooSettings(hosts))(listener, None)
        connection.start()
        await asyncio.wait_for(listener.is_connected.wait(), 30)
        operation = SetData(PATH, DATA)
        await closed.report(link, lambda: connection.call(operation), concurrency, duration_s)

    asyncio.run(run())


def warm_up(hosts: str, duration_s: float) -> None:
    """Write, for all that are measured later: one that has just started takes 2 to 3 times as long for a write."""
    with Crew() as crew:
        crew.hire(call_port, hosts, 64, duration_s)
        crew.hear()
        crew.tell("go")
        crew.hear()


def run(plan: Plan) -> Findings:
    duration_s, turns = (0.3, 1) if plan.quick else (1.0, 5)
    concurrencies = (1, 64) if plan.quick else (1, 16, 64)
    samples = Samples()
    with (
        stand.zookeeper() as server,
        stand.kazoo(server.hosts) as writer,
        stand.socket_address() as bare_address,
    ):
        writer.create(PATH, DATA)
        warm_up(server.hosts, duration_s if plan.quick else WARM_UP_S)
        for _ in range(plan.repetitions):
            with stand.daemon(server.hosts) as daemon, Crew() as crew:
                bare_pid = crew.hire(bare.serve, bare_address, PATH, DATA).pid
                crew.hear()
                for concurrency in concurrencies:
                    loop = (concurrency, duration_s)
                    unary = (bare.SET, [REQUEST.SerializeToString()], "SetResponse", *loop)
                    with closed.Peers() as peers:
                        peers.add(PORT, server.pid, 1, call_port, server.hosts, *loop)
                        peers.add(KAZOO, server.pid, 1, closed.call_kazoo, server.hosts, PATH, DATA, *loop)
                        peers.add(UNARY, daemon.pid, 1, closed.call_unary, daemon.address, *unary)
                        peers.add(PIPELINE, daemon.pid, 1, call_pipeline, daemon.address, *loop)
                        peers.add(BARE, bare_pid, 1, closed.call_unary, bare_address, *unary)
                        peers.run(samples, turns, concurrency)
    return Findings(rows=tuple(_rows(samples, concurrencies)), setting=SETTING)


def _rows(samples: Samples, concurrencies: tuple[int, ...]) -> Iterator[Row]:
    for concurrency in concurrencies:
        for variant in (PORT, KAZOO, UNARY, PIPELINE, BARE):
            goals = _goals(samples, variant) if concurrency == concurrencies[-1] else ()
            subject = f"{variant}, {concurrency} under way"
            yield samples.row((variant, concurrency, "rate"), subject, "writes", "/s", goals)
            yield samples.row((variant, concurrency, "p50"), subject, "latency, p50", "µs")
            quantity = "processor time of the server, each"
            yield samples.row((variant, concurrency, "server"), subject, quantity, "µs")


def _goals(samples: Samples, variant: str) -> tuple[Goal, ...]:
    rate = {variant: samples.median(variant, 64, "rate") for variant in (PORT, KAZOO, UNARY, PIPELINE, BARE)}
    if variant == PORT:
        return (at_least("≥ 2 times stock kazoo", rate[PORT] / rate[KAZOO], 2),)
    if variant in (UNARY, PIPELINE):
        return (at_least("≥ 70 % of bare grpc.aio", rate[variant] / rate[BARE], 0.7),)
    return ()

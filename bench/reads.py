"""Cached reads through gRPC, beside a bare grpc.aio server, kazoo's get and a read in the SDK's mirror."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from bench import bare, closed, stand
from bench.crew import Crew, Link, Worker
from bench.figures import Findings, Goal, Plan, Row, Samples, at_least, at_most
from zkside.client import Client
from zkside.pb import node_pb2

PATH = "/bench"
DATA = bytes(100)
REQUEST = node_pb2.GetRequest(
    path=PATH, options=node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)
).SerializeToString()

CACHED, BARE, KAZOO, MIRROR = (
    "zkside, cached Get",
    "bare grpc.aio, same bytes",
    "kazoo get",
    "zkside SDK, mirror.get",
)
SETUPS = ((1, 1), (1, 32), (2, 32))
"""Client processes, and requests under way in each."""
GOAL_SHARE = 0.85
MIRROR_GOAL_US = 2.0
SETTING = (
    "A closed loop over one znode of 100 bytes: every answer sends the next request. The same client program "
    "parses the answers of zkside and of the bare server, which neither reads nor makes a message. "
    "kazoo: get_async, pipelined, one session a process."
)


def read_mirror(link: Link, address: str, reads: int) -> None:
    """Work: says the microseconds that one read of a mirrored node takes."""

    async def run() -> None:
        async with Client(address) as client, client.mirror(PATH) as mirror:
            start = time.perf_counter_ns()
            for _ in range(reads):
                mirror.get(PATH)
            took_ns = time.perf_counter_ns() - start
            node = mirror.get(PATH)
            assert node is not None
            assert node.data == DATA
            link.say(took_ns / reads / 1e3)

    asyncio.run(run())


def run(plan: Plan) -> Findings:
    duration_s = 0.5 if plan.quick else 4.0
    samples = Samples()
    with (
        stand.zookeeper() as server,
        stand.kazoo(server.hosts) as writer,
        stand.socket_address() as bare_address,
    ):
        writer.create(PATH, DATA)
        for _ in range(plan.repetitions):
            with stand.daemon(server.hosts) as daemon, Crew() as crew:
                bare_pid = crew.hire(bare.serve, bare_address, PATH, DATA).pid
                crew.hear()
                for setup in SETUPS:
                    _measure(samples, CACHED, daemon.address, daemon.pid, setup, duration_s)
                    _measure(samples, BARE, bare_address, bare_pid, setup, duration_s)
                    _measure(samples, KAZOO, server.hosts, server.pid, setup, duration_s)
                mirror = Worker(read_mirror, daemon.address, plan.scaled(1_000_000, 10_000))
                samples.add(MIRROR, value=mirror.hear(60))
                mirror.kill()
    return Findings(rows=tuple(_rows(samples)), setting=SETTING)


def _measure(samples: Samples, variant: str, address: str, pid: int, setup: tuple[int, int], duration_s: float) -> None:
    processes, concurrency = setup
    loop = (concurrency, duration_s)
    with Crew() as crew:
        for _ in range(processes):
            if variant == KAZOO:
                crew.hire(closed.call_kazoo, address, PATH, None, *loop)
            else:
                crew.hire(closed.call_unary, address, bare.GET, REQUEST, "GetResponse", *loop)
        measured = closed.run(crew, duration_s, pid)
    samples.add(variant, *setup, "rate", value=measured.per_s)
    samples.add(variant, *setup, "p50", value=measured.p50_us)
    samples.add(variant, *setup, "p99", value=measured.p99_us)
    samples.add(variant, *setup, "server", value=measured.server_us)


def _rows(samples: Samples) -> Iterator[Row]:
    for processes, concurrency in SETUPS:
        for variant in (CACHED, BARE, KAZOO):
            clients = "1 client" if processes == 1 else f"{processes} clients"
            subject = f"{variant}, {clients} with {concurrency} under way"
            key = (variant, processes, concurrency)
            goals = _goals(samples, processes, concurrency) if variant == CACHED else ()
            yield samples.row((*key, "rate"), subject, "reads", "/s", goals)
            yield samples.row((*key, "p50"), subject, "latency, p50", "µs")
            yield samples.row((*key, "p99"), subject, "latency, p99", "µs")
            yield samples.row((*key, "server"), subject, "processor time of the server, each", "µs")
    mirror = at_most("≤ 2 µs", samples.median(MIRROR), MIRROR_GOAL_US)
    yield samples.row((MIRROR,), MIRROR, "one read", "µs", (mirror,))


def _goals(samples: Samples, processes: int, concurrency: int) -> tuple[Goal, ...]:
    cached = samples.median(CACHED, processes, concurrency, "rate")
    limit = samples.median(BARE, processes, concurrency, "rate")
    return (at_least("≥ 85 % of bare grpc.aio", cached / limit, GOAL_SHARE),)

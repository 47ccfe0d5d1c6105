"""Cached reads through gRPC, beside a bare grpc.aio server, kazoo's get and a read in the SDK's mirror."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from bench import bare, closed, memory, stand
from bench.crew import Crew, Link, Worker
from bench.figures import Findings, Goal, Plan, Row, Samples, at_least, at_most
from zkside.client import Client
from zkside.pb import node_pb2, watch_pb2

ROOT = "/bench"
NODES = 10_000
DATA = bytes(100)

CACHED, SPREAD, BARE, KAZOO, MIRROR = (
    "zkside, cached Get of one node",
    "zkside, cached Get of 10,000 nodes in turn",
    "bare grpc.aio, same bytes",
    "kazoo get",
    "zkside SDK, mirror.get",
)
SETUPS = ((1, 1), (1, 32), (2, 32))
"""Client processes, and requests under way in each."""
GOAL_SHARE = 0.85
MIRROR_GOAL_US = 2.0
SETTING = (
    "A closed loop over znodes of 100 bytes: every answer sends the next request. The same client program "
    "parses the answers of zkside and of the bare server, which neither reads nor makes a message "
    "and runs on asyncio's own event loop, as grpc.aio does by default; the daemon runs on uvloop. "
    "kazoo: get_async, pipelined, one session a process."
)


def path_of(number: int) -> str:
    return f"{ROOT}/{number:06}"


def request_of(number: int) -> bytes:
    options = node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)
    return node_pb2.GetRequest(path=path_of(number), options=options).SerializeToString()


def read_mirror(link: Link, address: str, reads: int) -> None:
    """Work: says the microseconds that one read of a mirrored node takes."""
    path = path_of(0)

    async def run() -> None:
        async with Client(address) as client, client.mirror(ROOT) as mirror:
            start = time.perf_counter_ns()
            for _ in range(reads):
                mirror.get(path)
            took_ns = time.perf_counter_ns() - start
            node = mirror.get(path)
            assert node is not None
            assert node.data == DATA
            link.say(took_ns / reads / 1e3)

    asyncio.run(run())


def run(plan: Plan) -> Findings:
    duration_s, turns = (0.3, 1) if plan.quick else (1.0, 5)
    setups = SETUPS[:2] if plan.quick else SETUPS
    samples = Samples()
    with (
        stand.zookeeper() as server,
        stand.kazoo(server.hosts) as writer,
        stand.socket_address() as bare_address,
    ):
        nodes = plan.scaled(NODES, 100)
        _plant(writer, nodes)
        one, many = [request_of(0)], [request_of(number) for number in range(nodes)]
        for _ in range(plan.repetitions):
            with stand.daemon(server.hosts) as daemon, Crew() as crew:
                bare_pid = crew.hire(bare.serve, bare_address, path_of(0), DATA).pid
                crew.hire(memory.watch, daemon.address, [memory.request_of(ROOT, scope=watch_pb2.SCOPE_SUBTREE)])
                crew.hear()
                for processes, concurrency in setups:
                    loop = (concurrency, duration_s)
                    get = (closed.call_unary, daemon.address, bare.GET)
                    limit = (closed.call_unary, bare_address, bare.GET)
                    with closed.Peers() as peers:
                        peers.add(CACHED, daemon.pid, processes, *get, one, "GetResponse", *loop)
                        peers.add(SPREAD, daemon.pid, processes, *get, many, "GetResponse", *loop)
                        peers.add(BARE, bare_pid, processes, *limit, one, "GetResponse", *loop)
                        peers.add(
                            KAZOO, server.pid, processes, closed.call_kazoo, server.hosts, path_of(0), None, *loop
                        )
                        peers.run(samples, turns, processes, concurrency)
                mirror = Worker(read_mirror, daemon.address, plan.scaled(1_000_000, 10_000))
                samples.add(MIRROR, value=mirror.hear(60))
                mirror.kill()
    return Findings(rows=tuple(_rows(samples, setups)), setting=SETTING)


def _plant(writer: stand.Kazoo, nodes: int) -> None:
    writer.create(ROOT)
    for start in range(0, nodes, 1000):
        transaction = writer.transaction()
        for number in range(start, min(start + 1000, nodes)):
            transaction.create(path_of(number), DATA)
        transaction.commit()


def _rows(samples: Samples, setups: tuple[tuple[int, int], ...]) -> Iterator[Row]:
    for processes, concurrency in setups:
        for variant in (CACHED, SPREAD, BARE, KAZOO):
            clients = "1 client" if processes == 1 else f"{processes} clients"
            subject = f"{variant}, {clients} with {concurrency} under way"
            key = (variant, processes, concurrency)
            goals = _goals(samples, variant, processes, concurrency) if variant in (CACHED, SPREAD) else ()
            yield samples.row((*key, "rate"), subject, "reads", "/s", goals)
            yield samples.row((*key, "p50"), subject, "latency, p50", "µs")
            yield samples.row((*key, "p99"), subject, "latency, p99", "µs")
            yield samples.row((*key, "server"), subject, "processor time of the server, each", "µs")
    mirror = at_most("≤ 2 µs", samples.median(MIRROR), MIRROR_GOAL_US)
    yield samples.row((MIRROR,), MIRROR, "one read", "µs", (mirror,))


def _goals(samples: Samples, variant: str, processes: int, concurrency: int) -> tuple[Goal, ...]:
    cached = samples.median(variant, processes, concurrency, "rate")
    limit = samples.median(BARE, processes, concurrency, "rate")
    return (at_least("≥ 85 % of bare grpc.aio", cached / limit, GOAL_SHARE),)

"""Resident memory of the daemon: idle, per open stream, per watched path, per cached node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc

from bench import stand, tree
from bench.crew import Crew, Link, settled_bytes, shares
from bench.figures import Findings, Plan, Row, Samples, at_most
from zkside.pb import node_pb2, node_pb2_grpc, watch_pb2, watch_pb2_grpc

PROCESSES = 8
TARGETS_PER_STREAM = 1000
GOAL_IDLE_MB, GOAL_STREAM_KB, GOAL_NODE_KB = 60.0, 30.0, 1.0
SETTING = (
    "RSS of the daemon's process, before and after. Streams: all on one node, in 8 client processes. "
    "Watched paths: one stream for 1,000 targets, existing nodes without data; a read path: a cached Get of "
    "each. Cached nodes: one stream on the subtree with data, 32 bytes a node, after its snapshot was read."
)


def watch(link: Link, address: str, requests: list[bytes]) -> None:
    """Work: a Watch stream for each request; says "ready" when each has had its snapshots."""

    async def subscriber(stub: Any, request: watch_pb2.WatchRequest, ready: asyncio.Event) -> None:
        missing = len(request.targets)
        async for response in stub.Watch(request):
            missing -= response.HasField("snapshot") and not response.snapshot.more
            if missing == 0:
                ready.set()

    async def run() -> None:
        options = [("grpc.max_receive_message_length", -1)]
        async with (
            grpc.aio.insecure_channel(address, options=options) as channel,
            asyncio.TaskGroup() as tasks,
        ):
            stub = watch_pb2_grpc.WatchServiceStub(channel)
            there = []
            for request in requests:
                there.append(asyncio.Event())
                tasks.create_task(subscriber(stub, watch_pb2.WatchRequest.FromString(request), there[-1]))
            for ready in there:
                await ready.wait()
            link.say("ready")

    asyncio.run(run())


def read(link: Link, address: str, paths: list[str]) -> None:
    """Work: a cached Get of each path; says "ready" when all are answered."""

    async def run() -> None:
        options = node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)
        async with grpc.aio.insecure_channel(address) as channel:
            stub = node_pb2_grpc.NodeServiceStub(channel)
            for start in range(0, len(paths), 100):
                requests = [node_pb2.GetRequest(path=path, options=options) for path in paths[start : start + 100]]
                await asyncio.gather(*(stub.Get(request) for request in requests))
        link.say("ready")

    asyncio.run(run())


def request_of(*paths: str, scope: watch_pb2.Scope.ValueType = watch_pb2.SCOPE_NODE, with_data: bool = False) -> bytes:
    targets = [watch_pb2.WatchTarget(path=path, scope=scope, with_data=with_data) for path in paths]
    return watch_pb2.WatchRequest(targets=targets).SerializeToString()


def run(plan: Plan) -> Findings:
    nodes = plan.scaled(100_000, 2_000)
    streams = plan.scaled(1_000, 3)
    watched = plan.scaled(10_000, 500)
    samples = Samples()
    with stand.zookeeper() as server, stand.kazoo(server.hosts) as writer:
        planted = tree.plant(writer, nodes)
        paths = tree.leaves(watched)
        per_stream = [
            request_of(*paths[start : start + TARGETS_PER_STREAM]) for start in range(0, watched, TARGETS_PER_STREAM)
        ]
        subtree = request_of(tree.ROOT, scope=watch_pb2.SCOPE_SUBTREE, with_data=True)
        for _ in range(plan.repetitions):
            with stand.daemon(server.hosts) as daemon, Crew() as crew:
                samples.add("idle", value=settled_bytes(daemon.pid) / 1e6)
                # The first client pays for what is loaded and made only once.
                crew.hire(watch, daemon.address, [request_of(tree.ROOT)])
                crew.hear()
                before = settled_bytes(daemon.pid)
                many = Crew()
                with many:
                    for share in shares(streams, PROCESSES):
                        many.hire(watch, daemon.address, [request_of(tree.ROOT)] * share)
                    many.hear(120)
                    samples.add("stream", value=(settled_bytes(daemon.pid) - before) / streams / 1e3)
            for key, work, argument, count in (
                ("watched", watch, per_stream, watched),
                ("read", read, paths, watched),
                ("cached", watch, [subtree], planted),
            ):
                with stand.daemon(server.hosts) as daemon, Crew() as crew:
                    crew.hire(watch, daemon.address, [request_of("/")])
                    crew.hear()
                    before = settled_bytes(daemon.pid)
                    worker = crew.hire(work, daemon.address, argument)
                    worker.hear(120)
                    samples.add(key, value=(settled_bytes(daemon.pid) - before) / count / 1e3)
    return Findings(rows=tuple(_rows(samples, streams, watched, planted)), setting=SETTING)


def _rows(samples: Samples, streams: int, watched: int, planted: int) -> Iterator[Row]:
    idle = at_most("≤ 60 MB", samples.median("idle"), GOAL_IDLE_MB)
    stream = at_most("≤ 30 kB", samples.median("stream"), GOAL_STREAM_KB)
    cached = at_most("≤ 1 kB", samples.median("cached"), GOAL_NODE_KB)
    yield samples.row(("idle",), "daemon, idle", "RSS", "MB", (idle,))
    subject = f"an open stream, of {streams:,}"
    yield samples.row(("stream",), subject, "RSS growth", "kB", (stream,))
    subject = f"a watched path, of {watched:,}"
    yield samples.row(("watched",), subject, "RSS growth", "kB")
    subject = f"a path read from the cache, of {watched:,}"
    yield samples.row(("read",), subject, "RSS growth", "kB")
    subject = f"a node of a cached subtree, of {planted:,}"
    yield samples.row(("cached",), subject, "RSS growth", "kB", (cached,))

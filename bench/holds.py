"""kill -9 of a process that holds an ephemeral node, until the node is gone for everybody."""

from __future__ import annotations

import asyncio
import threading
import time

import grpc

from bench import stand
from bench.crew import Link, Worker
from bench.figures import Findings, Plan, Samples, at_most, percentile
from zkside.pb import hold_pb2, node_pb2, node_pb2_grpc

PATH = "/bench"
GOAL_P99_MS = 50.0
SETTING = (
    "One client process after the other holds an ephemeral node and is killed; the clock stops when another "
    "ZooKeeper client is told by its watch. Without zkside the node stays for the session timeout."
)


def hold(link: Link, address: str) -> None:
    """Work: says "ready" when it holds the node; holds it until killed."""

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stream = node_pb2_grpc.NodeServiceStub(channel).HoldEphemeral(node_pb2.HoldEphemeralRequest(path=PATH))
            async for update in stream:
                assert update.state == hold_pb2.HOLD_STATE_HELD, update
                link.say("ready")

    asyncio.run(run())


def run(plan: Plan) -> Findings:
    kills = plan.scaled(50, 3)
    samples = Samples()
    with (
        stand.zookeeper() as server,
        stand.kazoo(server.hosts) as watcher,
        stand.daemon(server.hosts) as daemon,
    ):
        for _ in range(plan.repetitions):
            gone_ms = []
            for _ in range(kills):
                holder = Worker(hold, daemon.address)
                holder.hear(30)
                gone = threading.Event()
                assert watcher.exists(PATH, watch=lambda event, gone=gone: gone.set())
                start = time.monotonic_ns()
                holder.kill()
                assert gone.wait(30)
                gone_ms.append((time.monotonic_ns() - start) / 1e6)
            samples.add("p50", value=percentile(gone_ms, 50))
            samples.add("p99", value=percentile(gone_ms, 99))
    subject = f"kill -9 to deletion, {kills} kills"
    goal = at_most("≤ 50 ms at p99 (H4)", samples.median("p99"), GOAL_P99_MS)
    return Findings(
        rows=(
            samples.row(("p50",), subject, "p50", "ms"),
            samples.row(("p99",), subject, "p99", "ms", (goal,)),
        ),
        setting=SETTING,
    )

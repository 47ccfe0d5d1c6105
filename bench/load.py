"""A subtree of 100,000 nodes: loaded into a cache, kept over a cut connection, beside kazoo's TreeCache."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from kazoo.recipe.cache import TreeCache, TreeEvent

from bench import stand, tree
from bench.crew import Crew, Link, Worker, resident_bytes
from bench.figures import Findings, Plan, Row, Samples, at_least, at_most
from bench.relay import Relay
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.hub.hub import Hub
from zkside.hub.subscription import Changes, SnapshotChunk
from zkside.model.session import SessionStatus
from zkside.model.watch import Scope, Target
from zkside.pb import watch_pb2, watch_pb2_grpc
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings

GOAL_FASTER, GOAL_NODE_KB, GOAL_RESYNC_S, GOAL_STALL_MS = 25, 1.0, 1.5, 20.0
HUB, STREAM, KAZOO = "zkside, into the hub's cache", "zkside, to a client of the daemon", "kazoo TreeCache"
TICK_S = 0.001
SETTING = (
    "100 directories of 1,000 leaves with 32 bytes each. The hub runs in a process of its own as in the "
    "daemon, without gRPC, beside a timer of 1 ms that notes how late the event loop is. To a client: from "
    "opening a stream on a fresh daemon until the client has parsed the whole snapshot. Resync: the "
    "connection is cut, a node is changed, the connection is allowed again; from then connected until the "
    "change is told, which is when all nodes have been compared. Memory: growth of RSS."
)


@dataclass(frozen=True, slots=True)
class Stall:
    """The worst that happened to an event loop."""

    late_ms: float
    """By how much a timer was late."""
    busy_ms: float
    """Processor time that the loop's thread used between two turns: what is left of a stall on an idle host."""


class Stalls:
    """Notes the worst of the running loop since the last question."""

    def __init__(self) -> None:
        self._late_s = self._busy_s = 0.0
        self._due_s = asyncio.get_running_loop().time()
        self._used_s = time.thread_time()
        self._tick()

    def worst(self) -> Stall:
        worst = Stall(self._late_s * 1e3, self._busy_s * 1e3)
        self._late_s = self._busy_s = 0.0
        return worst

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        used_s = time.thread_time()
        self._late_s = max(self._late_s, loop.time() - self._due_s)
        self._busy_s = max(self._busy_s, used_s - self._used_s)
        self._used_s = used_s
        self._due_s = loop.time() + TICK_S
        loop.call_at(self._due_s, self._tick)


@dataclass(frozen=True, slots=True)
class Loaded:
    took_s: float
    grown_bytes: int
    stall: Stall | None = None


@dataclass(frozen=True, slots=True)
class Resynced:
    took_s: float
    stall: Stall


def cache_in_hub(link: Link, hosts: str) -> None:
    """Work: says `Loaded`, then, when the connection was cut and allowed again, `Resynced`."""

    async def run() -> None:
        session = Session(kazoo_connector(KazooSettings(hosts)), SessionSettings())
        hub = Hub(session)
        connected_at = 0.0

        def listen(status: SessionStatus) -> None:
            nonlocal connected_at
            if status.state.is_connected:
                connected_at = time.monotonic()

        session.start()
        hub.start()
        session.listen(status=listen)
        await asyncio.wait_for(session.wait_connected(), 30)
        stalls = Stalls()
        gc.collect()
        before = resident_bytes(os.getpid())
        start = time.monotonic()
        subscription = await hub.subscribe((Target(tree.ROOT, Scope.SUBTREE, with_data=True),))
        took_s = time.monotonic() - start
        grown_bytes = resident_bytes(os.getpid()) - before
        while not isinstance(delivery := await subscription.next(), SnapshotChunk) or delivery.more:
            pass
        link.say(Loaded(took_s, grown_bytes, stalls.worst()))
        while not isinstance(await subscription.next(), Changes):
            pass
        link.say(Resynced(time.monotonic() - connected_at, stalls.worst()))
        await link.heard()

    asyncio.run(run())


def load_through_daemon(link: Link, address: str, nodes: int) -> None:
    """Work: says the seconds from opening a stream until the whole snapshot is there."""

    async def run() -> None:
        options = [("grpc.max_receive_message_length", -1)]
        target = watch_pb2.WatchTarget(path=tree.ROOT, scope=watch_pb2.SCOPE_SUBTREE, with_data=True)
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            await channel.channel_ready()
            start = time.monotonic()
            received = 0
            async for response in watch_pb2_grpc.WatchServiceStub(channel).Watch(
                watch_pb2.WatchRequest(targets=[target])
            ):
                received += len(response.snapshot.nodes)
                if not response.snapshot.more:
                    break
            took_s = time.monotonic() - start
            assert received == nodes, f"{received} nodes instead of {nodes}"
            link.say(took_s)
            await link.heard()

    asyncio.run(run())


def cache_with_kazoo(link: Link, hosts: str) -> None:
    """Work: says `Loaded`."""
    with stand.kazoo(hosts) as client:
        initialized = threading.Event()
        cache: Any = TreeCache(client, tree.ROOT)

        def listen(event: Any) -> None:
            if event.event_type == TreeEvent.INITIALIZED:
                initialized.set()

        cache.listen(listen)
        before = resident_bytes(os.getpid())
        start = time.monotonic()
        cache.start()
        initialized.wait()
        link.say(Loaded(time.monotonic() - start, resident_bytes(os.getpid()) - before))


def run(plan: Plan) -> Findings:
    samples = Samples()
    with stand.zookeeper() as server, stand.kazoo(server.hosts) as writer:
        nodes = tree.plant(writer, plan.scaled(100_000, 2_000))
        for repetition in range(plan.repetitions):
            _hub(samples, server, writer, nodes)
            _daemon(samples, server, nodes)
            if repetition == 0 or plan.thorough:
                worker = Worker(cache_with_kazoo, server.hosts)
                _note(samples, KAZOO, worker.hear(300), nodes)
                worker.kill()
    return Findings(rows=tuple(_rows(samples, nodes)), setting=SETTING)


def _note(samples: Samples, variant: str, loaded: Loaded, nodes: int) -> None:
    samples.add(variant, "took", value=loaded.took_s)
    samples.add(variant, "node", value=loaded.grown_bytes / nodes / 1e3)


def _hub(samples: Samples, server: ZooKeeperServer, writer: stand.Kazoo, nodes: int) -> None:
    with Crew() as crew:
        relay = Relay(crew, server.port)
        worker = crew.hire(cache_in_hub, relay.hosts)
        loaded = worker.hear(60)
        _note(samples, HUB, loaded, nodes)
        assert loaded.stall is not None
        samples.add(HUB, "late", value=loaded.stall.late_ms)
        samples.add(HUB, "busy", value=loaded.stall.busy_ms)
        relay.cut()
        writer.set(f"{tree.ROOT}/0000/000000", b"changed while it was cut off")
        relay.mend()
        resynced = worker.hear(60)
        samples.add("resync", "took", value=resynced.took_s)
        samples.add("resync", "late", value=resynced.stall.late_ms)
        samples.add("resync", "busy", value=resynced.stall.busy_ms)


def _daemon(samples: Samples, server: ZooKeeperServer, nodes: int) -> None:
    with stand.daemon(server.hosts) as daemon:
        time.sleep(1)
        before = resident_bytes(daemon.pid)
        worker = Worker(load_through_daemon, daemon.address, nodes)
        took_s = worker.hear(120)
        _note(samples, STREAM, Loaded(took_s, resident_bytes(daemon.pid) - before), nodes)
        worker.kill()


def _rows(samples: Samples, nodes: int) -> Iterator[Row]:
    kazoo_s = samples.median(KAZOO, "took")
    for variant in (HUB, STREAM, KAZOO):
        subject = f"{nodes:,} nodes, {variant}"
        faster = at_least("≥ 25 times faster than TreeCache", kazoo_s / samples.median(variant, "took"), GOAL_FASTER)
        small = at_most("≤ 1 kB", samples.median(variant, "node"), GOAL_NODE_KB)
        ours = variant != KAZOO
        quantity = "until loaded"
        yield samples.row((variant, "took"), subject, quantity, "s", (faster,) if ours else ())
        goals = (small,) if variant == HUB else ()
        yield samples.row((variant, "node"), subject, "memory per node", "kB", goals)
    subject = f"{nodes:,} nodes, {HUB}"
    yield samples.row((HUB, "late"), subject, "longest stall while loading", "ms")
    yield samples.row((HUB, "busy"), subject, "its longest turn, processor time", "ms")
    subject = f"{nodes:,} nodes, resync after a cut connection"
    took = at_most("≤ 1.5 s", samples.median("resync", "took"), GOAL_RESYNC_S)
    yield samples.row(("resync", "took"), subject, "until all is compared", "s", (took,))
    stall = at_most("≤ 20 ms", samples.median("resync", "late"), GOAL_STALL_MS)
    yield samples.row(("resync", "late"), subject, "longest stall", "ms", (stall,))
    yield samples.row(("resync", "busy"), subject, "its longest turn, processor time", "ms")

"""A crowded daemon: 1,000 subscribers, 50 changes/s, 2,000 cached reads/s, and the session must not notice.

Twice: subscribers through the SDK, which share a stream per process; and each with a stream of its own, where
1,000 streams would need 50,000 messages/s, so that the daemon merges what it cannot send.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc

from bench import stand
from bench.crew import Crew, Link, shares
from bench.figures import Findings, Plan, Row, Samples, at_most, percentile
from bench.relay import Relay
from zkside.client import Changes, Client
from zkside.pb import node_pb2, node_pb2_grpc, watch_pb2, watch_pb2_grpc

PATH = "/bench"
PROCESSES = 8
SUBSCRIBERS, CHANGES_PER_S, READS_PER_S = 1000, 50, 2000
MOST_UNDER_WAY = 500
SESSION_TIMEOUT_S = 10.0
GOAL_PING_SHARE, GOAL_LAG_P99_S = 0.10, 0.050
SDK, STREAMS = "through the SDK", "a stream each"
SETTING = (
    "For 20 s: 1,000 subscribers of one znode in 8 processes, one writer with 50 sets/s, one process with "
    "2,000 cached Gets/s, sent on time whatever the answers do. Session timeout 10 s. Lag and pings are the "
    "daemon's own metrics."
)


async def _steadily(send: Callable[[], Awaitable[object]], per_s: int, duration_s: float) -> tuple[list[float], float]:
    """Send on time, whatever the answers do, unless too many are missing; returns the latencies in ms, counted
    from when each was due, and the achieved rate."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []

    places = asyncio.Semaphore(MOST_UNDER_WAY)

    async def one(due: float) -> None:
        await send()
        latencies.append((loop.time() - due) * 1e3)
        places.release()

    start = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(per_s * duration_s)):
            due = start + number / per_s
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await places.acquire()
            tasks.create_task(one(due))
    return latencies, len(latencies) / (loop.time() - start)


def write(link: Link, hosts: str, per_s: int, duration_s: float) -> None:
    """Work: set the node so many times a second to the present time; says how many were written."""
    with stand.kazoo(hosts) as client:
        link.say("ready")
        link.hear()
        start = time.monotonic()
        for number in range(int(per_s * duration_s)):
            time.sleep(max(0.0, start + number / per_s - time.monotonic()))
            client.set(PATH, b"%d" % time.monotonic_ns())
        link.say(number + 1)


def read(link: Link, address: str, per_s: int, duration_s: float) -> None:
    """Work: cached reads at a steady rate; says latencies in ms, and the rate."""

    async def run() -> None:
        options = node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)
        request = node_pb2.GetRequest(path=PATH, options=options)
        async with grpc.aio.insecure_channel(address) as channel:
            stub = node_pb2_grpc.NodeServiceStub(channel)
            await stub.Get(request)
            link.say("ready")
            await link.heard()
            link.say(await _steadily(lambda: stub.Get(request), per_s, duration_s))

    asyncio.run(run())


class Ears:
    """Notes when each change arrives."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []

    def hear(self, data: bytes) -> None:
        if data:
            self.latencies_ms.append((time.monotonic_ns() - int(data)) / 1e6)


def listen_to_streams(link: Link, address: str, subscribers: int) -> None:
    """Work: so many Watch streams; when told to stop, says the latencies in ms of all that was heard."""

    async def subscriber(stub: Any, ready: asyncio.Event, ears: Ears) -> None:
        request = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path=PATH, with_data=True)])
        async for response in stub.Watch(request):
            ready.set()
            for change in response.changes.changes:
                ears.hear(change.node.data)

    async def run() -> None:
        ears = Ears()
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
            stub = watch_pb2_grpc.WatchServiceStub(channel)
            there = [asyncio.Event() for _ in range(subscribers)]
            streams = [tasks.create_task(subscriber(stub, ready, ears)) for ready in there]
            for ready in there:
                await ready.wait()
            link.say("ready")
            await link.heard()
            for stream in streams:
                stream.cancel()
        link.say(ears.latencies_ms)

    asyncio.run(run())


def listen_through_sdk(link: Link, address: str, subscribers: int) -> None:
    """Work: the same, with so many subscribers of one SDK client."""

    async def subscriber(client: Client, ready: asyncio.Event, ears: Ears) -> None:
        async with client.watch(PATH) as watch:
            async for event in watch:
                ready.set()
                if isinstance(event, Changes):
                    for change in event.changes:
                        assert change.node is not None
                        ears.hear(change.node.data)

    async def run() -> None:
        ears = Ears()
        async with Client(address) as client, asyncio.TaskGroup() as tasks:
            there = [asyncio.Event() for _ in range(subscribers)]
            listening = [tasks.create_task(subscriber(client, ready, ears)) for ready in there]
            for ready in there:
                await ready.wait()
            link.say("ready")
            await link.heard()
            for task in listening:
                task.cancel()
        link.say(ears.latencies_ms)

    asyncio.run(run())


LISTENERS = {SDK: listen_through_sdk, STREAMS: listen_to_streams}


def run(plan: Plan) -> Findings:
    duration_s = 2.0 if plan.quick else 20.0
    subscribers = plan.scaled(SUBSCRIBERS, 3)
    samples = Samples()
    with stand.zookeeper() as server, stand.kazoo(server.hosts) as creator:
        creator.create(PATH)
        for _ in range(plan.repetitions):
            for variant in (SDK, STREAMS):
                creator.set(PATH, b"")
                with Crew() as relays:
                    relay = Relay(relays, server.port)
                    settings = {"ZKSIDE_ZOOKEEPER_SESSION_TIMEOUT": f"{SESSION_TIMEOUT_S:g}s"}
                    with stand.daemon(relay.hosts, **settings) as daemon:
                        _measure(samples, variant, server.hosts, daemon, relay, subscribers, duration_s)
    return Findings(rows=tuple(_rows(samples, subscribers)), setting=SETTING)


def _measure(
    samples: Samples,
    variant: str,
    hosts: str,
    daemon: stand.Daemon,
    relay: Relay,
    subscribers: int,
    duration_s: float,
) -> None:
    with Crew() as audience, Crew() as load:
        for share in shares(subscribers, PROCESSES):
            audience.hire(LISTENERS[variant], daemon.address, share)
        load.hire(write, hosts, CHANGES_PER_S, duration_s)
        load.hire(read, daemon.address, READS_PER_S, duration_s)
        audience.hear(120)
        load.hear()
        before = daemon.metrics()
        relay.silence_s()
        load.tell("go")
        written, (read_ms, read_per_s) = load.hear(duration_s * 3 + 60)
        silence_s = relay.silence_s()
        after = daemon.metrics()
        audience.tell("stop")
        heard_ms = [latency for latencies in audience.hear() for latency in latencies]
    late_s = max(0.0, silence_s - SESSION_TIMEOUT_S / 3)
    samples.add(variant, "ping", value=100 * late_s / SESSION_TIMEOUT_S)
    samples.add(variant, "lag", value=1e3 * lag_percentile_s(before, after, 99))
    samples.add(variant, "told", value=100 * len(heard_ms) / (written * subscribers))
    samples.add(variant, "told p99", value=percentile(heard_ms, 99))
    samples.add(variant, "reads", value=read_per_s)
    samples.add(variant, "read p99", value=percentile(read_ms, 99))


def lag_percentile_s(before: dict[str, float], after: dict[str, float], percent: float) -> float:
    """The upper bound of the bucket with the percentile of the event loop's lag between two scrapes."""
    prefix = 'zkside_event_loop_lag_seconds_bucket{le="'
    counts = {
        float(name.removeprefix(prefix).rstrip('"}')): after[name] - before[name]
        for name in after
        if name.startswith(prefix)
    }
    total = max(counts.values())
    return min(bound for bound, count in counts.items() if count >= percent / 100 * total)


def _rows(samples: Samples, subscribers: int) -> Iterator[Row]:
    for variant in (SDK, STREAMS):
        subject = f"{subscribers:,} subscribers {variant}"
        ping = at_most("≤ 10 % of the session timeout", samples.median(variant, "ping") / 100, GOAL_PING_SHARE)
        lag = at_most("p99 ≤ 50 ms", samples.median(variant, "lag") / 1e3, GOAL_LAG_P99_S)
        quantity = "latest session ping: late by"
        yield samples.row((variant, "ping"), subject, quantity, "% of timeout", (ping,))
        quantity = "event-loop lag, p99, at most"
        yield samples.row((variant, "lag"), subject, quantity, "ms", (lag,))
        yield samples.row((variant, "told"), subject, "changes told one by one", "%")
        quantity = "from the write to the subscriber, p99"
        yield samples.row((variant, "told p99"), subject, quantity, "ms")
        yield samples.row((variant, "reads"), subject, "cached reads", "/s")
        yield samples.row((variant, "read p99"), subject, "cached read, p99", "ms")

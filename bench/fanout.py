"""One change of a znode, heard by N subscribers in 8 processes.

The writer stamps CLOCK_MONOTONIC, which all processes of a host share, before it writes; every subscriber
stamps what it hears. The next change is written when all have heard the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic_ns, sleep
from typing import Any

import grpc

from bench import bare, stand
from bench.crew import Crew, Link, Worker, shares
from bench.figures import Curve, Findings, Goal, Plan, Row, Samples, at_most, percentile
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client import Changes, Client, Snapshot
from zkside.pb import watch_pb2, watch_pb2_grpc

PATH = "/bench"
PROCESSES = 8
DATA_SIZE_BYTES = 100

STREAMS, SDK, KAZOO, BARE = "zkside, streams", "zkside, SDK", "kazoo DataWatch", "bare grpc.aio"
_FIRST, _LAST = "to the first", "to the last"
_LOADS = {
    "sessions": at_most("1 session", 0, 1),
    "watches": at_most("1 watch", 0, 1),
    "packets per change": at_most("≤ 5: write 2, event 1, read 2", 0, 5.5),
}
"""What of ZooKeeper's load is shown, and what of it is allowed whatever the number of subscribers."""
SETTING = (
    "Subscribers spread over 8 processes (fewer than 8 subscribers: one each), each told "
    "the 100 bytes of one znode; median of 22 changes, from before the write until the application has the data. "
    "The bare server is told directly, without a write to ZooKeeper."
)


def data_of(number: int) -> bytes:
    """The data of the numbered change; `number_of` reads it back."""
    return b"%012d" % number + bytes(DATA_SIZE_BYTES - 12)


def number_of(data: bytes) -> int:
    return int(data[:12])


class Tally:
    """Counts who has heard the present change; says (number, first, last) when all of the process have."""

    def __init__(self, link: Link, subscribers: int) -> None:
        self._link = link
        self._subscribers = subscribers
        self._lock = threading.Lock()
        self._number = -1
        self._heard: list[int] = []

    def hear(self, number: int) -> None:
        """One subscriber has heard the numbered change, now. For threads, and each subscriber once."""
        now = monotonic_ns()
        with self._lock:
            if number > self._number:
                self._number, self._heard = number, []
            if number < self._number:
                raise AssertionError(f"change {number} came behind {self._number}")
            self._heard.append(now)
            if len(self._heard) == self._subscribers:
                self._link.say((number, self._heard[0], self._heard[-1]))


def listen_to_streams(link: Link, address: str, subscribers: int) -> None:
    """Work: so many Watch streams, with the generated stubs over one channel."""

    async def subscriber(stub: Any, tally: Tally) -> None:
        request = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path=PATH, with_data=True)])
        async for response in stub.Watch(request):
            for node in response.snapshot.nodes:
                tally.hear(number_of(node.data))
            for change in response.changes.changes:
                tally.hear(number_of(change.node.data))

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = watch_pb2_grpc.WatchServiceStub(channel)
            tally = Tally(link, subscribers)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(subscribers):
                    tasks.create_task(subscriber(stub, tally))

    asyncio.run(run())


def listen_through_sdk(link: Link, address: str, subscribers: int) -> None:
    """Work: so many iterating subscribers of one SDK client, which share its stream."""

    async def subscriber(client: Client, tally: Tally) -> None:
        async with client.watch(PATH) as watch:
            async for event in watch:
                if isinstance(event, Snapshot):
                    tally.hear(number_of(event.nodes[PATH].data))
                elif isinstance(event, Changes):
                    for change in event.changes:
                        assert change.node is not None
                        tally.hear(number_of(change.node.data))

    async def run() -> None:
        async with Client(address) as client:
            tally = Tally(link, subscribers)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(subscribers):
                    tasks.create_task(subscriber(client, tally))

    asyncio.run(run())


def listen_with_kazoo(link: Link, hosts: str, subscribers: int) -> None:
    """Work: so many kazoo clients, each with its own session and a DataWatch."""
    tally = Tally(link, subscribers)
    with contextlib.ExitStack() as stack:
        for _ in range(subscribers):
            client = stack.enter_context(stand.kazoo(hosts))
            client.DataWatch(PATH, lambda data, stat: tally.hear(number_of(data)))
        link.hear()


@dataclass(frozen=True, slots=True)
class Audience:
    """Subscribers that are all there, and the way to change what they watch."""

    crew: Crew
    write: Callable[[bytes], object]
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@contextlib.contextmanager
def _audience(variant: str, server: ZooKeeperServer, writer: stand.Kazoo, subscribers: int) -> Iterator[Audience]:
    """All have heard change number 0 when this is entered."""
    with contextlib.ExitStack() as stack:
        write: Callable[[bytes], object] = partial(writer.set, PATH)
        writer.set(PATH, data_of(0))
        crew = Crew()
        work: Callable[[Link, str, int], None]
        if variant == KAZOO:
            work, address = listen_with_kazoo, server.hosts
        elif variant == BARE:
            work, address = listen_to_streams, stack.enter_context(stand.socket_address())
            bare_server = Worker(bare.serve, address, PATH, data_of(0))
            stack.callback(bare_server.kill)
            bare_server.hear(30)
            channel = stack.enter_context(grpc.insecure_channel(address))
            trigger: Any = channel.unary_unary(bare.TRIGGER)
            write = trigger
        else:
            work = listen_to_streams if variant == STREAMS else listen_through_sdk
            address = stack.enter_context(stand.daemon(server.hosts)).address
        stack.enter_context(crew)
        for share in shares(subscribers, PROCESSES):
            crew.hire(work, address, share)
        crew.hear(240)
        yield Audience(crew, write)


def _rounds(audience: Audience, count: int) -> list[tuple[float, float]]:
    """Milliseconds from the write to the first and to the last subscriber, for each change."""
    heard = []
    for number in itertools.islice(audience.numbers, count):
        start = monotonic_ns()
        audience.write(data_of(number))
        times = audience.crew.hear()
        assert all(time[0] == number for time in times)
        heard.append((min(t[1] for t in times) / 1e6 - start / 1e6, max(t[2] for t in times) / 1e6 - start / 1e6))
        sleep(0.02)
    return heard


def _measure(
    samples: Samples, server: ZooKeeperServer, writer: stand.Kazoo, variant: str, count: int, changes: int
) -> None:
    with _audience(variant, server, writer, count) as audience:
        _rounds(audience, 2)  # Warm.
        asked = -stand.load_of(server).packets
        before = stand.load_of(server)
        asked += before.packets
        heard = _rounds(audience, changes)
        after = stand.load_of(server)
    samples.add(variant, count, _FIRST, value=percentile([first for first, _ in heard], 50))
    samples.add(variant, count, _LAST, value=percentile([last for _, last in heard], 50))
    samples.add(variant, count, "sessions", value=before.sessions - 1)  # The writer's is not theirs.
    samples.add(variant, count, "watches", value=before.watches)
    samples.add(variant, count, "packets per change", value=(after.packets - before.packets - asked) / changes)


def _times(samples: Samples, variants: Sequence[str], counts: Sequence[int]) -> Iterator[Row]:
    for count in counts:
        for variant in variants:
            for quantity in (_FIRST, _LAST):
                goals = _goals(samples, variant, count) if quantity == _LAST and count == counts[-1] else ()
                subject = f"{variant}, {count:,} subscribers"
                yield samples.row((variant, count, quantity), subject, quantity, "ms", goals)


def _goals(samples: Samples, variant: str, count: int) -> tuple[Goal, ...]:
    last = {peer: samples.median(peer, count, _LAST) for peer in (variant, KAZOO, BARE)}
    if variant == STREAMS:
        return (
            at_most("≤ 1/15 of kazoo", last[variant] / last[KAZOO], 1 / 15),
            at_most("≤ 1.3 times bare grpc.aio", last[variant] / last[BARE], 1.3),
        )
    if variant == SDK:
        return (at_most("≤ 1/80 of kazoo", last[variant] / last[KAZOO], 1 / 80),)
    return ()


def _loads(samples: Samples, variants: Sequence[str], counts: Sequence[int]) -> Iterator[Row]:
    for count in counts:
        for variant in variants:
            for quantity, allowed in _LOADS.items():
                subject = f"ZooKeeper's load by {variant}, {count:,} subscribers"
                key = (variant, count, quantity)
                goal = replace(allowed, ratio=samples.median(*key))
                goals = (goal,) if variant != KAZOO and count == counts[-1] else ()
                yield samples.row(key, subject, quantity, "", goals)


def run(plan: Plan) -> Findings:
    counts = (1, 3) if plan.quick else (1, 10, 100, 1000)
    variants = (STREAMS, SDK, KAZOO, BARE)
    changes = plan.scaled(22, 4)
    samples = Samples()
    with stand.zookeeper() as server, stand.kazoo(server.hosts) as writer:
        writer.create(PATH, data_of(0))
        for _ in range(plan.repetitions):
            for count in counts:
                for variant in variants:
                    _measure(samples, server, writer, variant, count, changes)
    return Findings(
        rows=(*_times(samples, variants, counts), *_loads(samples, variants[:-1], (counts[0], counts[-1]))),
        setting=SETTING,
        curves=tuple(
            Curve(variant, tuple((count, samples.median(variant, count, _LAST)) for count in counts))
            for variant in variants
        ),
        curve_axes=("subscribers", "ms from the write to the last subscriber"),
    )

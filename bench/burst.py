"""10,000 changes under one subtree, told to 100 subscribers in 8 processes.

Twice: each of 10,000 nodes changed once, where nothing can be merged; and 100 nodes changed 100 times each,
where a subscriber may be told only the latest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc

from bench import stand
from bench.crew import Crew, Link, shares
from bench.figures import Findings, Plan, Row, Samples, at_least
from zkside.pb import watch_pb2, watch_pb2_grpc

ROOT = "/bench"
LAST = f"{ROOT}/last"
"""Changed behind all others: who is told of it has been told all."""
PROCESSES = 8
SUBSCRIBERS = 100
GOAL_PER_S = 100_000
CHANGES_PER_TRANSACTION = 100
DISTINCT, REPEATED = "every node changed once", "each of 100 nodes changed 100 times"
SETTING = (
    f"Changes are written in transactions of {CHANGES_PER_TRANSACTION}, one after the other without waiting; "
    "100 streams on the subtree with data, 32 bytes a node. Delivered counts what reached the applications, "
    "from the first write to the last message; merged is what was written and not told one by one."
)


def listen(link: Link, address: str, subscribers: int) -> None:
    """Work: for each number told, says (changes, when) as soon as all have been told of `LAST`."""

    async def subscriber(stub: Any, ready: asyncio.Event, done: list[tuple[int, int]]) -> None:
        target = watch_pb2.WatchTarget(path=ROOT, scope=watch_pb2.SCOPE_SUBTREE, with_data=True)
        told = 0
        async for response in stub.Watch(watch_pb2.WatchRequest(targets=[target])):
            if response.HasField("snapshot"):
                if not response.snapshot.more:
                    ready.set()
                continue
            changes = response.changes.changes
            told += len(changes)
            if any(change.node.path == LAST for change in changes):
                done.append((told, time.monotonic_ns()))
                told = 0
                if len(done) == subscribers:
                    link.say((sum(count for count, _ in done), max(when for _, when in done)))
                    done.clear()

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
            stub = watch_pb2_grpc.WatchServiceStub(channel)
            done: list[tuple[int, int]] = []
            there = [asyncio.Event() for _ in range(subscribers)]
            for ready in there:
                tasks.create_task(subscriber(stub, ready, done))
            for ready in there:
                await ready.wait()
            link.say("ready")

    asyncio.run(run())


def _write(client: stand.Kazoo, paths: list[str], data: bytes) -> None:
    """Set all, in their order, then `LAST`."""
    pending = []
    for start in range(0, len(paths), CHANGES_PER_TRANSACTION):
        transaction = client.transaction()
        for path in paths[start : start + CHANGES_PER_TRANSACTION]:
            transaction.set_data(path, data)
        pending.append(transaction.commit_async())
    pending.append(client.set_async(LAST, data))
    for result in pending:
        result.get()


def run(plan: Plan) -> Findings:
    changes = plan.scaled(10_000, 1_000)
    subscribers = plan.scaled(SUBSCRIBERS, 3)
    every = [f"{ROOT}/{number:06}" for number in range(changes)]
    few = [path for _ in range(100) for path in every[: changes // 100]]
    samples = Samples()
    with stand.zookeeper() as server, stand.kazoo(server.hosts) as writer:
        writer.create(ROOT)
        for start in range(0, changes, 1000):
            transaction = writer.transaction()
            for path in every[start : start + 1000]:
                transaction.create(path, bytes(32))
            transaction.commit()
        writer.create(LAST)
        for repetition in range(plan.repetitions):
            with stand.daemon(server.hosts) as daemon, Crew() as crew:
                for share in shares(subscribers, PROCESSES):
                    crew.hire(listen, daemon.address, share)
                crew.hear()
                for variant, paths in ((DISTINCT, every), (REPEATED, few)):
                    start_ns = time.monotonic_ns()
                    _write(writer, paths, b"%032d" % repetition)
                    written_ns = time.monotonic_ns()
                    heard = crew.hear(120)
                    took_s = (max(when for _, when in heard) - start_ns) / 1e9
                    delivered = sum(count for count, _ in heard)
                    possible = (changes + 1) * subscribers
                    samples.add(variant, "delivered", value=delivered)
                    samples.add(variant, "per_s", value=delivered / took_s)
                    samples.add(variant, "took", value=took_s)
                    samples.add(variant, "write", value=(written_ns - start_ns) / 1e9)
                    samples.add(variant, "merged", value=100 * (1 - delivered / possible))
    return Findings(rows=tuple(_rows(samples, changes, subscribers)), setting=SETTING)


def _rows(samples: Samples, changes: int, subscribers: int) -> Iterator[Row]:
    for variant in (DISTINCT, REPEATED):
        subject = f"{changes:,} changes, {subscribers} subscribers, {variant}"
        per_s = samples.median(variant, "per_s")
        goals = (at_least("≥ 100,000/s", per_s, GOAL_PER_S),) if variant == DISTINCT else ()
        yield samples.row((variant, "per_s"), subject, "delivered", "/s", goals)
        yield samples.row((variant, "delivered"), subject, "events delivered", "")
        yield samples.row((variant, "merged"), subject, "merged", "%")
        yield samples.row((variant, "took"), subject, "until the last was told", "s")
        yield samples.row((variant, "write"), subject, "until the writer was done", "s")

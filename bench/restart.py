"""kill -9 of a daemon with 100 held locks, until its successor has given all of them back to their owners."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import grpc

from bench import stand
from bench.crew import Crew, Link, Worker, shares
from bench.figures import Findings, Plan, Row, Samples, at_least, at_most
from zkside.client import Client, HoldState, HoldStatus
from zkside.pb import hold_pb2, lock_pb2, lock_pb2_grpc

ROOT = "/restart"
PROCESSES = 4
GOAL_GAP_S = 1.0
SETTING = (
    f"Through the Python SDK {PROCESSES} processes hold the locks, and through a second daemon (another host) one "
    "process waits for each of them. The daemon is killed and started again at once, with the same state_dir and "
    "address. The gap runs from before the kill until every owner has been told HELD, RESUMED by the successor and "
    "says is_held() again. "
    "At the end the owners let go, and the waiters get all locks: they did wait."
)


def own(link: Link, address: str, paths: list[str]) -> None:
    """Work: holds locks; says, after each restart, how many kept their tokens, and when all were told and believed."""

    async def run() -> None:
        taken_up: dict[str, int] = {}
        all_taken_up = asyncio.Event()

        def heard(status: HoldStatus) -> None:
            if status.state is HoldState.HELD and status.reason == "RESUMED":
                taken_up[status.path] = time.monotonic_ns()
                if len(taken_up) == len(paths):
                    all_taken_up.set()

        async with Client(address) as client, contextlib.AsyncExitStack() as stack:
            held = [await stack.enter_async_context(client.lock(path, on_update=heard)) for path in paths]
            link.say(tokens := {one.path: one.fencing_token for one in held})
            while await link.heard() == "go on":
                await all_taken_up.wait()
                told = max(taken_up.values())
                while not all(one.is_held() for one in held):  # noqa: ASYNC110 - belief is arithmetic and tells nobody
                    await asyncio.sleep(0.001)
                believed = time.monotonic_ns()
                kept = sum(tokens[one.path] == one.fencing_token for one in held)
                taken_up.clear()
                all_taken_up.clear()
                link.say((kept, told, believed))
        link.say("let go")

    asyncio.run(run())


def wait(link: Link, address: str, paths: list[str]) -> None:
    """Work: says "ready" when it waits for all paths; then, told a number, how many were granted when so many are."""

    async def run() -> None:
        waiting: set[str] = set()
        granted: set[str] = set()
        changed = asyncio.Event()

        async def follow(locks: Any, path: str) -> None:
            async for update in locks.Acquire(lock_pb2.AcquireRequest(path=path)):
                (waiting if update.state == hold_pb2.HOLD_STATE_WAITING else granted).add(path)
                changed.set()

        async def until(paths: set[str], number: int) -> None:
            while len(paths) < number:
                changed.clear()
                await changed.wait()

        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
            for path in paths:
                tasks.create_task(follow(lock_pb2_grpc.LockServiceStub(channel), path))
            await until(waiting, len(paths))
            link.say("ready")
            while True:
                await until(granted, await link.heard())
                link.say(len(granted))

    asyncio.run(run())


def run(plan: Plan) -> Findings:
    locks, restarts = plan.scaled(100, 8), plan.scaled(5, 1)
    samples = Samples()
    with stand.zookeeper() as server:
        for repetition in range(plan.repetitions):
            paths = [f"{ROOT}/{repetition}/{number:03}" for number in range(locks)]
            with (
                tempfile.TemporaryDirectory(prefix="zkside-bench-") as state_dir,
                stand.socket_address() as address,
                stand.daemon(server.hosts) as elsewhere,
                contextlib.ExitStack() as daemons,
                Crew() as owners,
                Crew() as rivals,
            ):
                settings = {"ZKSIDE_LISTEN": address, "ZKSIDE_STATE_DIR": state_dir}
                daemon = daemons.enter_context(stand.daemon(server.hosts, **settings))
                first = 0
                for share in shares(locks, PROCESSES):
                    owners.hire(own, address, paths[first : first + share])
                    first += share
                owners.hear()
                rival = rivals.hire(wait, elsewhere.address, paths)
                rival.hear(60)
                for _ in range(restarts):
                    owners.tell("go on")
                    start = time.monotonic_ns()
                    daemon.kill()
                    daemon = daemons.enter_context(stand.daemon(server.hosts, **settings))
                    ready = time.monotonic_ns()
                    heard = owners.hear(30)
                    samples.add("ready", value=(ready - start) / 1e9)
                    samples.add("told", value=(max(told for _, told, _ in heard) - start) / 1e9)
                    samples.add("gap", value=(max(believed for _, _, believed in heard) - start) / 1e9)
                    samples.add("kept", value=sum(kept for kept, _, _ in heard))
                    samples.add("elsewhere", value=_granted(rival, 0))
                start = time.monotonic_ns()
                owners.tell("let go")
                assert _granted(rival, locks) == locks
                samples.add("let go", value=(time.monotonic_ns() - start) / 1e9)
    return Findings(rows=tuple(_rows(samples, locks)), setting=SETTING)


def _granted(rival: Worker, wanted: int) -> int:
    """How many the other host was granted, when it was granted so many."""
    rival.tell(wanted)
    return int(rival.hear(60))


def _rows(samples: Samples, locks: int) -> Iterator[Row]:
    subject = f"{locks} locks, kill -9 and restart of the daemon"
    kept = at_least("all still held, with the same token", min(samples.of("kept")), locks)
    elsewhere = at_most("no other host got any", max(samples.of("elsewhere")), 0)
    gap = at_most("≤ 1 s, in every restart", max(samples.of("gap")), GOAL_GAP_S)
    yield samples.row(("gap",), subject, "kill to is_held() of all", "s", (gap,))
    yield samples.row(("told",), subject, "kill to the last HELD, RESUMED", "s")
    yield samples.row(("ready",), subject, "kill to the successor's /readyz", "s")
    yield samples.row(("kept",), subject, "still held", "", (kept,))
    yield samples.row(("elsewhere",), subject, "granted to the other host meanwhile", "", (elsewhere,))
    yield samples.row(("let go",), f"{locks} locks, let go at the end", "until the other host has all", "s")

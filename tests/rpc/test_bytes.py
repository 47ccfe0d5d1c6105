"""What is under way in bytes: bounded, in turn, and never ahead of the session's own (GUARANTEES V4)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from tests.rpc.host import Stubs, failure
from zkside.pb import common_pb2, lock_pb2, node_pb2, session_pb2
from zkside.pb.node_pb2 import GetManyRequest, GetRequest

MOST_RESIDENT_BYTES = 400_000_000
MEGABYTE = bytes(1_000_000)
CACHED, SERVER = node_pb2.CONSISTENCY_CACHED, node_pb2.CONSISTENCY_SERVER


def options(consistency: Any) -> node_pb2.ReadOptions:
    return node_pb2.ReadOptions(consistency=consistency)


def peak_bytes(pid: int) -> int:
    """The most that was resident since the process began."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def metric(daemon: DaemonProcess, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", daemon.get("/metrics")[1], re.MULTILINE)
    assert found, name
    return float(found[1])


@pytest.fixture
def daemon(tmp_path: Path, hosts: str) -> Iterator[DaemonProcess]:
    """A process of its own, so that its memory is its own."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts, ZOOKEEPER_SESSION_TIMEOUT="4s", LEASE_TICK="0.2s") as process:
        yield process


@pytest.fixture
async def large(daemon: DaemonProcess) -> AsyncIterator[Stubs]:
    """A client that takes answers of any size."""
    async with Stubs(daemon.address, (("grpc.max_receive_message_length", -1),)) as stubs:
        async for told in stubs.session.WatchSession(session_pb2.WatchSessionRequest()):
            if told.session.state == common_pb2.SESSION_STATE_CONNECTED:
                break
        yield stubs


@pytest.fixture
async def small(daemon: DaemonProcess, large: Stubs) -> AsyncIterator[Stubs]:
    """Somebody else, who asks for little."""
    async with Stubs(daemon.address) as stubs:
        yield stubs


class Neighbour:
    """Reads a small node from ZooKeeper all the while, holds a lock, and hears of the session."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        self.took_s: list[float] = []
        self.states: list[int] = []

    async def __aenter__(self) -> Neighbour:
        self._lock = self._stubs.lock.Acquire(lock_pb2.AcquireRequest(path="/lock"))
        assert (await self._lock.read()).HasField("hold")
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._listen())]
        return self

    async def _read(self) -> None:
        while True:
            began_s = time.perf_counter()
            await self._stubs.node.Get(GetRequest(path="/small", options=options(SERVER)))
            self.took_s.append(time.perf_counter() - began_s)
            await asyncio.sleep(0.005)

    async def _listen(self) -> None:
        async for told in self._stubs.session.WatchSession(session_pb2.WatchSessionRequest()):
            self.states.append(told.session.state)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in results), results
        self._lock.cancel()

    def assert_undisturbed(self, within_s: float) -> None:
        assert set(self.states) == {common_pb2.SESSION_STATE_CONNECTED}
        assert not self._lock.done()
        self.took_s.sort()
        p99_s = self.took_s[len(self.took_s) * 99 // 100]
        assert p99_s < within_s, f"p99 {p99_s:.3f} s, longest {self.took_s[-1]:.3f} s of {len(self.took_s)}"


@pytest.fixture
async def neighbour(small: Stubs, stock_client: KazooClient) -> AsyncIterator[Neighbour]:
    stock_client.create("/small", b"x")
    async with Neighbour(small) as neighbour:
        yield neighbour


async def test_a_node_named_thousands_of_times_is_refused_before_it_is_copied(
    daemon: DaemonProcess, large: Stubs, neighbour: Neighbour, stock_client: KazooClient
) -> None:
    """V4, O1: case 9. A request of 12 kB made 5.8 GB."""
    stock_client.create("/big", MEGABYTE)
    for consistency in (CACHED, SERVER):
        fault = await failure(large.node.GetMany(GetManyRequest(paths=["/big"] * 2_000, options=options(consistency))))
        assert (fault.code, fault.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
        assert "max_answer_size" in fault.message
    answer = await large.node.GetMany(GetManyRequest(paths=["/big", "/small"] * 10, options=options(CACHED)))
    assert [each.path for each in answer.results] == ["/big", "/small"] * 10
    assert all(each.node.data == MEGABYTE for each in answer.results[::2])
    neighbour.assert_undisturbed(within_s=0.5)
    assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES


async def test_many_large_reads_at_once_are_answered_in_turn_and_leases_keep_their_time(
    daemon: DaemonProcess, large: Stubs, neighbour: Neighbour, stock_client: KazooClient
) -> None:
    """V4: case 10, with as much as one answer may have."""
    paths = [f"/big{number}" for number in range(12)]
    for path in paths:
        stock_client.create(path, MEGABYTE)
    request = GetManyRequest(paths=paths, options=options(SERVER))
    answers = await asyncio.gather(*(_size_of(large, request) for _ in range(40)))
    assert answers == [12 * len(MEGABYTE)] * 40
    neighbour.assert_undisturbed(within_s=0.5)
    assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES
    assert metric(daemon, 'zkside_bytes_calls_waited_total{direction="reads"}') > 0
    assert metric(daemon, 'zkside_bytes_in_flight{direction="answers"}') == 0
    assert metric(daemon, 'zkside_bytes_in_flight{direction="reads"}') == 0


async def test_reads_of_more_than_an_answer_may_have_end_early_and_say_so(
    daemon: DaemonProcess, large: Stubs, neighbour: Neighbour, stock_client: KazooClient
) -> None:
    """V4: case 10 as it was found: 40 times 60 MB, which cost the session."""
    paths = [f"/big{number}" for number in range(60)]
    for path in paths:
        stock_client.create(path, MEGABYTE)
    request = GetManyRequest(paths=paths, options=options(SERVER))
    faults = await asyncio.gather(*(failure(large.node.GetMany(request)) for _ in range(40)))
    assert {fault.reason for fault in faults} == {"TOO_LARGE"}
    neighbour.assert_undisturbed(within_s=0.5)
    assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES


async def _size_of(stubs: Stubs, request: Any) -> int:
    answer = await stubs.node.GetMany(request)
    return sum(len(each.node.data) for each in answer.results)

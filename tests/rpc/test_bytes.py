"""What is under way in bytes: bounded, in turn, and never ahead of the session's own (GUARANTEES V4)."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from tests.parts.proxy import Proxy
from tests.rpc.host import Host, Stubs, failure, fault
from tests.rpc.untaking import Untaking
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.pb import common_pb2, lock_pb2, node_pb2, session_pb2, watch_pb2
from zkside.pb.node_pb2 import GetManyRequest, GetRequest, SetRequest
from zkside.rpc.streams import QuotaSettings

MOST_RESIDENT_BYTES = 400_000_000
MEGABYTE = bytes(1_000_000)
MOST_NODES = 24
MARK = b"a mark 9q"


def started(directory: Path, hosts: str) -> DaemonProcess:
    """A process of its own, so that its memory is its own."""
    return DaemonProcess(directory, ZOOKEEPER_HOSTS=hosts, ZOOKEEPER_SESSION_TIMEOUT="4s", LEASE_TICK="0.2s")


async def soon(condition: Callable[[], object]) -> None:
    """Return when it holds; a few turns of the event loop each time."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.01)


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
    with started(tmp_path, hosts) as process:
        yield process


@pytest.fixture(scope="module")
def server(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """With more memory than the one that all tests share: a server keeps the last 500 transactions, however large."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, heap_mb=1024) as server:
        yield server


@pytest.fixture
def chroot(server: ZooKeeperServer) -> Iterator[str]:
    client = KazooClient(server.hosts)
    client.start(timeout=30)
    yield client.create("/test-", sequence=True)
    client.stop()
    client.close()


@pytest.fixture
def hosts(server: ZooKeeperServer, chroot: str) -> str:
    return server.hosts + chroot


@pytest.fixture
def proxy(server: ZooKeeperServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def megabytes(stock_client: KazooClient) -> list[str]:
    """Large nodes."""
    paths = [f"/tree/{number}" for number in range(MOST_NODES)]
    stock_client.create("/tree")
    for path in paths:
        stock_client.create(path, MEGABYTE)
    return paths


@asynccontextmanager
async def connected(daemon: DaemonProcess) -> AsyncIterator[Stubs]:
    """A client that takes answers of any size, of a daemon that has its session."""
    async with Stubs(daemon.address, (("grpc.max_receive_message_length", -1),)) as stubs:
        async for told in stubs.session.WatchSession(session_pb2.WatchSessionRequest()):
            if told.session.state == common_pb2.SESSION_STATE_CONNECTED:
                break
        yield stubs


@pytest.fixture
async def large(daemon: DaemonProcess) -> AsyncIterator[Stubs]:
    async with connected(daemon) as stubs:
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
        assert self.took_s, "it got no answer at all"
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
    daemon: DaemonProcess, large: Stubs, neighbour: Neighbour, megabytes: list[str]
) -> None:
    """V4, O1: case 9. A request of 12 kB made 5.8 GB."""
    for consistency in (CACHED, SERVER):
        fault = await failure(
            large.node.GetMany(GetManyRequest(paths=megabytes[:1] * 2_000, options=options(consistency)))
        )
        assert (fault.code, fault.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
        assert "max_answer_size" in fault.message
    answer = await large.node.GetMany(GetManyRequest(paths=[megabytes[0], "/small"] * 10, options=options(CACHED)))
    assert [each.path for each in answer.results] == [megabytes[0], "/small"] * 10
    assert all(each.node.data == MEGABYTE for each in answer.results[::2])
    neighbour.assert_undisturbed(within_s=1.5)
    assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES


async def test_many_large_reads_at_once_are_answered_in_turn_and_leases_keep_their_time(
    daemon: DaemonProcess, large: Stubs, neighbour: Neighbour, megabytes: list[str]
) -> None:
    """V4: case 10, with as much as one answer may have."""
    request = GetManyRequest(paths=megabytes[:12], options=options(SERVER))
    answers = await asyncio.gather(*(_size_of(large, request) for _ in range(40)))
    assert answers == [12 * len(MEGABYTE)] * 40
    neighbour.assert_undisturbed(within_s=1.5)
    assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES
    assert metric(daemon, 'zkside_bytes_calls_waited_total{direction="held"}') > 0
    assert metric(daemon, 'zkside_bytes_in_flight{direction="answers"}') == 0
    assert metric(daemon, 'zkside_bytes_in_flight{direction="reads"}') == 0


async def test_reads_of_more_than_an_answer_may_have_end_early_and_say_so(
    daemon: DaemonProcess, large: Stubs, neighbour: Neighbour, megabytes: list[str]
) -> None:
    """V4: case 10 as it was found: 40 large ones, of 60 MB then, which cost the session."""
    request = GetManyRequest(paths=megabytes, options=options(SERVER))
    faults = await asyncio.gather(*(failure(large.node.GetMany(request)) for _ in range(40)))
    assert {fault.reason for fault in faults} == {"TOO_LARGE"}
    neighbour.assert_undisturbed(within_s=1.5)
    assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES


async def _size_of(stubs: Stubs, request: Any) -> int:
    answer = await stubs.node.GetMany(request)
    return sum(len(each.node.data) for each in answer.results)


async def test_on_a_slow_way_proofs_keep_their_time(
    proxy: Proxy, proxy_hosts: str, tmp_path: Path, stock_client: KazooClient, megabytes: list[str]
) -> None:
    """V4: as little is expected at a time as comes in time."""
    request = GetManyRequest(paths=megabytes[:4], options=options(SERVER))
    proxy.limit_replies(8e6)
    with started(tmp_path, proxy_hosts) as daemon:
        async with connected(daemon) as large, Stubs(daemon.address) as small:
            stock_client.create("/small", b"x")
            async with Neighbour(small) as neighbour:
                calls = [asyncio.ensure_future(_size_of(large, request)) for _ in range(30)]
                done, _ = await asyncio.wait(calls, timeout=5.0)
                assert done
                assert all(call.result() == 4 * len(MEGABYTE) for call in done)
                # What has not been asked of ZooKeeper by then is not asked any more.
                for call in calls:
                    call.cancel()
                neighbour.assert_undisturbed(within_s=4.0)
                assert len(neighbour.took_s) >= 3


async def test_calls_that_wait_for_room_keep_their_deadlines_and_leave_with_their_callers(
    proxy: Proxy, shaky_host: Host, shaky_client: Stubs, stock_client: KazooClient
) -> None:
    """V4, S6."""
    reads = shaky_host.hub.reads.from_server
    proxy.hold_replies()
    listing = node_pb2.ListRequest(path="/", options=options(SERVER))
    first = shaky_client.node.List(listing)
    late = shaky_client.node.List(listing, timeout=0.3)
    gone = shaky_client.node.List(listing)
    await soon(lambda: reads.held.statistics().waiting == 2)
    gone.cancel()
    assert (await failure(late)).code is grpc.StatusCode.DEADLINE_EXCEEDED
    await soon(lambda: not reads.held.statistics().waiting)
    proxy.heal()
    await first
    assert not reads.held.statistics().bytes
    assert not reads.in_flight.statistics().bytes
    await shaky_client.node.List(listing)


async def test_who_finds_too_many_waiting_is_told_when_to_try_again(
    hosts: str, short_path: Path, stock_client: KazooClient
) -> None:
    """V4, O1: what waits is in memory, so no more of it waits than may be under way."""
    async with (
        Host(hosts, short_path, quotas=QuotaSettings(max_requests_bytes=1 << 20)) as host,
        host.stubs() as client,
    ):
        await client.node.Create(node_pb2.CreateRequest(path="/n"))
        sets = [client.node.Set(SetRequest(path="/n", data=MEGABYTE)) for _ in range(10)]
        results = await asyncio.gather(*sets, return_exceptions=True)
        faults = [fault(each) for each in results if isinstance(each, grpc.aio.AioRpcError)]
        assert 0 < len(faults) < len(sets)
        assert {each.reason for each in faults} == {"QUOTA"}
        assert all(each.metadata["limit"] == "max_requests_size" and each.retry_after_s for each in faults)
        assert host.rpc.refused()["max_requests_size"] == len(faults)
        assert not host.rpc.interceptors.flow.requests.statistics().bytes


async def test_a_call_that_was_refused_leaves_nothing_of_its_message_in_memory(client: Stubs) -> None:
    """V4, O1: it stood in a cycle with gRPC's call until the garbage collector came by, 100 MB after a burst."""
    await client.node.Create(node_pb2.CreateRequest(path="/n"))
    gc.collect()
    gc.disable()
    try:
        for path, reason in (("/n", "BAD_VERSION"), ("/absent", "NO_NODE"), ("n", "INVALID_PATH")):
            request = SetRequest(path=path, expected_version=7, data=MARK * 100_000)
            assert (await failure(client.node.Set(request))).reason == reason
        del request
        await asyncio.sleep(0.1)
        kept = [held for tracked in gc.get_objects() for held in gc.get_referents(tracked) if type(held) is bytes]
        assert not [held for held in kept if len(held) > 100_000 and MARK in held]
    finally:
        gc.enable()


async def test_what_is_known_to_be_too_large_is_weighed_and_not_read(
    host: Host, client: Stubs, stock_client: KazooClient
) -> None:
    """V4, O4: 40 calls for 60 MB each kept others waiting while 16 MB of each were read, for nobody."""
    reads = host.hub.reads.from_server
    reads.configure(reads.window.most_bytes, 4 << 20)
    paths = [f"/{number}" for number in range(8)]
    for path in paths:
        stock_client.create(path, MEGABYTE[:900_000])
    request = GetManyRequest(paths=paths, options=options(SERVER))
    assert (await failure(client.node.GetMany(request))).reason == "TOO_LARGE"
    before = host.session.statistics().connection
    assert (await failure(client.node.GetMany(request))).reason == "TOO_LARGE"
    after = host.session.statistics().connection
    assert before
    assert after
    assert after.received_bytes - before.received_bytes < 100_000
    # As soon as they are small again they are read.
    for path in paths:
        stock_client.set(path, b"x")
    assert len((await client.node.GetMany(request)).results) == len(paths)


async def test_what_nobody_takes_keeps_its_room_until_its_client_goes(
    host: Host, client: Stubs, stock_client: KazooClient
) -> None:
    """V4, W8: no more is made meanwhile than there is room for; what is small goes on."""
    host.rpc.configure(QuotaSettings(max_answers_bytes=2 << 20, max_messages_bytes=2 << 20))
    stock_client.create("/n", MEGABYTE)
    stock_client.create("/small", b"x")
    flow = host.rpc.interceptors.flow
    get = GetRequest(path="/n", options=options(CACHED))
    watch = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/n", with_data=True)])
    async with Untaking(host.address.removeprefix("unix:")) as untaking:
        untaking.ask("/zkside.v1.NodeService/Get", get)
        untaking.ask("/zkside.v1.WatchService/Watch", watch)
        await soon(lambda: flow.answers.statistics().bytes and flow.messages.statistics().bytes)
        assert (await failure(client.node.Get(get, timeout=0.3))).code is grpc.StatusCode.DEADLINE_EXCEEDED
        stream = client.watch.Watch(watch)
        await soon(lambda: flow.messages.statistics().waiting)
        assert (await client.node.Get(GetRequest(path="/small"))).node.data == b"x"
    assert (await asyncio.wait_for(stream.read(), 10)).snapshot.nodes[0].data == MEGABYTE
    assert (await client.node.Get(get)).node.data == MEGABYTE
    stream.cancel()


async def test_who_takes_nothing_costs_bounded_memory_and_delays_nobody(
    daemon: DaemonProcess, large: Stubs, neighbour: Neighbour, megabytes: list[str]
) -> None:
    """V4, W8: watches of a large subtree, and large answers, of which nothing is ever taken."""
    target = watch_pb2.WatchTarget(path="/tree", scope=watch_pb2.SCOPE_SUBTREE, with_data=True)
    reading = GetManyRequest(paths=megabytes[:12], options=options(CACHED))
    async with Untaking(daemon.address.removeprefix("unix:")) as untaking:
        for _ in range(20):
            untaking.ask("/zkside.v1.WatchService/Watch", watch_pb2.WatchRequest(targets=[target]))
            untaking.ask("/zkside.v1.NodeService/GetMany", reading)
        await soon(lambda: metric(daemon, 'zkside_bytes_calls_waiting{direction="answers"}') >= 10)
        await soon(lambda: metric(daemon, 'zkside_bytes_in_flight{direction="messages"}') > 10e6)
        for _ in range(20):
            data = (await large.node.Get(GetRequest(path=megabytes[0], options=options(CACHED)))).node.data
            assert data == MEGABYTE
        neighbour.assert_undisturbed(within_s=1.5)
        assert 0 < metric(daemon, 'zkside_bytes_in_flight{direction="answers"}') < 40e6
        assert 0 < metric(daemon, 'zkside_bytes_in_flight{direction="messages"}') < 70e6
        assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES

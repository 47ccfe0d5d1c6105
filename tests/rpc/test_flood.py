"""Connections that open calls and take them back, or never send their message, beside a client that behaves well."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from tests.ops.process import DaemonProcess
from tests.parts.eventually import until
from tests.parts.http2 import Http2
from tests.rpc.host import PATIENCE_S, Host, Stubs, failure, fault
from zkside.pb.node_pb2 import GetRequest
from zkside.pb.session_pb2 import GetSessionRequest
from zkside.rpc import arrivals
from zkside.rpc.streams import QuotaSettings

RATE = 36_000
GET = "/zkside.v1.NodeService/Get"


class Neighbour:
    """A client that behaves well: a call each 10 ms, and each 10 s at most."""

    def __init__(self, client: Stubs) -> None:
        self._client = client
        self.took_s: list[float] = []
        self.ended: Counter[str] = Counter()
        self._stop = False

    async def work(self) -> None:
        calls: set[asyncio.Task[None]] = set()
        while not self._stop:
            calls.add(asyncio.create_task(self._call()))
            await asyncio.sleep(0.01)
        await asyncio.gather(*calls)

    def stop(self) -> None:
        self._stop = True

    async def _call(self) -> None:
        began = time.perf_counter()
        try:
            await self._client.session.GetSession(GetSessionRequest(), timeout=10)
            self.ended["OK"] += 1
        except grpc.aio.AioRpcError as error:
            told = fault(error)
            self.ended[told.reason or f"{told.code.name} without a reason"] += 1
        self.took_s.append(time.perf_counter() - began)

    def p99_s(self) -> float:
        return sorted(self.took_s)[int(len(self.took_s) * 0.99)]


def resident_mb(daemon: DaemonProcess, which: str) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(rf"{which}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1000


def metric(daemon: DaemonProcess, sample: str) -> float:
    _, text = daemon.get("/metrics")
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.M)
    assert found is not None, sample
    return float(found[1])


async def flooded(daemon: DaemonProcess, seconds: float) -> Neighbour:
    """A client's work during a flood of so long."""
    async with Stubs(daemon.address) as client:
        neighbour = Neighbour(client)
        await client.session.GetSession(GetSessionRequest(), wait_for_ready=True)
        working = asyncio.create_task(neighbour.work())
        program = (sys.executable, "-m", "tests.rpc.flooding", daemon.address, str(seconds), str(RATE))
        process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
        sent, _ = await process.communicate()
        assert int(sent) > 5_000 * seconds, "this machine is too slow to flood"
        neighbour.stop()
        await working
    return neighbour


async def test_a_connection_that_opens_and_resets_calls_harms_nobody(short_path: Path) -> None:
    """O1, V4: the others are served, memory stays, and it can be seen."""
    with DaemonProcess(short_path, backend="memory") as daemon:
        before_mb = resident_mb(daemon, "VmRSS")
        neighbour = await flooded(daemon, 2.0)
        assert set(neighbour.ended) == {"OK"}
        assert max(neighbour.took_s) < 2.0
        assert resident_mb(daemon, "VmHWM") - before_mb < 60
        reset = 'zkside_calls_ended_without_message_total{how="reset"}'
        assert metric(daemon, reset) > 500


@pytest.mark.faults
async def test_a_flood_of_15_s_delays_nobody_by_more_than_a_quarter_of_a_second(short_path: Path) -> None:
    """O1, V4."""
    with DaemonProcess(short_path, backend="memory") as daemon:
        before_mb = resident_mb(daemon, "VmRSS")
        neighbour = await flooded(daemon, 15.0)
        assert set(neighbour.ended) == {"OK"}
        assert resident_mb(daemon, "VmHWM") - before_mb < 60
        await asyncio.sleep(10.0)
        assert resident_mb(daemon, "VmRSS") - before_mb < 40
        assert neighbour.p99_s() <= 0.25


@pytest.mark.faults
async def test_20000_calls_of_headers_alone_cost_bounded_memory_and_are_ended(short_path: Path) -> None:
    """O1: over so many connections that none of them is at its limit."""
    with DaemonProcess(short_path, backend="memory", QUOTAS_MESSAGE_TIMEOUT="3s") as daemon:
        before_mb = resident_mb(daemon, "VmRSS")
        connections = [Http2(daemon.address) for _ in range(100)]
        for connection in connections:
            connection.open(200)
        async with Stubs(daemon.address) as client:
            late = 'zkside_calls_ended_without_message_total{how="late"}'
            await until(lambda: metric(daemon, late) > 4_000)
            # Some are refused by gRPC itself, in whose hands they are before they are ours.
            assert metric(daemon, 'zkside_quota_refusals_total{limit="max_calls"}') > 0
            assert resident_mb(daemon, "VmHWM") - before_mb < 280
            for connection in connections:
                connection.__exit__(None, None, None)
            await until(lambda: metric(daemon, "zkside_calls_without_message") == 0)
            await client.session.GetSession(GetSessionRequest())


@pytest.fixture
async def strict(hosts: str, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """A daemon with small limits, whose every call is looked after from its opening on."""
    monkeypatch.setattr(arrivals, "MAX_QUICK", 0)
    quotas = QuotaSettings(max_calls=20, message_timeout_s=1.0)
    async with Host(hosts, short_path, quotas=quotas) as host:
        yield host


async def silent() -> AsyncIterator[bytes]:
    """A request that never comes."""
    await asyncio.Event().wait()
    yield b""


async def test_a_call_counts_from_its_opening_on_and_its_message_has_to_come_in_time(strict: Host) -> None:
    """O1."""
    async with strict.stubs() as client:
        channel = cast(Any, client.channel)
        opened = [asyncio.ensure_future(failure(channel.stream_unary(GET)(silent()))) for _ in range(20)]
        await until(lambda: len(strict.rpc.interceptors.arrivals) == 20)
        beyond = await failure(channel.stream_unary(GET)(silent()))
        assert (beyond.code, beyond.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA")
        for ended in await asyncio.wait_for(asyncio.gather(*opened), PATIENCE_S):
            assert (ended.code, ended.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NO_MESSAGE")
        assert (strict.rpc.interceptors.arrivals.late, strict.rpc.refused()["max_calls"]) == (20, 1)
        await client.node.Get(GetRequest(path="/"))


async def test_a_call_that_ends_without_a_message_is_told_so(strict: Host) -> None:
    """O1: to gRPC's own server it is a call without an end."""

    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    async with strict.stubs() as client:
        channel = cast(Any, client.channel)
        assert (await failure(channel.stream_unary(GET)(nothing()))).reason == "NO_MESSAGE"
        watch = channel.stream_stream("/zkside.v1.WatchService/Watch")(nothing())
        assert (await failure(watch)).reason == "NO_MESSAGE"
        assert strict.rpc.interceptors.arrivals.empty == 2
        assert strict.rpc.interceptors.incidents == 0


async def test_a_stream_without_its_request_is_ended_too(strict: Host) -> None:
    """O1: it counts against max_streams from its opening on."""
    async with strict.stubs() as client:
        watch = cast(Any, client.channel).stream_stream("/zkside.v1.WatchService/Watch")(silent())
        reading = asyncio.ensure_future(failure(watch))
        await until(lambda: len(strict.rpc.streams) == 1)
        assert (await reading).reason == "NO_MESSAGE"
        await until(lambda: len(strict.rpc.streams) == 0)


async def test_calls_without_a_message_do_not_keep_the_daemon_from_stopping(
    hosts: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O3."""
    monkeypatch.setattr(arrivals, "MAX_QUICK", 20)
    quotas = QuotaSettings(message_timeout_s=600.0)
    async with Host(hosts, short_path, quotas=quotas) as host, host.stubs() as client:
        opened = [
            asyncio.ensure_future(failure(cast(Any, client.channel).stream_unary(GET)(silent()))) for _ in range(30)
        ]
        await until(lambda: host.rpc.interceptors.calls == 10)
        began = time.perf_counter()
        await host.stop(5.0)
        assert time.perf_counter() - began < 3.0
        ended = Counter([each.reason for each in await asyncio.gather(*opened)])
        assert ended["DRAINING"] == 10


async def test_what_gives_up_before_its_message_is_counted_and_leaves_nothing(host: Host) -> None:
    """O1."""
    interceptors = host.rpc.interceptors
    await asyncio.to_thread(_open_and_reset, host.address, 600)
    await until(lambda: interceptors.arrivals.reset + interceptors.arrivals.empty >= 400)
    await until(lambda: len(interceptors.arrivals) == 0)
    await until(lambda: interceptors.calls == 0)
    assert interceptors.incidents == 0


def _open_and_reset(address: str, number: int) -> None:
    with Http2(address) as connection:
        for _ in range(number // 20):
            connection.open_and_reset(20)
            time.sleep(0.01)

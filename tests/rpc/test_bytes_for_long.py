"""The bounds on bytes under everything at once, for longer than one test of the quick suite may take."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from kazoo.client import KazooClient

from tests.rpc.host import Stubs, fault
from tests.rpc.test_bytes import (
    CACHED,
    MEGABYTE,
    MOST_RESIDENT_BYTES,
    SERVER,
    Neighbour,
    chroot,
    connected,
    hosts,
    megabytes,
    metric,
    options,
    peak_bytes,
    server,
    started,
)
from tests.rpc.untaking import Untaking
from zkside.pb import node_pb2, watch_pb2

__all__ = ["chroot", "hosts", "megabytes", "server"]

LASTS_S = 30.0
EXPECTED = {"TOO_LARGE", "QUOTA"}


@pytest.mark.faults
async def test_large_reads_large_writes_and_who_takes_nothing_leave_a_neighbour_in_peace(
    tmp_path: Path, hosts: str, stock_client: KazooClient, megabytes: list[str]
) -> None:
    """V4: cases 9 and 10 for a while, beside watches of large trees that nobody reads."""
    stock_client.create("/small", b"x")
    stock_client.create("/written", b"")
    requests = [
        node_pb2.GetManyRequest(paths=some, options=options(consistency))
        for consistency in (SERVER, CACHED)
        for some in (megabytes, megabytes[:12], megabytes[:1] * 2_000)
    ]
    target = watch_pb2.WatchTarget(path="/tree", scope=watch_pb2.SCOPE_SUBTREE, with_data=True)
    ends_s = time.monotonic() + LASTS_S
    reasons: set[str] = set()

    async def read(stubs: Stubs, number: int) -> None:
        while time.monotonic() < ends_s:
            try:
                if number % 10 == 0:
                    await stubs.node.Set(node_pb2.SetRequest(path="/written", data=MEGABYTE[:100_000]))
                else:
                    await stubs.node.GetMany(requests[number % len(requests)])
            except grpc.aio.AioRpcError as error:
                reasons.add(fault(error).reason)
                await asyncio.sleep(0.01)

    with started(tmp_path, hosts) as daemon:
        async with (
            connected(daemon) as large,
            Stubs(daemon.address) as small,
            Untaking(daemon.address.removeprefix("unix:")) as untaking,
            Neighbour(small) as neighbour,
        ):
            for _ in range(20):
                untaking.ask("/zkside.v1.WatchService/Watch", watch_pb2.WatchRequest(targets=[target]))
            await asyncio.gather(*(read(large, number) for number in range(40)))
            neighbour.assert_undisturbed(within_s=2.0)
        assert reasons <= EXPECTED
        assert metric(daemon, 'zkside_bytes_calls_waited_total{direction="held"}') > 0
        assert peak_bytes(daemon.pid) < MOST_RESIDENT_BYTES

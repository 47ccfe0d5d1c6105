"""What gRPC's core keeps of calls whose clients have gone."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys

import pytest

from tests.rpc.host import Host

SECONDS, RATE = 4.0, 36_000
BYTES_A_CALL = 30
"""What the allocator's own noise may come to; it were 98 and more."""


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "free", "keepcost")
    )
    used: int


def used_bytes() -> int:
    """What is allocated in C, and was not freed."""
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    found: _Mallinfo2 = mallinfo2()
    return found.used


async def flood(host: Host, method: str) -> int:
    """How many calls were looked at before they had gone."""
    arrivals = host.rpc.interceptors.arrivals
    before = arrivals.reset + arrivals.unknown
    command = (sys.executable, "-m", "tests.rpc.flooding", host.address, str(SECONDS), str(RATE), method)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    await asyncio.sleep(1.0)
    return arrivals.reset + arrivals.unknown - before


@pytest.mark.slow
@pytest.mark.parametrize("method", ["NodeService/Get", "WatchService/Watch", "NodeService/Absent"])
async def test_a_call_that_was_reset_leaves_nothing_in_the_core(host: Host, method: str) -> None:
    """O1: gRPC did not free what a call waited for when its client went: 10 MB a minute under a rapid reset."""
    await flood(host, f"/zkside.v1.{method}")  # what is made once, and kept for the next
    before = used_bytes()
    calls = await flood(host, f"/zkside.v1.{method}")
    assert calls > 1000
    assert (used_bytes() - before) / calls < BYTES_A_CALL

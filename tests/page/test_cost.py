"""What the page costs a large daemon: 5,000 holds, 100,000 watches, and people who look at it all the time."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Browser, expect

from tests.ops.process import DaemonProcess
from tests.page.onlooker import Onlooker
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client import Client, Consistency
from zkside.pb import hold_pb2, lock_pb2
from zkside.pb.lock_pb2_grpc import LockServiceStub

HOLDS, WATCHES, VIEWERS, LOOKS_S = 5_000, 100_000, 5, 10.0

SLICE_S = 0.010
"""At most, in processor time: a turn of the survey is a millisecond, and what is copied before it begins."""


async def hold(client: Client, number: int, until: asyncio.Event, held: asyncio.Semaphore) -> None:
    """A stream for each, over as many connections as the daemon wants for that."""
    request = lock_pb2.AcquireRequest(path=f"/locks/{number}", owner=f"process-{number}")
    stream: Any = client._link.stream(lambda channel: LockServiceStub(channel).Acquire(request))
    async for update in stream:
        if update.state == hold_pb2.HOLD_STATE_HELD:
            held.release()
            break
    await until.wait()
    stream.cancel()


async def live(daemon: DaemonProcess) -> Any:
    return json.loads((await asyncio.to_thread(daemon.get, "/page/live.json"))[1])


class Looks(NamedTuple):
    """What somebody saw who looked again and again."""

    number: int
    size_bytes: int
    last: Any
    slices_s: list[float]
    """The longest of each survey."""
    late: list[int]
    """How often the loop was so late meanwhile, by bucket."""


async def look_on(daemon: DaemonProcess, *, every_s: float) -> Looks:
    first, slices_s, count, until_s = await live(daemon), [], 1, time.monotonic() + LOOKS_S
    while time.monotonic() < until_s:
        await asyncio.sleep(every_s)
        text = (await asyncio.to_thread(daemon.get, "/page/live.json"))[1]
        last, count = json.loads(text), count + 1
        slices_s.append(last["lists"]["slice_max_s"])
    late = [now - then for now, then in zip(last["loop"]["counts"], first["loop"]["counts"], strict=True)]
    return Looks(count, len(text), last, slices_s, late)


@pytest.mark.timeout(400)
async def test_a_large_daemon_shows_what_needs_a_look_without_being_late(
    browser: Browser, tmp_path: Path, own_zookeeper: ZooKeeperServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """O4."""
    until = asyncio.Event()
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=own_zookeeper.hosts, HUB_IDLE_EVICTION="10m") as daemon:
        async with Client(daemon.address, timeout_s=60) as client:
            await client.get("/", wait_for_ready=True)
            await client.create("/locks")
            held = asyncio.Semaphore(0)
            loop = asyncio.get_running_loop()
            holding = [loop.create_task(hold(client, number, until, held)) for number in range(HOLDS)]
            for _ in range(HOLDS):
                await held.acquire()
            for first in range(0, WATCHES, 500):
                paths = [f"/watched/{number}" for number in range(first, first + 500)]
                await client.get_many(paths, consistency=Consistency.CACHED)
            quiet = await look_on(daemon, every_s=5.0)
            assert quiet.last["counts"]["server_watches"] >= WATCHES - 10
            looks = await asyncio.gather(*(look_on(daemon, every_s=0.2) for _ in range(VIEWERS)))
            lists, size_bytes = looks[0].last["lists"], looks[0].size_bytes
            slice_s = statistics.median(looks[0].slices_s)
            with capsys.disabled():
                print(
                    f"\n{HOLDS} holds, {WATCHES} watches, {VIEWERS} viewers: "
                    f"{sum(each.number for each in looks)} looks in {LOOKS_S:g} s, {size_bytes / 1000:.0f} kB each; "
                    f"a survey takes {lists['cost_s'] * 1000:.0f} ms of the loop, in slices of "
                    f"{slice_s * 1000:.1f} ms at most. How late the loop was, up to "
                    f"{looks[0].last['loop']['bounds_s']} s: {looks[0].late} times; with one viewer: {quiet.late}"
                )
            assert (lists["owned"], lists["held_paths"], len(lists["held"])) == (HOLDS, HOLDS, 40)
            assert size_bytes < 100_000
            assert slice_s < SLICE_S
            async with Onlooker.at(browser, daemon.http_port) as page:
                await expect(page.page.locator("#holds-sum")).to_have_text("5,000 held · 0 waiting")
                await expect(page.rows("holds")).to_have_count(40)
                await expect(page.section("holds").locator(".more")).to_have_text(
                    "The 40 that most need a look, of 5,000 paths. All of them: zkside admin holds"
                )
                await expect(page.rows("caches")).to_have_count(40)
            until.set()
            await asyncio.gather(*holding, return_exceptions=True)

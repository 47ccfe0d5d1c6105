"""Queues across daemons whose watches cannot be had in the usual way: everybody waits no longer than they must."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from zkside.client import Client
from zkside.client.hold import Held

WITHIN_S = 10.0


async def entered(held: Held) -> Held:
    return await held.__aenter__()


async def test_a_lock_passes_on_and_its_loss_is_told_although_the_caches_are_full(
    tmp_path: Path, hosts: str, stock_client: KazooClient
) -> None:
    """V1, H5, H7"""
    stock_client.create("/t")
    for number in range(1000):
        stock_client.create(f"/t/{number:04}")
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts, HUB_MAX_CACHED_NODES="1001") as daemon:
        async with Client(daemon.address) as client, client.mirror("/t", wait_for_ready=True) as mirror:
            assert len(mirror) == 1001
            first = await entered(client.lock("/l", cancel_on_loss=False))
            waiting = asyncio.ensure_future(entered(client.lock("/l", cancel_on_loss=False)))
            while len(await asyncio.to_thread(stock_client.get_children, "/l")) < 2:
                continue
            await first.__aexit__(None, None, None)
            second = await asyncio.wait_for(waiting, WITHIN_S)
            await asyncio.sleep(0.3)  # a hold that is over sooner is not watched
            await asyncio.to_thread(stock_client.delete, second.path)
            assert await asyncio.wait_for(_reason(second), WITHIN_S) == "NODE_DELETED"
            await second.__aexit__(None, None, None)
            permit = await entered(client.lock("/s", permits=1, cancel_on_loss=False))
            waiting = asyncio.ensure_future(entered(client.lock("/s", permits=1, cancel_on_loss=False)))
            while len(await asyncio.to_thread(stock_client.get_children, "/s/leases")) < 2:
                continue
            await asyncio.wait([waiting], timeout=0.5)  # it ends in QUOTA where its watch needs room
            await permit.__aexit__(None, None, None)
            await (await asyncio.wait_for(waiting, WITHIN_S)).__aexit__(None, None, None)


async def _reason(held: Held) -> str:
    return await held.lost


async def test_a_lock_passes_on_between_identities_that_may_not_read_each_others_nodes(
    tmp_path: Path, hosts: str, stock_client: KazooClient
) -> None:
    """V1: or the one who waits hears NO_AUTH; never nothing."""
    stock_client.ensure_path("/locks/x")
    keys = {"ZOOKEEPER_HOSTS": hosts, "ZOOKEEPER_DEFAULT_ACL": "auth::cdrwa"}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        DaemonProcess(tmp_path / "a", ZOOKEEPER_AUTH="digest:a:a", **keys) as one,
        DaemonProcess(tmp_path / "b", ZOOKEEPER_AUTH="digest:b:b", **keys) as other,
    ):
        async with Client(one.address) as a, Client(other.address) as b:
            holder = await entered(a.lock("/locks/x", wait_for_ready=True))
            waiting = asyncio.ensure_future(entered(b.lock("/locks/x", wait_for_ready=True)))
            while len(await asyncio.to_thread(stock_client.get_children, "/locks/x")) < 2:
                continue
            assert not waiting.done()
            await holder.__aexit__(None, None, None)
            granted = await asyncio.wait_for(waiting, WITHIN_S)
            await granted.__aexit__(None, None, None)

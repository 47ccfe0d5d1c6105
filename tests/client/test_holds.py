"""Ephemerals that a process holds through the SDK, a real daemon and real ZooKeeper."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
from kazoo.client import KazooClient

from tests.client.parts.mortal import MortalDaemon
from tests.ops.process import DaemonProcess
from tests.parts.eventually import until
from zkside.client import Client, HoldState, HoldStatus, Scope, Snapshot
from zkside.errors import DeadlineExceeded, HoldLost, NodeExists, NoNode


async def test_a_held_node_lives_as_long_as_its_block(client: Client, root: str) -> None:
    async with client.hold_ephemeral(f"{root}/a", b"x") as held:
        read = await client.get(f"{root}/a")
        assert read.data == b"x"
        assert read.stat.ephemeral_owner != 0
        assert held.path == f"{root}/a"
        assert held.fencing_token == read.stat.czxid
        assert held.is_held()
        assert held.state is HoldState.HELD
        assert not held.lost.is_set()
    assert not await client.exists(f"{root}/a")
    assert not held.is_held()
    assert not held.lost.is_set(), "it was released, not lost"


async def test_fencing_tokens_grow_with_every_grant(client: Client, root: str) -> None:
    """H2"""
    tokens = []
    for _ in range(3):
        async with client.hold_ephemeral(f"{root}/a") as held:
            tokens.append(held.fencing_token)
    assert tokens == sorted(set(tokens))


async def test_what_stands_in_the_way_is_raised_on_entering(client: Client, root: str) -> None:
    await client.create(f"{root}/a")
    with pytest.raises(NodeExists):
        async with client.hold_ephemeral(f"{root}/a"):
            pass
    with pytest.raises(NoNode):
        async with client.hold_ephemeral(f"{root}/absent/b"):
            pass
    with pytest.raises(HoldLost, match="enter"):
        _ = client.hold_ephemeral(f"{root}/b").path


async def test_a_node_that_somebody_deletes_is_a_lost_hold(
    client: Client, root: str, stock_client: KazooClient
) -> None:
    """H5"""
    async with client.hold_ephemeral(f"{root}/a") as held:
        await asyncio.to_thread(stock_client.delete, "/a")
        async with asyncio.timeout(20):
            assert await held.lost == "NODE_DELETED"
        assert not held.is_held()


async def test_a_hold_survives_a_killed_daemon(mortal: MortalDaemon, mortal_client: Client) -> None:
    """S5"""
    heard: asyncio.Queue[HoldStatus] = asyncio.Queue()
    async with mortal_client.hold_ephemeral("/a", b"x", on_update=heard.put_nowait) as held:
        token, hold_id = held.fencing_token, held.hold_id
        await mortal.kill()
        assert not held.is_held(), "who closed the connection, and released, cannot be known"
        await mortal.start()
        async with asyncio.timeout(20):
            while (status := await heard.get()).reason != "RESUMED":
                pass
        assert (status.fencing_token, status.hold_id) == (token, hold_id)
        assert (await mortal_client.get("/a", wait_for_ready=True)).stat.czxid == token
        answer = await mortal_client.transaction(guard_hold_id=held.hold_id).create("/guarded").commit()
        assert answer.committed
        await until(held.is_held)
        assert not held.lost.is_set()
    assert not await mortal_client.exists("/a")


async def test_without_a_daemon_a_hold_is_lost_with_its_lease(hosts: str, mortal: MortalDaemon) -> None:
    """S3, as a process sees it whose daemon does not come back."""
    async with Client(mortal.address) as client:
        await client.get("/", wait_for_ready=True)
        async with client.hold_ephemeral("/a") as held:
            await mortal.kill()
            async with asyncio.timeout(30):
                assert await held.lost in ("LEASE_OVER", "HOLD_LOST")
            assert not held.is_held()


async def test_a_hold_that_is_to_be_recreated_goes_on_after_a_drain(
    mortal: MortalDaemon, mortal_client: Client
) -> None:
    heard: asyncio.Queue[HoldStatus] = asyncio.Queue()
    async with mortal_client.hold_ephemeral("/a", recreate=True, on_update=heard.put_nowait) as held:
        token = held.fencing_token
        await mortal.stop()
        await mortal.start()
        async with asyncio.timeout(20):
            while (status := await heard.get()).fencing_token <= token:
                pass
        assert status.state is HoldState.HELD
        await until(held.is_held)


async def test_the_node_of_a_killed_process_is_gone_at_once(daemon: DaemonProcess, client: Client, root: str) -> None:
    """H4"""
    code = f"""
import asyncio
from zkside.client import Client
async def main():
    async with Client({daemon.address!r}) as client, client.hold_ephemeral({root + "/a"!r}):
        await asyncio.Event().wait()
asyncio.run(main())
"""
    async with client.watch(f"{root}/a", scope=Scope.NODE) as watch:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        async with asyncio.timeout(20):
            async for event in watch:
                if not isinstance(event, Snapshot):
                    break
            process.send_signal(signal.SIGKILL)
            killed = asyncio.get_running_loop().time()
            await anext(watch)
        assert asyncio.get_running_loop().time() - killed < 1.0
        await process.wait()


async def test_a_sequential_hold_knows_its_number(client: Client, root: str) -> None:
    async with client.hold_ephemeral(f"{root}/member-", sequential=True) as held:
        assert held.path == f"{root}/member-0000000000"


async def test_a_hold_that_is_fed_lives_and_a_starved_one_is_lost(client: Client, root: str) -> None:
    async with client.hold_ephemeral(f"{root}/a", heartbeat_timeout_s=1.0) as held:
        assert 0 < await held.heartbeat() <= 1.0
        async with asyncio.timeout(20):
            assert await held.lost == "HEARTBEAT_MISSED"
        with pytest.raises(HoldLost):
            await held.heartbeat()


async def test_a_hold_that_is_not_granted_in_time_is_given_up(scripted_client: Client) -> None:
    with pytest.raises(DeadlineExceeded, match="given up"):
        async with scripted_client.hold_ephemeral("/a", timeout_s=0.2):
            pass

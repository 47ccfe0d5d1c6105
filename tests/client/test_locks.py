"""Locks, elections and semaphores through the SDK: real daemons, real ZooKeeper, real processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.client.parts.holder import HolderProcess
from tests.client.parts.mortal import MortalDaemon
from tests.client.test_holds_scripted import last_believed_ns
from tests.ops.process import DaemonProcess
from tests.parts.eventually import until
from zkside.client import Client, HoldState, HoldStatus, LockLayout
from zkside.client.clock import now_ns
from zkside.client.pulse import BOUND_NS
from zkside.errors import HoldLost, InvalidArgument, WaitTimeout


@pytest.fixture
async def holders() -> AsyncIterator[list[HolderProcess]]:
    """Those that are left at the end of the test are killed."""
    started: list[HolderProcess] = []
    yield started
    for each in started:
        await each.kill()


async def test_a_lock_has_one_holder(client: Client, root: str) -> None:
    """H1, H2, H7"""
    async with client.lock(f"{root}/lock", owner="first") as held:
        assert held.is_held()
        assert held.state is HoldState.HELD
        queue = await client.contenders(f"{root}/lock")
        assert [(each.path, each.value, each.is_holder) for each in queue] == [(held.path, b"first", True)]
        assert queue[0].fencing_token == held.fencing_token
        assert queue.zxid > 0
        waiting = asyncio.create_task(_token(client, f"{root}/lock"))
        while len(queue := await client.contenders(f"{root}/lock")) < 2:
            pass
        assert [each.is_holder for each in queue] == [True, False]
        assert queue.holders == (queue[0],)
    assert await waiting > held.fencing_token
    assert await client.contenders(f"{root}/lock") is not None
    assert len(await client.contenders(f"{root}/lock")) == 0


async def _token(client: Client, path: str) -> int:
    async with client.lock(path) as held:
        return held.fencing_token


async def test_no_two_processes_are_inside_at_once(
    daemon: DaemonProcess, root: str, tmp_path: Path, holders: list[HolderProcess]
) -> None:
    """H1, H2"""
    starting = (HolderProcess.start(daemon.address, f"{root}/lock", tmp_path / "mark", 25) for _ in range(4))
    holders += await asyncio.gather(*starting)
    said = await asyncio.gather(*(each.lines() for each in holders))
    assert [await each.wait_ended() for each in holders] == [0, 0, 0, 0]
    tokens = [[int(token) for _, token in lines] for lines in said]
    assert all(each == sorted(each) for each in tokens)
    assert len({token for each in tokens for token in each}) == 100


async def test_the_lock_of_a_killed_process_goes_to_the_next_at_once(
    daemon: DaemonProcess, client: Client, root: str, holders: list[HolderProcess]
) -> None:
    """H4"""
    holders.append(holder := await HolderProcess.start(daemon.address, f"{root}/lock"))
    _, _, token = await holder.wait_for("believes")
    heard: asyncio.Queue[HoldStatus] = asyncio.Queue()
    waiting = client.lock(f"{root}/lock", on_update=heard.put_nowait)
    entering = asyncio.create_task(waiting.__aenter__())
    assert (await heard.get()).state is HoldState.WAITING
    holder.signal(signal.SIGKILL)
    killed_s = asyncio.get_running_loop().time()
    await entering
    assert asyncio.get_running_loop().time() - killed_s < 2.0, "the watchdog would take 4 s"
    assert waiting.fencing_token > int(token)
    assert waiting.is_held()
    await waiting.__aexit__(None, None, None)


async def test_a_stopped_process_that_goes_on_does_not_believe_in_what_it_lost(
    daemon: DaemonProcess, client: Client, root: str, holders: list[HolderProcess]
) -> None:
    """H1: the watchdog of the daemon gives its lock to the next while it stands still."""
    holders.append(holder := await HolderProcess.start(daemon.address, f"{root}/lock"))
    await holder.wait_for("believes")
    holder.signal(signal.SIGSTOP)
    stopped_ns = now_ns()
    async with client.lock(f"{root}/lock", wait_timeout_s=20) as held:
        granted_ns = now_ns()
        assert granted_ns - stopped_ns > BOUND_NS
        assert held.is_held()
        holder.signal(signal.SIGCONT)
        await holder.wait_for("lost")
    holder.signal(signal.SIGTERM)
    believed = [line for line in await holder.lines() if line[0] == "believes"]
    assert not believed


async def test_a_process_that_was_stopped_for_a_moment_goes_on_holding(
    daemon: DaemonProcess, root: str, holders: list[HolderProcess]
) -> None:
    """H1: shorter than the watchdog's patience, longer than the process believes by itself."""
    holders.append(holder := await HolderProcess.start(daemon.address, f"{root}/lock"))
    _, _, token = await holder.wait_for("believes")
    holder.signal(signal.SIGSTOP)
    stopped_ns = now_ns()
    await until(lambda: now_ns() - stopped_ns > BOUND_NS)
    holder.signal(signal.SIGCONT)
    assert (await holder.wait_for("doubts"))[2] == token
    assert (await holder.wait_for("believes"))[2] == token


async def test_who_is_held_by_a_stopped_daemon_notices(mortal: MortalDaemon, mortal_client: Client) -> None:
    """H1"""
    async with mortal_client.lock("/lock", cancel_on_loss=False) as held:
        assert held.is_held()
        mortal.send(signal.SIGSTOP)
        stopped_ns = now_ns()
        assert await last_believed_ns(held) - stopped_ns <= BOUND_NS + 50_000_000
        mortal.send(signal.SIGCONT)
        await until(lambda: held.is_held() or held.lost.is_set())


async def test_holds_are_taken_up_by_the_next_daemon(mortal: MortalDaemon, mortal_client: Client) -> None:
    """S5: locks, a leadership and a waiter, through a kill -9."""
    async with AsyncExitStack() as stack:
        locks = [await stack.enter_async_context(mortal_client.lock(f"/locks/{number}")) for number in range(20)]
        leader = await stack.enter_async_context(mortal_client.campaign("/election", value=b"me"))
        waiter = mortal_client.lock("/locks/0", cancel_on_loss=False)
        waiting = asyncio.create_task(waiter.__aenter__())
        while len(await mortal_client.contenders("/locks/0")) < 2:
            pass
        held = [*locks, leader]
        tokens = [each.fencing_token for each in held]
        await mortal.kill()
        await until(lambda: not any(each.is_held() for each in held))
        await mortal.start()
        await until(lambda: all(each.is_held() for each in held), within_s=20)
        assert [each.fencing_token for each in held] == tokens
        assert not any(each.lost.is_set() for each in held)
        while len(await mortal_client.contenders("/locks/0")) < 2:
            pass
        assert not waiting.done()
    async with asyncio.timeout(20):
        await waiting
    assert waiter.is_held()
    await waiter.__aexit__(None, None, None)


async def test_a_daemon_that_stops_asks_for_its_locks_back(mortal: MortalDaemon, mortal_client: Client) -> None:
    """O3, H1, H5: it is told before the node goes; who waits queues again with the next daemon."""
    reasons: list[str] = []

    async def work(entered: asyncio.Event) -> None:
        try:
            async with mortal_client.lock("/lock"):
                entered.set()
                await asyncio.Event().wait()
        except HoldLost as lost:
            reasons.append(lost.metadata["reason"])

    entered = asyncio.Event()
    working = asyncio.create_task(work(entered))
    await entered.wait()
    waiter = mortal_client.lock("/lock", cancel_on_loss=False)
    waiting = asyncio.create_task(waiter.__aenter__())
    while len(await mortal_client.contenders("/lock")) < 2:
        pass
    begun_s = asyncio.get_running_loop().time()
    assert await mortal.stop() == 0
    assert asyncio.get_running_loop().time() - begun_s < 2.0, "it need not wait for whom it asked"
    async with asyncio.timeout(20):
        await working
        assert reasons == ["DRAINED"]
        await mortal.start()
        await waiting
    assert waiter.is_held()
    await waiter.__aexit__(None, None, None)


async def test_who_waits_too_long_is_told_and_leaves_nothing(client: Client, root: str) -> None:
    """H6"""
    async with client.lock(f"{root}/lock"):
        with pytest.raises(WaitTimeout):
            async with client.lock(f"{root}/lock", wait_timeout_s=0.3):
                pass
        with pytest.raises(WaitTimeout):
            async with client.lock(f"{root}/lock", wait_timeout_s=0):
                pass
        assert len((await client.children(f"{root}/lock")).names) == 1
    async with client.lock(f"{root}/lock", wait_timeout_s=0) as held:
        assert held.is_held()


async def test_who_is_cancelled_while_waiting_leaves_nothing(client: Client, root: str) -> None:
    """H6"""
    async with client.lock(f"{root}/lock"):
        waiting = asyncio.create_task(_token(client, f"{root}/lock"))
        while len(await client.contenders(f"{root}/lock")) < 2:
            pass
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(10):
            while len((await client.children(f"{root}/lock")).names) > 1:
                pass


async def test_the_body_ends_when_the_lock_is_lost(client: Client, root: str, stock_client: KazooClient) -> None:
    """H5"""

    async def work() -> None:
        async with client.lock(f"{root}/lock") as held:
            await asyncio.to_thread(stock_client.delete, held.path.removeprefix(root))
            await asyncio.Event().wait()

    with pytest.raises(HoldLost, match="NODE_DELETED"):
        async with asyncio.timeout(20):
            await work()


async def test_readers_share_and_writers_do_not(client: Client, root: str) -> None:
    """H1"""
    async with client.lock(f"{root}/lock", shared=True) as one, client.lock(f"{root}/lock", shared=True) as two:
        assert one.is_held()
        assert two.is_held()
        assert all(each.is_shared for each in await client.contenders(f"{root}/lock"))
        with pytest.raises(WaitTimeout):
            async with client.lock(f"{root}/lock", wait_timeout_s=0):
                pass


async def test_a_semaphore_has_its_permits(client: Client, root: str) -> None:
    """H1"""
    path = f"{root}/permits"
    async with client.lock(path, permits=2), client.lock(path, permits=2):
        assert len((await client.contenders(path, semaphore=True)).holders) == 2
        with pytest.raises(WaitTimeout):
            async with client.lock(path, permits=2, wait_timeout_s=0.2):
                pass
    with pytest.raises(InvalidArgument):
        client.lock(path, permits=2, shared=True)


async def test_a_revocable_lock_hears_of_it(client: Client, root: str, stock_client: KazooClient) -> None:
    """H8: as Curator's Revoker asks."""
    async with client.lock(f"{root}/lock", revocable=True, layout=LockLayout.CURATOR) as held:
        await asyncio.to_thread(stock_client.set, held.path.removeprefix(root), b"__REVOKE__")
        async with asyncio.timeout(10):
            await held.revoke_requested.wait()
        assert held.is_held()


async def test_a_guarded_transaction_needs_the_lock(client: Client, root: str) -> None:
    """H3"""
    async with client.lock(f"{root}/lock") as held:
        assert (await client.transaction(guard_hold_id=held.hold_id).create(f"{root}/a").commit()).committed
    with pytest.raises(HoldLost):
        await client.transaction(guard_hold_id=held.hold_id).create(f"{root}/b").commit()


async def test_a_fed_lock_lives_and_a_starved_one_is_lost(client: Client, root: str) -> None:
    """H4: a process that hangs."""

    async def work() -> None:
        async with client.lock(f"{root}/lock", heartbeat_timeout_s=1.0) as held, asyncio.timeout(20):
            begun_s = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() - begun_s < 1.5:
                assert 0 < await held.heartbeat() <= 1.0
                assert held.is_held()
                await asyncio.sleep(0.2)
            await asyncio.Event().wait()

    with pytest.raises(HoldLost, match="HEARTBEAT_MISSED"):
        await work()


async def test_an_election_has_a_leader_and_observers(client: Client, root: str) -> None:
    """H2, H5"""
    path = f"{root}/election"
    assert await client.leader(path) is None
    async with client.observe(path) as observed:
        async with asyncio.timeout(20):
            assert (await anext(observed)).leader is None
            async with client.campaign(path, candidate_id="one", value=b"first") as leading:
                change = await anext(observed)
                assert change.leader is not None
                assert (change.leader.value, change.leader.fencing_token) == (b"first", leading.fencing_token)
                leader = await client.leader(path)
                assert leader is not None
                assert (leader.value, leader.path) == (b"first", leading.path)
                assert leader.candidates == (leader.contender,)
                await leading.proclaim(b"second")
                change = await anext(observed)
                assert change.leader is not None
                assert change.leader.value == b"second"
            assert (await anext(observed)).leader is None
    with pytest.raises(HoldLost):
        await leading.proclaim(b"third")

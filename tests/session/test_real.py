"""The session on real ZooKeeper, behind networks that break and in processes that are killed and stopped."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.parts.ensemble import Ensemble
from tests.parts.proxy import Proxy
from tests.session.child import SETTINGS, TIMEOUT_S, now_ns
from tests.session.conftest import running
from tests.session.parts import WITHIN_S, Heard
from tests.zk.scripted import THROTTLED, refusing
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.core.lease import PROOFS, Proof
from zkside.errors import NoNode, SessionSuspended
from zkside.model.operation import Create, CreateMode, Delete, Exists
from zkside.model.session import SessionState
from zkside.zk.journal import Journal
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.port import Connector
from zkside.zk.session import Session, SessionSettings

CONNECTING, CONNECTED, READ_ONLY, SUSPENDED, LOST, AUTH_FAILED, CLOSED = SessionState

SCHEDULING_NS = 400_000_000
"""What a busy test machine may add to an instant."""


def connector(hosts: str, timeout_s: float = TIMEOUT_S) -> Connector:
    return kazoo_connector(KazooSettings(hosts=hosts, session_timeout_s=timeout_s))


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.session.child", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def line(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        said: dict[str, object] = json.loads(await asyncio.to_thread(process.stdout.readline))
    return said


async def exists(session: Session, path: str) -> bool:
    return (await session.call(Exists(path))).value is not None


async def gone(client: KazooClient, path: str) -> None:
    """Return when another client sees that the node is not there."""
    away = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look(event: object = None) -> None:
        if client.exists(path, watch=lambda event: client.handler.spawn(look)) is None:
            loop.call_soon_threadsafe(away.set)

    await asyncio.to_thread(look)
    async with asyncio.timeout(WITHIN_S):
        await away.wait()


@pytest.fixture
async def proxied(proxy_hosts: str) -> AsyncIterator[tuple[Session, Heard]]:
    """A session through the bad network, connected, with a hold's need for proofs."""
    async with running(connector(proxy_hosts), SETTINGS) as (session, heard):
        session.need_proofs()
        await session.wait_connected()
        yield session, heard


async def test_lost_is_declared_before_the_server_gives_the_node_away(
    proxy: Proxy, proxy_hosts: str, stock_client: KazooClient
) -> None:
    """S3, H1: a black hole, ZooKeeper cannot be reached and nothing says so."""
    settings = SessionSettings(timeout_s=4.0, tick_s=0.2, margin_s=0.8)
    async with running(connector(proxy_hosts, 4.0), settings) as (session, heard):
        session.need_proofs()
        await session.wait_connected()
        await session.call(Create("/e", mode=CreateMode.EPHEMERAL))
        proxy.half_open()
        await heard.wait_for(LOST)
        assert await asyncio.to_thread(stock_client.exists, "/e") is not None
        assert session.lease_boottime_ns == 0
        assert heard.states[:3] == [CONNECTED, SUSPENDED, LOST]
        await gone(stock_client, "/e")


async def test_the_lease_that_was_promised_is_when_lost_is_declared(
    proxied: tuple[Session, Heard], proxy: Proxy
) -> None:
    """S3."""
    session, heard = proxied
    await session.call(Create("/proof"))
    proxy.half_open()
    # Answers that had left before the network broke still count; SUSPENDED says that no more will come.
    suspended = await heard.wait_for(SUSPENDED)
    promised_ns = session.lease_boottime_ns
    assert promised_ns > heard.heard_at_ns(suspended)
    lost = await heard.wait_for(LOST)
    assert promised_ns <= heard.heard_at_ns(lost) <= promised_ns + SCHEDULING_NS


async def test_a_half_open_link_under_steady_traffic_is_suspended_within_two_thirds_of_the_timeout(
    proxied: tuple[Session, Heard], proxy: Proxy
) -> None:
    """S3: stock kazoo never notices, since every request that it sends puts its ping off."""
    session, heard = proxied

    asked = 0

    async def traffic() -> None:
        nonlocal asked
        while session.status.state is CONNECTED:
            session.call(Exists("/")).add_done_callback(lambda done: done.cancelled() or done.exception())
            asked += 1
            await asyncio.sleep(0.01)

    busy = asyncio.create_task(traffic())
    await session.call(Create("/proof"))
    asked, broken_ns = 0, now_ns()
    proxy.half_open()
    suspended = await heard.wait_for(SUSPENDED)
    assert heard.heard_at_ns(suspended) - broken_ns <= TIMEOUT_S * 2 / 3 * 1e9 + SCHEDULING_NS
    assert asked > 20, "there was traffic all the time"
    await busy


async def test_after_lost_nothing_of_the_old_session_comes_back(
    proxied: tuple[Session, Heard], proxy: Proxy, stock_client: KazooClient
) -> None:
    """S2, S4: although everything that was held back in the network arrives in the end."""
    session, heard = proxied
    await session.call(Create("/e", mode=CreateMode.EPHEMERAL))
    first = session.status
    proxy.half_open()
    await heard.wait_for(LOST)
    proxy.heal()
    again = await heard.wait_for(CONNECTED, epoch=2)
    assert again.session_id != first.session_id
    await gone(stock_client, "/e")
    assert heard.states == [CONNECTED, SUSPENDED, LOST, CONNECTING, CONNECTED]
    assert [status.sequence for status in heard.statuses] == [1, 2, 3, 4, 5]
    assert [status.epoch for status in heard.statuses] == [1, 1, 1, 1, 2]
    assert session.status.session_id == again.session_id


async def test_a_request_is_refused_at_once_while_suspended_and_never_sent(
    proxied: tuple[Session, Heard], proxy: Proxy
) -> None:
    """S6."""
    session, heard = proxied
    proxy.refuse()
    proxy.cut()
    await heard.wait_for(SUSPENDED)
    call = session.call(Create("/late"))
    assert call.done()
    with pytest.raises(SessionSuspended):
        await call
    proxy.accept()
    await heard.wait_for(CONNECTED, after=2)
    assert not await exists(session, "/late")


async def test_a_session_that_zookeeper_ended_is_lost(hosts: str, stock_client: KazooClient) -> None:
    """S4: ended under our feet, by somebody with our session's password, while the connection is up."""
    async with running(connector(hosts), SETTINGS) as (session, heard):
        await session.wait_connected()
        ticket = session._epoch.ticket
        assert ticket is not None

        def end_it() -> None:
            thief = KazooClient(hosts, client_id=(ticket.session_id, ticket.password))
            thief.start(timeout=10)
            thief.stop()
            thief.close()

        await asyncio.to_thread(end_it)
        lost = await heard.wait_for(LOST)
        assert (lost.epoch, lost.session_id) == (1, ticket.session_id)
        await heard.wait_for(CONNECTED, epoch=2)


async def test_every_write_is_a_proof_that_went_through_the_quorum_even_a_refused_one(hosts: str) -> None:
    """S3: each one, and the transaction that is sent as a proof, is a transaction of its own on the server."""
    async with running(connector(hosts), SETTINGS) as (session, _):
        await session.wait_connected()
        zxid = (await session.call(Create("/a"))).zxid
        for _ in range(3):
            reply = await session.call(PROOFS[Proof.WRITE])
            assert reply.zxid > zxid
            zxid = reply.zxid
        with pytest.raises(NoNode):
            await session.call(Delete("/absent"))
        assert (await session.call(PROOFS[Proof.SYNC])).zxid > zxid
        assert not (await session.call(Exists("/"))).value.version  # type: ignore[union-attr]


async def test_each_kind_of_proof_keeps_a_lease_going(hosts: str) -> None:
    """S3."""
    for proof in Proof:
        settings = SessionSettings(timeout_s=TIMEOUT_S, proof=proof, proof_interval_s=0.1, tick_s=0.2)
        async with running(connector(hosts), settings) as (session, heard):
            session.need_proofs()
            await session.wait_connected()
            await asyncio.sleep(1.0)  # proofs come by themselves, and a second takes ten of them
            assert 5 <= session.statistics().proofs_sent <= 12
            assert session.lease_boottime_ns > now_ns() + (TIMEOUT_S - 1.0) * 1e9
            assert heard.states == [CONNECTED]


async def test_a_killed_process_leaves_its_session_to_the_next(
    hosts: str, tmp_path: Path, stock_client: KazooClient
) -> None:
    """S5: kill -9, then another start with the same state directory inside the session timeout."""
    with child("own", hosts, str(tmp_path)) as process:
        session_id = (await line(process))["ready"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    owners = {path: (await asyncio.to_thread(stock_client.get, path))[1].czxid for path in ("/hold", "/own")}
    async with running(connector(hosts), SETTINGS, Journal.open(tmp_path)) as (session, heard):
        await session.wait_connected()
        assert heard.states == [CONNECTED]
        assert (session.status.session_id, session.epoch) == (session_id, 1)
        assert [row.hold_id for row in session.journal.holds()] == ["h1"]
        await gone(stock_client, "/orphan")
        for path, czxid in owners.items():
            assert (await asyncio.to_thread(stock_client.get, path))[1].czxid == czxid
        release = session.need_proofs()
        await asyncio.sleep(TIMEOUT_S * 1.5)  # longer than the session would have lived by itself
        assert session.status.session_id == session_id
        release()


async def test_a_killed_process_that_comes_back_too_late_begins_the_next_epoch(
    hosts: str, tmp_path: Path, stock_client: KazooClient
) -> None:
    """S4, S5."""
    with child("own", hosts, str(tmp_path)) as process:
        session_id = (await line(process))["ready"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    await gone(stock_client, "/hold")
    async with running(connector(hosts), SETTINGS, Journal.open(tmp_path)) as (session, heard):
        await session.wait_connected()
        assert heard.states == [LOST, CONNECTING, CONNECTED]
        assert heard.statuses[0].session_id == session_id
        assert session.epoch == 2
        assert session.journal.holds() == ()


async def test_a_stopped_process_believes_nothing_when_it_goes_on(hosts: str, stock_client: KazooClient) -> None:
    """S3: SIGSTOP for longer than the session lives. Whatever it says at an instant, the lease was not over
    then; and its first words after the stop are that the session is lost."""
    with child("look", hosts) as process:
        for _ in range(100):
            before = await line(process)
        assert (before["state"], before["epoch"]) == ("CONNECTED", 1)
        assert int(before["lease_ns"]) > int(before["at_ns"])  # type: ignore[call-overload]
        process.send_signal(signal.SIGSTOP)
        stopped_ns = now_ns()
        await asyncio.sleep(TIMEOUT_S + 1.0)  # the length of the stop is what is tested
        process.send_signal(signal.SIGCONT)
        said = [await line(process) for _ in range(600)]
    for words in said:
        at_ns, lease_ns = int(words["at_ns"]), int(words["lease_ns"])  # type: ignore[call-overload]
        assert lease_ns == 0 or lease_ns > at_ns
        if at_ns > stopped_ns + TIMEOUT_S * 1e9:
            assert words["epoch"] == 2 or words["state"] in ("LOST", "CONNECTING")
    assert (said[-1]["state"], said[-1]["epoch"]) == ("CONNECTED", 2)


@pytest.mark.faults
async def test_a_rolling_restart_of_the_ensemble_keeps_the_session(ensemble: Ensemble) -> None:
    """S7: every server in turn, the leader too."""
    settings = SessionSettings(timeout_s=20.0, tick_s=0.5)
    async with running(connector(ensemble.hosts, 20.0), settings) as (session, heard):
        await session.wait_connected()
        await session.call(Create("/e", mode=CreateMode.EPHEMERAL))
        first_id = session.status.session_id
        for server in ensemble.servers:
            await asyncio.to_thread(server.restart)
        async with asyncio.timeout(WITHIN_S):
            await session.wait_connected()
        assert session.status.session_id == first_id
        assert session.epoch == 1
        assert await exists(session, "/e")
        assert SUSPENDED in heard.states
        assert session.statistics().rebuilds == 0


@pytest.mark.faults
async def test_a_follower_that_is_cut_off_answers_reads_and_prolongs_no_lease(ensemble: Ensemble) -> None:
    """S3: reads go on being answered, the lease does not move, and LOST comes with it."""
    timeout_s = 5.0
    follower = ensemble.followers[0]
    settings = SessionSettings(timeout_s=timeout_s, tick_s=0.5, proof_interval_s=0.25)
    async with running(connector(follower.hosts, timeout_s), settings) as (session, heard):
        session.need_proofs()
        await session.wait_connected()
        await asyncio.sleep(1.5)  # several proofs and several pings of the leader
        others = [server for server in ensemble.servers if server is not follower]
        for server in others:
            server.pause()
        paused_ns = now_ns()
        try:
            answered_after_ns = 0
            while LOST not in heard.states:
                call = session.call(Exists("/"))
                await asyncio.wait([call], timeout=0.1)
                if call.done() and call.exception() is None:
                    answered_after_ns = now_ns() - paused_ns
                if session.lease_boottime_ns:
                    assert session.lease_boottime_ns <= paused_ns + timeout_s * 1e9
            lost = await heard.wait_for(LOST)
            assert heard.heard_at_ns(lost) <= paused_ns + timeout_s * 1e9
        finally:
            for server in others:
                server.resume()
        assert answered_after_ns > 0
        async with asyncio.timeout(WITHIN_S):
            await session.wait_connected()
        assert session.epoch == 2


async def test_orphans_that_zookeeper_is_too_busy_to_list_are_asked_for_again(
    zookeeper: ZooKeeperServer, hosts: str, chroot: str, tmp_path: Path, stock_client: KazooClient
) -> None:
    """V1, H6: an orphan blocks the queue that it stands in for as long as the session lives."""
    get_ephemerals = 103
    left = {get_ephemerals: 2}
    async with refusing(zookeeper.port, left, THROTTLED) as through:
        first = Session(connector(through + chroot), journal=Journal.open(tmp_path, hosts), settings=SETTINGS)
        first.start()
        await first.wait_connected()
        await first.call(Create("/orphan", mode=CreateMode.EPHEMERAL))
        await first.close(keep_session=True, within_s=1.0)
        second = Session(connector(through + chroot), journal=Journal.open(tmp_path, hosts), settings=SETTINGS)
        second.start()
        await second.wait_connected()
        await gone(stock_client, "/orphan")
        assert (second.epoch, left) == (1, {get_ephemerals: 0})
        await second.close(keep_session=False, within_s=1.0)

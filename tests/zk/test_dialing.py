"""Which server is tried when: names that hang or fail, addresses that are dead, servers that say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.world import WITHIN_S
from tests.parts.proxy import Proxy
from tests.zk.conftest import Connect
from tests.zk.scripted import Client, scripted_server
from zkside.cli.zookeeper import ZooKeeperServer, free_port
from zkside.core.lease import Proof
from zkside.model.operation import Create, CreateMode
from zkside.model.session import SessionState, SessionStatus
from zkside.zk import dialing
from zkside.zk.dialing import Dialer
from zkside.zk.hosts import Hosts
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.names import Names
from zkside.zk.session import Session, SessionSettings


@contextlib.contextmanager
def dead(ip: str, port: int) -> Iterator[None]:
    """Nobody answers there: the queue of a listener that accepts nothing is full, so that SYNs are dropped."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind((ip, port))
        listener.listen(0)
        for _ in range(3):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((ip, port))
        yield


@pytest.fixture
def hang() -> Iterator[Callable[[], None]]:
    """Blocks its caller until the end of the test, as a resolver without a server does for long."""
    end = threading.Event()

    def hang() -> None:
        end.wait(60)

    yield hang
    end.set()


@pytest.fixture
def lookup(proxy: Proxy, hang: Callable[[], None]) -> Iterator[Callable[[str, int], list[str]]]:
    """One name hangs, another leads to two dead addresses and then to the proxy."""

    def lookup(name: str, port: int) -> list[str]:
        if name == "hangs":
            hang()
            raise OSError("timed out")
        return ["127.0.0.2", "127.0.0.3", "127.0.0.1"]

    with dead("127.0.0.2", proxy.port), dead("127.0.0.3", proxy.port):
        yield lookup


async def test_a_name_that_hangs_and_dead_addresses_cost_a_moment(
    connect: Connect, proxy: Proxy, lookup: Callable[[str, int], list[str]]
) -> None:
    """O5, S7: at the first connection, when nothing is known yet."""
    for _ in range(5):
        began_s = time.monotonic()
        peer = await connect(f"hangs:{proxy.port},many:{proxy.port}", lookup=lookup, session_timeout_s=4.0)
        assert time.monotonic() - began_s < 1.5
        assert peer.all("connected")[0].server == f"many:{proxy.port}"


async def test_a_session_of_four_seconds_survives_ten_cuts(
    proxy: Proxy, chroot: str, lookup: Callable[[str, int], list[str]]
) -> None:
    """O5, S7: and is back in a moment each time; the names are looked up again each time."""
    settings = KazooSettings(f"hangs:{proxy.port},many:{proxy.port}{chroot}", lookup=lookup, session_timeout_s=4.0)
    session = Session(
        kazoo_connector(settings), SessionSettings(timeout_s=4.0, tick_s=0.2, proof=Proof.WRITE, proof_interval_s=0.1)
    )
    passed: list[SessionState] = []
    changed = asyncio.Event()

    def heard(status: SessionStatus) -> None:
        passed.append(status.state)
        changed.set()

    session.listen(status=heard)
    session.start()
    try:
        async with asyncio.timeout(WITHIN_S):
            await session.wait_connected()
        release = session.need_proofs()
        await session.call(Create("/held", mode=CreateMode.EPHEMERAL))
        for number in range(10):
            proxy.cut()
            async with asyncio.timeout(2.0):
                while passed.count(SessionState.CONNECTED) < number + 2:
                    changed.clear()
                    await changed.wait()
            await session.call(Create(f"/{number}"))
        release()
        assert SessionState.LOST not in passed
        assert session.epoch == 1
    finally:
        await session.close(keep_session=False, within_s=2.0)


async def test_the_server_that_worked_last_is_tried_first(
    connect: Connect, proxy: Proxy, zookeeper: ZooKeeperServer
) -> None:
    """O5: it mostly works again."""
    with Proxy(zookeeper.port) as other:
        peer = await connect(f"{proxy.hosts},{other.hosts}")
        for number in range(8):
            proxy.cut()
            other.cut()
            await peer.wait_for("connected", number + 2)
        assert len({connected.server for connected in peer.all("connected")}) == 1


async def test_a_server_that_went_silent_is_tried_last(
    connect: Connect, proxy: Proxy, zookeeper: ZooKeeperServer
) -> None:
    """O5, S7: it still takes connections, and would have what is left of the session."""
    with Proxy(zookeeper.port) as other:
        other.refuse()
        peer = await connect(f"{proxy.hosts},{other.hosts}", session_timeout_s=1.5)
        assert peer.all("connected")[0].server == proxy.hosts
        other.accept()
        proxy.half_open()
        await peer.wait_for("suspended")
        began_s = time.monotonic()
        again = await peer.wait_for("connected", 2)
        assert time.monotonic() - began_s < 0.4
        assert again.server == other.hosts
        assert again.resumed


async def test_only_one_server_is_asked_for_the_session(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """O5, S4: whoever was slower is hung up on before it hears of it."""
    monkeypatch.setattr(dialing, "STAGGER_S", 0.0)
    asked: list[int] = []
    left = asyncio.Event()
    spoken: list[int] = []

    def script(number: int) -> Any:
        async def play(client: Client) -> None:
            asked.append(number)
            try:
                await client.greet()
                spoken.append(number)
                while True:
                    xid, _ = await client.read_request()
                    client.answer(xid)
            finally:
                left.set()

        return play

    async with contextlib.AsyncExitStack() as servers:
        hosts = [await servers.enter_async_context(scripted_server(script(number))) for number in range(6)]
        peer = await connect(",".join(hosts), session_timeout_s=3.0)
        async with asyncio.timeout(WITHIN_S):
            await left.wait()
        assert len(asked) > 1
        assert len(spoken) == 1
        assert not peer.all("suspended")


async def test_what_a_name_led_to_is_used_while_it_cannot_be_looked_up(
    connect: Connect, proxy: Proxy, hang: Callable[[], None]
) -> None:
    """O5: a lookup that fails, and one that hangs."""
    fails, hangs = threading.Event(), threading.Event()

    def lookup(name: str, port: int) -> list[str]:
        if hangs.is_set():
            hang()
        if fails.is_set():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    peer = await connect(f"zk:{proxy.port}", lookup=lookup, session_timeout_s=3.0)
    fails.set()
    proxy.cut()
    await peer.wait_for("connected", 2)
    hangs.set()
    for number in range(3, 6):
        began_s = time.monotonic()
        proxy.cut()
        await peer.wait_for("connected", number)
        assert time.monotonic() - began_s < 1.0
    threads = [thread for thread in threading.enumerate() if thread.name == "dns zk"]
    assert len(threads) == 1, "one for each name, however often it is asked for"
    assert threads[0].daemon, "the process's end does not wait for it"


async def test_a_name_that_does_not_resolve_is_told_once_and_kept_as_the_last_error(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """O5, O1: however often it is tried."""
    caplog.set_level("INFO", logger="zkside")
    looked_up = threading.Semaphore(0)

    def lookup(name: str, port: int) -> list[str]:
        looked_up.release()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    refusing = f"127.0.0.1:{free_port()}"
    peer = await connect(f"nowhere.invalid:2181,{refusing}", connected=False, lookup=lookup)
    for _ in range(4):
        await asyncio.to_thread(looked_up.acquire, timeout=WITHIN_S)
    connecting = peer.connection.statistics().connecting
    unresolved = "nowhere.invalid:2181: does not resolve: Name or service not known"
    assert connecting.last_error == f"{unresolved}; {refusing}: connection refused"
    assert abs(connecting.last_error_unix_s - time.time()) < 5
    assert connecting.stands
    assert connecting.failures["resolve"] >= 3
    assert connecting.failures["refused"] >= 3
    assert caplog.text.count("Name or service not known") == 1
    assert caplog.text.count("connection refused") == 1


async def test_a_name_that_hangs_is_named(hang: Callable[[], None]) -> None:
    """O5."""

    def lookup(name: str, port: int) -> list[str]:
        hang()
        return []

    dialer = Dialer(Hosts.parse("slow.invalid"), names=Names([("slow.invalid", 2181)], lookup))
    began_s = time.monotonic()
    with pytest.raises(dialing.Unreachable, match=r"slow.invalid:2181: no answer from the DNS for 1 s"):
        await dialer.begin().next_socket(lambda: pytest.fail("there is no address"), None, 10.0)
    assert time.monotonic() - began_s < 2.0

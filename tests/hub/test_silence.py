"""Nothing that the hub asks for fails in silence: it is asked again, in smaller parts, or whoever depends on it hears.

All on a real ZooKeeper, whose answers may be as large as MAX_REPLY here, so that a small tree is too large.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_acl, make_digest_acl

from tests.hub.watcher import Watcher, eventually
from tests.parts.proxy import Proxy
from tests.zk.scripted import SYSTEM_ERROR, THROTTLED, refusing
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.errors import NoAuth, Quota, TooLarge, ZksideError
from zkside.hub.hub import Hub, HubSettings
from zkside.model.operation import Create, GetData
from zkside.model.watch import EventTarget, Scope, Target, WatchKind
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings

MAX_REPLY = 64 * 1024
LARGE = b"x" * (20 * 1024)
MANY = 20
MULTI_READ, ADD_WATCH, REMOVE_WATCHES = 22, 106, 18

Open = Callable[..., "asyncio.Future[Hub]"]


@asynccontextmanager
async def opened(
    hosts: str, settings: HubSettings | None = None, auth: tuple[tuple[str, str], ...] = (), **limits: int
) -> AsyncIterator[Hub]:
    """A hub on a session of its own."""
    connector = kazoo_connector(KazooSettings(hosts, session_timeout_s=4.0, auth=auth, **limits))  # type: ignore[arg-type]
    session = Session(connector, SessionSettings(timeout_s=4.0))
    hub = Hub(session, settings)
    session.start()
    hub.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(session.close, keep_session=False, within_s=2.0)
        stack.push_async_callback(hub.close)
        await session.wait_connected()
        yield hub


async def watching(hub: Hub, path: str, scope: Scope = Scope.SUBTREE) -> Watcher:
    return Watcher(await hub.subscribe((Target(path, scope, True),)))


def fill(client: KazooClient, parent: str, data: bytes, count: int = MANY) -> None:
    client.ensure_path(parent)
    for number in range(count):
        client.create(f"{parent}/{number}", data)


async def test_a_burst_of_changes_too_large_for_one_answer_is_read_in_several(
    proxy: Proxy, proxy_hosts: str, stock_client: KazooClient
) -> None:
    """V1, W3: all of it is told, and so is what happens elsewhere."""
    fill(stock_client, "/big", b"")
    stock_client.create("/other", b"1")
    async with opened(proxy_hosts, max_reply_bytes=MAX_REPLY) as hub:
        with await watching(hub, "/big") as big, await watching(hub, "/other") as other:
            await big.until(lambda: len(big.state) == MANY + 1)
            await other.until(lambda: bool(other.state))
            proxy.hold_replies()  # so that the daemon hears of all of it at once
            for number in range(MANY):
                await asyncio.to_thread(stock_client.set, f"/big/{number}", LARGE)
            await asyncio.to_thread(proxy.heal)
            await big.until(lambda: list(big.data().values()).count(LARGE) == MANY, within_s=3)
            await asyncio.to_thread(stock_client.set, "/other", b"2")
            await other.until(lambda: other.data() == {"/other": b"2"}, within_s=3)
        assert sum(hub.session.supervisor.deaths.values()) == 0


async def test_an_outage_that_hides_more_than_one_answer_holds_is_compared_in_several(
    proxy: Proxy, proxy_hosts: str, stock_client: KazooClient
) -> None:
    """V1, W3"""
    fill(stock_client, "/t", b"", 4)
    async with opened(proxy_hosts, max_reply_bytes=MAX_REPLY) as hub:
        with await watching(hub, "/t") as watcher:
            await watcher.until(lambda: len(watcher.state) == 5)
            await asyncio.to_thread(proxy.refuse)
            await asyncio.to_thread(proxy.cut)
            await asyncio.to_thread(fill, stock_client, "/t/0/below", LARGE)
            await asyncio.to_thread(proxy.accept)
            await watcher.until(lambda: len(watcher.state) == 5 + 1 + MANY)
            await eventually(lambda: not watcher.subscription.is_stale(), 5)
        assert sum(hub.session.supervisor.deaths.values()) == 0


@pytest.mark.parametrize("scope", [Scope.CHILDREN, Scope.SUBTREE])
async def test_siblings_too_large_for_one_answer_are_loaded_in_several(
    hosts: str, stock_client: KazooClient, scope: Scope
) -> None:
    """V1: and sent in chunks."""
    fill(stock_client, "/many", LARGE)
    async with opened(hosts, max_reply_bytes=MAX_REPLY) as hub:
        with await watching(hub, "/many", scope) as watcher:
            await watcher.until(lambda: len(watcher.state) == MANY + 1)


async def test_a_node_larger_than_any_answer_makes_stale_and_is_told_once_it_can_be_read(
    hosts: str, stock_client: KazooClient
) -> None:
    """V1: it holds up nobody else, and its subscribers are told that they are stale."""
    fill(stock_client, "/t", b"", 2)
    stock_client.create("/other", b"1")
    async with opened(hosts, max_reply_bytes=MAX_REPLY) as hub:
        with await watching(hub, "/t") as watcher, await watching(hub, "/other") as other:
            await watcher.until(lambda: len(watcher.state) == 3)
            told = len(watcher.statuses)
            await asyncio.to_thread(stock_client.set, "/t/0", b"x" * (2 * MAX_REPLY))
            await watcher.until(lambda: len(watcher.statuses) > told, within_s=3)
            assert watcher.subscription.is_stale()
            assert hub.statistics().unreadable == 1
            await asyncio.to_thread(stock_client.set, "/t/1", b"2")
            await watcher.until(lambda: watcher.data()["/t/1"] == b"2", within_s=3)
            await asyncio.to_thread(stock_client.set, "/other", b"2")
            await other.until(lambda: other.data() == {"/other": b"2"}, within_s=3)
            assert not other.subscription.is_stale()
            await asyncio.to_thread(stock_client.set, "/t/0", b"small")
            await watcher.until(lambda: watcher.data()["/t/0"] == b"small", within_s=3)
            assert not watcher.subscription.is_stale()


async def test_a_root_larger_than_any_answer_is_an_error_of_its_subscriber(
    hosts: str, stock_client: KazooClient
) -> None:
    """V1"""
    stock_client.create("/huge", b"x" * (2 * MAX_REPLY))
    async with opened(hosts, max_reply_bytes=MAX_REPLY) as hub:
        with pytest.raises(TooLarge):
            await hub.subscribe((Target("/huge", Scope.NODE, True),))


async def test_a_list_of_children_larger_than_any_answer_is_an_error_of_its_subscriber(
    hosts: str, stock_client: KazooClient
) -> None:
    """V1"""
    stock_client.create("/long")
    for number in range(8):
        stock_client.create(f"/long/{number}-{'x' * 900}")
    async with opened(hosts, max_reply_bytes=4096) as hub:
        with pytest.raises(TooLarge):
            await hub.subscribe((Target("/long", Scope.CHILDREN, True),))


async def test_what_the_sessions_full_queue_refuses_is_asked_again_without_another_event(
    proxy: Proxy, proxy_hosts: str, stock_client: KazooClient
) -> None:
    """V1"""
    stock_client.create("/a", b"1")
    async with opened(proxy_hosts, max_in_flight=4, max_queued=4) as hub:
        with await watching(hub, "/a") as watcher:
            await watcher.until(lambda: bool(watcher.state))
            proxy.hold_replies()
            waiting = [hub.session.call(GetData("/a")) for _ in range(8)]
            await asyncio.to_thread(stock_client.set, "/a", b"2")
            with pytest.raises(Quota):
                await hub.session.call(GetData("/a"))
            stale = asyncio.ensure_future(hub.subscribe((Target("/b", Scope.NODE, True),)))
            await asyncio.to_thread(proxy.heal)
            await watcher.until(lambda: watcher.data() == {"/a": b"2"}, within_s=3)
            (await asyncio.wait_for(stale, 3)).close()
            await asyncio.gather(*waiting)


@pytest.mark.parametrize("opcode", [MULTI_READ, ADD_WATCH])
async def test_what_zookeeper_throttles_is_asked_again(
    zookeeper: ZooKeeperServer, chroot: str, stock_client: KazooClient, opcode: int
) -> None:
    """V1: for a load, for a change, and for the comparison after an outage."""
    stock_client.create("/a", b"1")
    left = {opcode: 3}
    async with refusing(zookeeper.port, left, THROTTLED) as refused, opened(refused + chroot) as hub:
        with await watching(hub, "/a") as watcher:
            await watcher.until(lambda: bool(watcher.state), within_s=3)
            left[opcode] = 3
            await asyncio.to_thread(stock_client.set, "/a", b"2")
            await watcher.until(lambda: watcher.data() == {"/a": b"2"}, within_s=3)
            left[opcode] = 3
            hub.keeper.doubt()
            assert watcher.subscription.is_stale()
            await watcher.until(lambda: not watcher.subscription.is_stale(), within_s=3)


async def test_what_could_not_be_read_for_a_while_is_told_behind_the_bookmarks_of_that_while(
    zookeeper: ZooKeeperServer, chroot: str, stock_client: KazooClient
) -> None:
    """V1, W1, W5: its own transaction is one that a bookmark has declared told. The stream's zxid never goes back."""
    stock_client.create("/a", b"1")
    left = {MULTI_READ: 0}
    async with refusing(zookeeper.port, left, SYSTEM_ERROR) as refused, opened(refused + chroot) as hub:
        target = Target("/a", Scope.NODE, True)
        with Watcher(await hub.subscribe((target,), bookmark_interval_s=0.05)) as watcher:
            await watcher.until(lambda: bool(watcher.state))
            left[MULTI_READ] = 1000
            changed = (await asyncio.to_thread(stock_client.set, "/a", b"2")).mzxid
            await eventually(lambda: hub.statistics().unreadable == 1, 10)
            await hub.session.call(Create("/later"))
            await watcher.until(lambda: watcher.bookmark > changed)
            point = (hub.epoch_id, watcher.bookmark)
            hub.reader.try_unreadable()
            assert hub.reader.settled_zxid >= watcher.bookmark
            left[MULTI_READ] = 0
            await watcher.until(lambda: watcher.data() == {"/a": b"2"})
        with Watcher(await hub.subscribe((target,), resume=point)) as resumed:
            await resumed.until(lambda: resumed.data() == {"/a": b"2"}, within_s=3)


async def test_a_watch_that_is_not_needed_is_removed_although_zookeeper_throttles(
    zookeeper: ZooKeeperServer, chroot: str
) -> None:
    """W9"""
    left = {REMOVE_WATCHES: 2}
    async with refusing(zookeeper.port, left, THROTTLED) as refused, opened(refused + chroot) as hub:
        target = EventTarget("/a", WatchKind.PERSISTENT, False)
        (await hub.subscribe_events((target,))).close()
        await eventually(lambda: left[REMOVE_WATCHES] == 0, 3)
        await eventually(lambda: f"{chroot}/a" not in zookeeper.four_letter("wchp"), 3)


async def test_a_throttled_request_of_a_client_says_so(zookeeper: ZooKeeperServer, chroot: str) -> None:
    from zkside.errors import Throttled

    async with refusing(zookeeper.port, {4: 1}, THROTTLED) as refused, opened(refused + chroot) as hub:
        with pytest.raises(Throttled):
            await hub.session.call(GetData("/a"))


def fail(error: ZksideError) -> None:
    raise error


async def test_full_caches_keep_nobody_from_hearing_of_the_end_of_a_node(hosts: str, stock_client: KazooClient) -> None:
    """V1, H5, H7: neither a waiter nor a holder needs room in them."""
    fill(stock_client, "/t", b"", 10)
    stock_client.create("/lock")
    async with opened(hosts, HubSettings(max_cached_nodes=11)) as hub:
        with await watching(hub, "/t") as watcher:
            await watcher.until(lambda: len(watcher.state) == 11)
            with pytest.raises(Quota):
                await hub.subscribe((Target("/lock", Scope.NODE, True),))
            stat = stock_client.exists("/lock")
            assert stat is not None
            waiter, holder = asyncio.Event(), asyncio.Event()
            hub.on_deleted("/lock", None, waiter.set, on_failed=fail)
            hub.on_deleted("/lock", stat.czxid, holder.set, on_failed=fail)
            await asyncio.to_thread(stock_client.delete, "/lock")
            async with asyncio.timeout(3):
                await waiter.wait()
                await holder.wait()


@pytest.fixture
def locked_out(hosts: str) -> tuple[tuple[str, str], ...]:
    """Credentials of somebody else."""
    return (("digest", "b:b"),)


async def test_the_end_of_a_node_that_may_not_be_read_shows_in_its_parents_children(
    hosts: str, stock_client: KazooClient, locked_out: tuple[tuple[str, str], ...]
) -> None:
    """V1: where the predecessor in a queue belongs to somebody else's identity."""
    stock_client.create("/locks")
    stock_client.create("/locks/first", acl=[make_digest_acl("a", "a", all=True)])
    async with opened(hosts, auth=locked_out) as hub:
        gone = asyncio.Event()
        hub.on_deleted("/locks/first", None, gone.set, on_failed=fail)
        await eventually(lambda: ("/locks", False) in [(w.path, w.recursive) for w in hub.list_watches()], 3)
        assert not gone.is_set()
        await asyncio.to_thread(stock_client.delete, "/locks/first")
        async with asyncio.timeout(3):
            await gone.wait()
        await eventually(lambda: not hub.list_watches(), 3)


async def test_a_node_that_may_not_be_read_any_more_is_followed_in_its_parents_children(
    hosts: str, stock_client: KazooClient
) -> None:
    """V1"""
    stock_client.ensure_path("/locks/first")
    async with opened(hosts) as hub:
        gone = asyncio.Event()
        hub.on_deleted("/locks/first", None, gone.set, on_failed=fail)
        root = next(iter(hub.roots))
        await hub.keeper.ready(root)
        hub._taps.published("/locks/first", b"")  # as the table has what is there and may not be read
        await eventually(lambda: [watch.path for watch in hub.list_watches()] == ["/locks"], 3)
        await asyncio.to_thread(stock_client.delete, "/locks/first")
        async with asyncio.timeout(3):
            await gone.wait()


async def test_who_waits_for_what_nobody_may_see_hears_no_auth_or_its_end(
    hosts: str, stock_client: KazooClient, locked_out: tuple[tuple[str, str], ...]
) -> None:
    """V1: servers before 3.8.4 and 3.9.2 tell anybody that a node exists, later ones do not."""
    hidden = [make_digest_acl("a", "a", all=True)]
    stock_client.create("/locks", acl=[*hidden, make_acl("world", "anyone", delete=True)])
    stock_client.add_auth("digest", "a:a")
    stock_client.create("/locks/first", acl=hidden)
    async with opened(hosts, auth=locked_out) as hub:
        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def failed(error: ZksideError) -> None:
            assert isinstance(error, NoAuth)
            heard.set_result("failed")

        hub.on_deleted("/locks/first", None, lambda: heard.set_result("gone"), on_failed=failed)
        await asyncio.wait([heard], timeout=0.5)
        if not heard.done():
            await asyncio.to_thread(stock_client.delete, "/locks/first")
        await asyncio.wait_for(heard, 5)

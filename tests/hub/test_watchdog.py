"""What says that it is current is kept so, and what is found not to be is made stale, told and put right (V1)."""

from __future__ import annotations

import asyncio

import pytest
from kazoo.client import KazooClient

from tests.hub.test_silence import opened, watching
from tests.hub.watcher import eventually
from tests.parts.proxy import Proxy
from zkside.errors import ZksideError
from zkside.hub.hub import Hub
from zkside.hub.subscription import SnapshotReason
from zkside.hub.watchdog import LOOK_S, STALLED_LOOKS
from zkside.model.watch import Scope, Target


def findings(hub: Hub) -> list[str]:
    return [finding.what.value for finding in hub.watchdog.check() if finding is not None]


async def test_a_root_whose_watch_is_not_of_this_session_is_found_and_set_right(
    hosts: str, stock_client: KazooClient
) -> None:
    """V1"""
    stock_client.create("/a", b"1")
    async with opened(hosts) as hub:
        with await watching(hub, "/a") as watcher:
            await watcher.until(lambda: bool(watcher.state))
            assert findings(hub) == []
            [watch] = hub.keeper.watches.all()
            watch.epoch = 0  # as if a session had come that nobody told of
            assert findings(hub) == ["root"]
            await watcher.until(lambda: watcher.subscription.is_stale() or watch.epoch == 1)
            await eventually(lambda: not watcher.subscription.is_stale() and watch.epoch == 1, 3)
            assert hub.statistics().doubted["root"] >= 1
            await eventually(lambda: hub.statistics().not_kept == "", 3)


async def test_a_reader_that_does_not_get_on_makes_stale_until_it_does(
    proxy: Proxy, proxy_hosts: str, stock_client: KazooClient
) -> None:
    """V1: the event arrived, the answer to the read does not."""
    stock_client.create("/a", b"1")
    async with opened(proxy_hosts) as hub:
        with await watching(hub, "/a") as watcher:
            await watcher.until(lambda: bool(watcher.state))
            proxy.hold_requests()
            await asyncio.to_thread(stock_client.set, "/a", b"2")
            await eventually(lambda: bool(hub.reader.unsettled), 3)
            # As long looks as it takes would be longer than the session's timeout allows here.
            hub.watchdog._idle_looks = STALLED_LOOKS
            await watcher.until(watcher.subscription.is_stale, within_s=2 * LOOK_S + 1)
            assert hub.watchdog.not_kept
            await asyncio.to_thread(proxy.heal)
            await watcher.until(lambda: watcher.data() == {"/a": b"2"}, within_s=5)
            await eventually(lambda: not watcher.subscription.is_stale(), 5)
            assert hub.watchdog.not_kept == ""


async def test_a_cut_that_was_published_by_half_is_followed_by_a_snapshot(
    hosts: str, stock_client: KazooClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V1, W3: the reader died in the middle of it, and nobody knows who has heard what."""
    for path in ("/a", "/b"):
        stock_client.create(path, b"1")
    async with opened(hosts) as hub:
        with await watching(hub, "/a") as watcher, await watching(hub, "/b") as other:
            await watcher.until(lambda: bool(watcher.state))
            await other.until(lambda: bool(other.state))
            [feed] = hub._feeds["/a", Scope.SUBTREE]

            def fails_once(*_: object) -> None:
                monkeypatch.undo()
                raise RuntimeError("injected")

            monkeypatch.setattr(feed, "append", fails_once)
            await asyncio.to_thread(stock_client.set, "/a", b"2")
            await watcher.until(lambda: watcher.data() == {"/a": b"2"}, within_s=3)
            assert watcher.snapshots[-1].reason is SnapshotReason.OVERFLOW
            await eventually(lambda: not watcher.subscription.is_stale(), 3)
            await asyncio.to_thread(stock_client.set, "/b", b"2")
            await other.until(lambda: other.data() == {"/b": b"2"}, within_s=3)
            assert hub.session.supervisor.deaths["reader"] == 1


async def test_a_load_that_dies_is_begun_again_and_told_if_it_dies_again(
    hosts: str, stock_client: KazooClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V1"""
    stock_client.create("/a", b"1")
    async with opened(hosts) as hub:
        load, deaths = hub.keeper._loader.load, [RuntimeError("first")]

        async def dying(root: object) -> int:
            if deaths:
                raise deaths.pop()
            return await load(root)  # type: ignore[arg-type]

        monkeypatch.setattr(hub.keeper._loader, "load", dying)
        (await hub.subscribe((Target("/a", Scope.NODE, True),))).close()
        deaths += [RuntimeError("second"), RuntimeError("third")]
        with pytest.raises(ZksideError, match="a defect of zkside"):
            await hub.subscribe((Target("/b", Scope.NODE, True),))
        assert hub.session.supervisor.deaths["load"] == 3
        assert hub.session.supervisor.reason == ""


async def test_a_snapshot_whose_maker_was_cancelled_is_made_again(hosts: str, stock_client: KazooClient) -> None:
    """V1"""
    stock_client.create("/a", b"1")
    async with opened(hosts) as hub:
        subscription = await hub.subscribe((Target("/a", Scope.SUBTREE, True),))
        [feed] = hub._feeds["/a", Scope.SUBTREE]
        first = asyncio.ensure_future(subscription.next())
        while feed._imaging is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        feed._imaging.cancel()
        await asyncio.wait_for(first, 3)
        subscription.close()


async def test_nodes_that_went_while_nobody_watched_are_not_in_the_next_snapshot(
    hosts: str, stock_client: KazooClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V1: although the purge of what was cached before has failed."""
    stock_client.ensure_path("/t/gone")

    async def no_purge(*_: object, **__: object) -> None:
        raise RuntimeError("injected")

    async with opened(hosts) as hub:
        monkeypatch.setattr(hub.keeper._loader, "purge", no_purge)
        root = hub.keeper.acquire("/t", Scope.SUBTREE)
        await hub.keeper.ready(root)
        hub.keeper.release(root, linger=False)
        await asyncio.to_thread(stock_client.delete, "/t/gone")
        with await watching(hub, "/t") as watcher:
            await watcher.until(lambda: bool(watcher.state))
            assert set(watcher.state) == {"/t"}


async def test_an_event_that_the_hub_could_not_take_in_is_made_up_for(
    hosts: str, stock_client: KazooClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V1, W3"""
    stock_client.create("/a", b"1")
    async with opened(hosts) as hub:
        with await watching(hub, "/a") as watcher:
            await watcher.until(lambda: bool(watcher.state))

            def fails(*_: object) -> None:
                raise RuntimeError("injected")

            monkeypatch.setattr(hub.keeper, "announce", fails)
            await asyncio.to_thread(stock_client.set, "/a", b"2")
            await watcher.until(lambda: watcher.data() == {"/a": b"2"}, within_s=3)
            monkeypatch.undo()
            await eventually(lambda: not watcher.subscription.is_stale(), 3)
            assert hub.session.statistics().listener_errors == 1

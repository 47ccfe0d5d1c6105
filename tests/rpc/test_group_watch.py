"""Who is in a group, as it is listed and followed, and the guard against sudden losses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Host, Stubs, failure
from tests.rpc.test_group import INVALID, heard, ids, joined, told
from tests.rpc.test_hold import update
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.subscription import SnapshotReason
from zkside.model.watch import Scope, Target
from zkside.pb import admin_pb2, node_pb2
from zkside.pb.group_pb2 import (
    ConfirmShrinkRequest,
    JoinRequest,
    ListGroupRequest,
    ShrinkGuard,
    WatchGroupRequest,
    WatchGroupResponse,
)
from zkside.recipes.group import GroupWatch, Listed

CONFIRMS_LATER = ShrinkGuard(confirm_after=Duration(nanos=400_000_000))


# Following a group


@pytest.mark.parametrize("consistency", node_pb2.Consistency.values())
async def test_a_group_that_is_absent_is_empty(client: Stubs, stock_client: KazooClient, consistency: Any) -> None:
    request = ListGroupRequest(path="/g", options=node_pb2.ReadOptions(consistency=consistency))
    for _ in range(2):
        answer = await client.group.ListGroup(request)
        assert (list(answer.members), answer.header.stale) == ([], False)
    stock_client.create("/g")
    assert not (await client.group.ListGroup(request)).members


async def test_a_transaction_that_is_not_seen_in_time_is_said_to_be_missing(client: Stubs) -> None:
    """R2."""
    request = ListGroupRequest(path="/g", options=node_pb2.ReadOptions(min_zxid=1 << 60))
    assert (await failure(client.group.ListGroup(request, timeout=0.5))).reason == "TOO_STALE"


async def test_a_watcher_hears_who_joins_changes_and_leaves(client: Stubs, stock_client: KazooClient) -> None:
    """W1, W2."""
    watch = client.group.WatchGroup(WatchGroupRequest(path="/g"))
    first = await heard(watch)
    assert (first.WhichOneof("update"), list(first.members.members)) == ("members", [])
    async with joined(client, "/g", "b", b"1") as held:
        second = await heard(watch)
        (member,) = second.changes.joined
        assert (member.member_id, member.data, member.fencing_token) == ("b", b"1", held.hold.fencing_token)
        assert not member.HasField("service")
        async with joined(client, "/g", "a"):
            assert told(await heard(watch)) == (["a"], [], [])
            late = await heard(client.group.WatchGroup(WatchGroupRequest(path="/g")))
            assert ids(late.members.members) == ["a", "b"]
            listed = await client.group.ListGroup(ListGroupRequest(path="/g"))
            assert ids(listed.members) == ["a", "b"]
        assert told(await heard(watch)) == ([], ["a"], [])
        stock_client.set("/g/b", b"2")
        changed = await heard(watch)
        (member,) = changed.changes.changed
        assert (member.member_id, member.data, member.fencing_token) == ("b", b"2", held.hold.fencing_token)
    left = await heard(watch)
    assert [(each.member_id, each.data) for each in left.changes.left] == [("b", b"2")]
    assert first.header.zxid < second.header.zxid < changed.header.zxid < left.header.zxid
    assert len({each.watch_id for each in (first, second, changed, left)}) == 1
    assert late.watch_id != first.watch_id


async def test_a_member_of_a_transaction_is_told_with_the_others(client: Stubs, stock_client: KazooClient) -> None:
    """W6."""
    watch = client.group.WatchGroup(WatchGroupRequest(path="/g"))
    await heard(watch)
    stock_client.create("/g")
    transaction = stock_client.transaction()
    for name in "cab":
        transaction.create(f"/g/{name}", ephemeral=True)
    transaction.commit()
    assert told(await heard(watch)) == (["a", "b", "c"], [], [])


async def test_many_watchers_of_a_group_share_one_watch(client: Stubs, host: Host) -> None:
    """W9."""
    watches = [client.group.WatchGroup(WatchGroupRequest(path="/g")) for _ in range(50)]
    await asyncio.gather(*map(heard, watches))
    assert sum(host.hub.statistics().server_watches.values()) == 1
    stream = client.group.Join(JoinRequest(path="/g", member_id="m"))
    await update(stream)
    assert [told(each) for each in await asyncio.gather(*map(heard, watches))] == [(["m"], [], [])] * 50
    streams = (await client.admin.ListStreams(admin_pb2.ListStreamsRequest())).streams
    assert sum(each.method == "zkside.v1.GroupService/WatchGroup" for each in streams) == 50
    for watch in watches:
        watch.cancel()
    stream.cancel()
    await asyncio.wait_for(host.rpc.streams.wait_ended(infrastructure=False), PATIENCE_S)
    assert host.hub.statistics().subscribers == 0


async def test_a_large_group_comes_in_parts_that_can_be_received(client: Stubs, stock_client: KazooClient) -> None:
    for number in range(7):
        stock_client.create(f"/g/{number}", bytes(900_000), ephemeral=True, makepath=True)
    watch = client.group.WatchGroup(WatchGroupRequest(path="/g"))
    first = response = await heard(watch)
    members = ids(first.members.members)
    while response.more:
        response = await heard(watch)
        members += ids(response.changes.joined)
    assert first.more
    assert members == [str(number) for number in range(7)]


async def test_a_group_goes_on_stale_while_zookeeper_cannot_be_reached(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """R3, W3."""
    stock_client.create("/g/one", ephemeral=True, makepath=True)
    watch = shaky_client.group.WatchGroup(WatchGroupRequest(path="/g"))
    assert not (await heard(watch)).header.stale
    proxy.refuse()
    proxy.cut()
    stale = await heard(watch)
    assert (told(stale), stale.header.stale) == (([], [], []), True)
    late = await heard(shaky_client.group.WatchGroup(WatchGroupRequest(path="/g")))
    assert (ids(late.members.members), late.header.stale) == (["one"], True)
    stock_client.delete("/g/one")
    stock_client.create("/g/two", ephemeral=True)
    proxy.accept()
    joined, left = set(), set()
    while response := await heard(watch):
        joined |= set(ids(response.changes.joined))
        left |= set(ids(response.changes.left))
        if not response.header.stale and joined and left:
            break
    assert (joined, left) == ({"two"}, {"one"})


async def test_a_watcher_that_reads_too_late_gets_the_whole_list(host: Host, stock_client: KazooClient) -> None:
    """W3, W8."""
    hub = Hub(host.session, HubSettings(window_size=4))
    hub.start()
    stock_client.create("/g")
    subscription = await hub.subscribe((Target("/g", Scope.CHILDREN, True),))
    news = GroupWatch("/g", subscription, None).news()
    assert await anext(news) == Listed([], SnapshotReason.INITIAL)
    for number in range(10):
        stock_client.create(f"/g/{number}", ephemeral=True)
    while True:
        heard = await asyncio.wait_for(anext(news), PATIENCE_S)
        if isinstance(heard, Listed) and len(heard.members) == 10:
            break
    await news.aclose()
    subscription.close()
    await hub.close()


# The shrink guard


@asynccontextmanager
async def ten_members(stock_client: KazooClient) -> AsyncIterator[None]:
    for number in range(10):
        stock_client.create(f"/g/{number}", ephemeral=True, makepath=True)
    yield


def lose(stock_client: KazooClient, numbers: Iterable[int]) -> None:
    """At one moment, as by a network that fails."""
    transaction = stock_client.transaction()
    for number in numbers:
        transaction.delete(f"/g/{number}")
    assert all(result is True for result in transaction.commit())


async def guarded(client: Stubs, guard: ShrinkGuard) -> tuple[Any, WatchGroupResponse]:
    watch = client.group.WatchGroup(WatchGroupRequest(path="/g", shrink_guard=guard))
    first = await heard(watch)
    assert len(first.members.members) == 10
    return watch, first


def withheld(response: WatchGroupResponse) -> tuple[int, int]:
    assert response.WhichOneof("update") == "withheld"
    return response.withheld.published, response.withheld.present


async def test_a_sudden_loss_is_withheld_until_somebody_confirms_it(client: Stubs, stock_client: KazooClient) -> None:
    async with ten_members(stock_client):
        watch, first = await guarded(client, ShrinkGuard())
        trusting = client.group.WatchGroup(WatchGroupRequest(path="/g"))
        await heard(trusting)
        confirm = ConfirmShrinkRequest(watch_id=first.watch_id)
        assert not (await client.group.ConfirmShrink(confirm)).published
        lose(stock_client, [0])
        assert told(await heard(watch)) == ([], ["0"], [])
        lose(stock_client, range(1, 8))
        assert withheld(await heard(watch)) == (9, 2)
        assert told(await heard(trusting)) == ([], ["0"], [])
        assert told(await heard(trusting)) == ([], [str(number) for number in range(1, 8)], [])
        lose(stock_client, [8])
        assert withheld(await heard(watch)) == (9, 1)
        assert (await client.group.ConfirmShrink(confirm)).published
        assert told(await heard(watch)) == ([], [str(number) for number in range(1, 9)], [])
        assert not (await client.group.ConfirmShrink(confirm)).published
        # The last one is half of nothing: a loss of all.
        lose(stock_client, [9])
        assert withheld(await heard(watch)) == (1, 0)
        watch.cancel()
        while (fault := await _confirmed(client, confirm)) is None:
            pass
        assert (fault.code, fault.reason, fault.fields) == (INVALID, "INVALID_ARGUMENT", ("watch_id",))


async def _confirmed(client: Stubs, request: ConfirmShrinkRequest) -> Any:
    """None while the stream is still there."""
    try:
        await client.group.ConfirmShrink(request)
    except grpc.aio.AioRpcError:
        return await failure(client.group.ConfirmShrink(request))
    return None


async def test_a_loss_is_published_when_it_has_lasted(client: Stubs, stock_client: KazooClient) -> None:
    async with ten_members(stock_client):
        watch, _ = await guarded(client, CONFIRMS_LATER)
        lose(stock_client, range(10))
        assert withheld(await heard(watch)) == (10, 0)
        began = time.perf_counter()
        assert told(await heard(watch)) == ([], [str(number) for number in range(10)], [])
        assert 0.3 < time.perf_counter() - began < 2.0


async def test_a_loss_that_is_made_good_was_never_published(client: Stubs, stock_client: KazooClient) -> None:
    async with ten_members(stock_client):
        watch, _ = await guarded(client, ShrinkGuard(min_kept=0.9))
        lose(stock_client, [3, 4])
        assert withheld(await heard(watch)) == (10, 8)
        stock_client.create("/g/new", ephemeral=True)
        assert told(await heard(watch)) == (["new"], ["3", "4"], [])
        lose(stock_client, [5, 6])
        assert withheld(await heard(watch)) == (9, 7)
        for number in (5, 6):
            stock_client.create(f"/g/{number}", ephemeral=True)
        # Perhaps heard one by one. They are other memberships now.
        while (response := await heard(watch)).WhichOneof("update") == "withheld":
            pass
        changed = set(told(response)[2])
        while changed != {"5", "6"}:
            changed |= set(told(await heard(watch))[2]) | set(told(response)[0])


async def test_a_loss_that_is_undone_in_full_ends_with_empty_changes(client: Stubs, stock_client: KazooClient) -> None:
    async with ten_members(stock_client):
        permanent = b'{"name":"g","id":"%d","registrationTimeUTC":1,"serviceType":"PERMANENT"}'
        for number in range(10, 40):
            stock_client.create(f"/g/{number}", permanent % number)
        watch = client.group.WatchGroup(WatchGroupRequest(path="/g", shrink_guard=ShrinkGuard()))
        assert len((await heard(watch)).members.members) == 40
        notes = stock_client.transaction()
        again = stock_client.transaction()
        for number in range(10, 40):
            notes.set_data(f"/g/{number}", b"notes")
            again.set_data(f"/g/{number}", permanent % number)
        notes.commit()
        assert withheld(await heard(watch)) == (40, 10)
        again.commit()
        assert told(await heard(watch)) == ([], [], [])

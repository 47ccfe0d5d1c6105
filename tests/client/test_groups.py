"""Groups through the SDK: real daemons and real ZooKeeper, and a scripted one for what they do not do at will."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.client.parts.mortal import MortalDaemon
from tests.client.parts.scripted import ScriptedDaemon, header
from tests.parts.eventually import until
from zkside.client import Client, GroupView, LeaderChange, OnExists, Reading, ServiceInstance, ShrinkGuard, Withheld
from zkside.errors import HoldLost, InvalidArgument, NodeExists, WaitTimeout
from zkside.pb import election_pb2, group_pb2, hold_pb2


async def next_view(watch: Reading[GroupView]) -> GroupView:
    async with asyncio.timeout(20):
        return await anext(watch)


async def test_members_are_there_as_long_as_their_blocks(client: Client, root: str) -> None:
    """H4, H5"""
    path = f"{root}/group"
    assert len(await client.group(path)) == 0
    async with client.watch_group(path) as watch:
        assert len(await next_view(watch)) == 0
        async with client.join(path, member_id="a", data=b"10.0.0.7") as held:
            view = await next_view(watch)
            assert [member.member_id for member in view] == ["a"]
            assert (view["a"].data, view["a"].fencing_token) == (b"10.0.0.7", held.fencing_token)
            assert view.joined == (view["a"],)
            assert "a" in await client.group(path)
            assert held.is_held()
            with pytest.raises(NodeExists):
                async with client.join(path, member_id="a"):
                    pass
        view = await next_view(watch)
        assert [member.member_id for member in view.left] == ["a"]
        assert len(view) == 0


async def test_a_service_is_entered_as_curator_does(client: Client, root: str) -> None:
    """H8"""
    service = ServiceInstance(address="10.0.0.7", port=8080, uri_spec="{scheme}://{address}:{port}")
    async with client.join(f"{root}/services/web", member_id="one", service=service):
        found = (await client.group(f"{root}/services/web"))["one"].service
        assert found is not None
        assert (found.name, found.id, found.address, found.port) == ("web", "one", "10.0.0.7", 8080)
        assert found.ssl_port is None
        assert found.enabled
        assert found.registration_time_ms


async def test_who_is_thrown_out_is_told(client: Client, root: str, stock_client: KazooClient) -> None:
    """H5: a member that somebody deleted does not come back by itself."""

    async def work() -> None:
        async with client.join(f"{root}/group", member_id="a") as held:
            await asyncio.to_thread(stock_client.delete, held.path.removeprefix(root))
            await asyncio.Event().wait()

    with pytest.raises(HoldLost, match="NODE_DELETED"):
        async with asyncio.timeout(20):
            await work()


async def test_a_membership_and_its_watch_survive_a_killed_daemon(mortal: MortalDaemon, mortal_client: Client) -> None:
    """S5"""
    async with mortal_client.join("/group", member_id="a") as held, mortal_client.watch_group("/group") as watch:
        token = (await next_view(watch))["a"].fencing_token
        await mortal.kill()
        await mortal.start()
        await until(lambda: held.is_held() or held.lost.is_set(), within_s=20)
        assert held.fencing_token == token
        async with mortal_client.join("/group", member_id="b"):
            while "b" not in (view := await next_view(watch)):
                pass
            assert view["a"].fencing_token == token


async def test_a_sudden_loss_is_withheld_until_it_is_confirmed(client: Client, root: str) -> None:
    path = f"{root}/group"
    guard = ShrinkGuard(min_kept=0.9, window_s=60)
    async with client.watch_group(path, shrink_guard=guard) as watch:
        assert len(await next_view(watch)) == 0
        async with client.join(path, member_id="a"), client.join(path, member_id="b"):
            while len(view := await next_view(watch)) < 2:
                pass
        while (view := await next_view(watch)).withheld is None or view.withheld.present:
            pass
        assert view.withheld == Withheld(published=2, present=0)
        assert len(view) == 2, "what was published stays"
        assert await client.confirm_shrink(view.watch_id)
        view = await next_view(watch)
        assert len(view) == 0
        assert len(view.left) == 2
        assert view.withheld is None
    with pytest.raises(InvalidArgument):
        await client.confirm_shrink("unknown")


def member(name: str, data: bytes = b"", *, token: int = 1) -> group_pb2.Member:
    return group_pb2.Member(member_id=name, data=data, fencing_token=token)


def members(*listed: group_pb2.Member, more: bool = False, watch_id: str = "w1") -> group_pb2.WatchGroupResponse:
    listing = group_pb2.MemberList(members=listed)
    return group_pb2.WatchGroupResponse(header=header(5), watch_id=watch_id, members=listing, more=more)


def changes(*, more: bool = False, **parts: list[group_pb2.Member]) -> group_pb2.WatchGroupResponse:
    change = group_pb2.MemberChanges(joined=parts.get("joined"), left=parts.get("left"), changed=parts.get("changed"))
    return group_pb2.WatchGroupResponse(header=header(6), watch_id="w1", changes=change, more=more)


async def test_a_large_group_is_handed_out_whole(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    async with scripted_client.watch_group("/group") as watch:
        stream = await scripted.stream()
        stream.send(members(member("a"), more=True), changes(joined=[member("b")], more=True))
        stream.send(changes(joined=[member("c")]))
        view = await next_view(watch)
        assert list(view.members) == ["a", "b", "c"]
        stream.send(changes(left=[member("a")], changed=[member("b", b"x")]))
        view = await next_view(watch)
        assert list(view.members) == ["b", "c"]
        assert [each.member_id for each in view.left] == ["a"]
        assert [each.data for each in view.changed] == [b"x"]


async def test_what_changed_without_a_daemon_is_found_by_comparison(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """W7"""
    async with scripted_client.watch_group("/group") as watch:
        stream = await scripted.stream()
        stream.send(members(member("a"), member("b"), member("c")), changes(joined=[member("half")], more=True))
        await next_view(watch)
        await scripted.stop()
        await scripted.start()
        stream = await scripted.stream()
        stream.send(members(member("b", token=2), member("c"), member("d"), watch_id="w2"))
        view = await next_view(watch)
        assert [each.member_id for each in view.joined] == ["d"]
        assert [each.member_id for each in view.left] == ["a"]
        assert [each.member_id for each in view.changed] == ["b"], "another membership under the same name"
        assert view.watch_id == "w2"


async def test_the_leader_is_told_again_only_if_it_is_another(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    def leads(token: int) -> election_pb2.ObserveResponse:
        leader = hold_pb2.Contender(path="/e/1", fencing_token=token, is_holder=True)
        return election_pb2.ObserveResponse(header=header(token), leader=leader)

    async def next_change(watch: Reading[LeaderChange]) -> int:
        async with asyncio.timeout(20):
            change = await anext(watch)
        return 0 if change.leader is None else change.leader.fencing_token

    async with scripted_client.observe("/e") as watch:
        stream = await scripted.stream()
        stream.send(election_pb2.ObserveResponse(header=header(1)), leads(2))
        assert [await next_change(watch), await next_change(watch)] == [0, 2]
        await scripted.stop()
        await scripted.start()
        stream = await scripted.stream()
        stream.send(leads(2), leads(3))
        assert await next_change(watch) == 3


async def test_who_comes_back_takes_the_place_of_its_former_node(
    mortal: MortalDaemon, hosts: str, stock_client: KazooClient
) -> None:
    """H6: of a process that died together with its daemon and what that knew."""
    former = KazooClient(hosts)
    await asyncio.to_thread(former.start)
    former.create("/group/a", b"10.0.0.7", ephemeral=True, makepath=True)
    async with Client(mortal.address) as client:
        with pytest.raises(NodeExists):
            async with client.join("/group", member_id="a", data=b"10.0.0.7"):
                pass
        with pytest.raises(WaitTimeout):
            async with client.join("/group", member_id="a", data=b"x", on_exists=OnExists.REPLACE, wait_timeout_s=0.3):
                pass
        async with client.join("/group", member_id="a", data=b"10.0.0.7", on_exists=OnExists.REPLACE) as held:
            assert stock_client.exists("/group/a").czxid == held.fencing_token
    await asyncio.to_thread(former.stop)


async def test_data_that_was_set_lasts_over_the_daemon(
    mortal: MortalDaemon, stock_client: KazooClient, tmp_path: Path
) -> None:
    """H5: also where the daemon has forgotten all, and this process joins anew."""
    async with Client(mortal.address) as client:
        async with client.join("/group", member_id="a", data=b"v1", on_exists=OnExists.REPLACE) as held:
            await held.set_data(b"v2")
            token = held.fencing_token
            await mortal.kill()
            shutil.rmtree(tmp_path / "state")
            await mortal.start()
            await until(lambda: held.is_held() and held.fencing_token > token)
            assert stock_client.get("/group/a")[0] == b"v2"
        with pytest.raises(HoldLost):
            await held.set_data(b"v3")

"""Members and service instances of zkside, real Curator and real kazoo see each other (H8)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from kazoo.client import KazooClient

from tests.interop.contest import Stage
from tests.interop.presence import agree, discovery, group_member
from zkside.pb import group_pb2, group_pb2_grpc, hold_pb2

pytestmark = pytest.mark.interop


@pytest.fixture
async def groups(stage: Stage) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(stage.daemons[0]) as channel:
        yield group_pb2_grpc.GroupServiceStub(channel)


@contextlib.asynccontextmanager
async def joined(groups: Any, **request: Any) -> AsyncIterator[hold_pb2.Hold]:
    """A membership through zkside, for as long as the block."""
    stream = groups.Join(group_pb2.JoinRequest(**request))
    try:
        update = await stream.read()
        assert update.state == hold_pb2.HOLD_STATE_HELD, update
        yield update.hold
    finally:
        stream.cancel()


async def listed(groups: Any, path: str) -> dict[str, bytes]:
    answer = await groups.ListGroup(group_pb2.ListGroupRequest(path=path))
    return {member.member_id: member.data for member in answer.members}


class View:
    """The members as a WatchGroup stream tells them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.members: dict[str, bytes] = {}

    async def becomes(self, expected: dict[str, bytes]) -> None:
        while self.members != expected:
            update = await self._stream.read()
            assert update != grpc.aio.EOF
            if update.HasField("members"):
                self.members = {member.member_id: member.data for member in update.members.members}
                continue
            for member in update.changes.left:
                del self.members[member.member_id]
            for member in (*update.changes.joined, *update.changes.changed):
                self.members[member.member_id] = member.data


async def test_members_of_all_three_see_each_other_come_and_go(stage: Stage, path: str, groups: Any) -> None:
    """H8: zkside's group is Curator's GroupMember and, with its names, kazoo's Party."""
    kazoo = KazooClient(stage.hosts, timeout=4.0)
    kazoo.start(timeout=30)
    party = kazoo.Party(path, "carol")
    view = View(groups.WatchGroup(group_pb2.WatchGroupRequest(path=path)))
    try:
        async with group_member(stage.hosts, path, "alice", "by Curator") as curator:
            async with (
                joined(groups, path=path, member_id="bob", data=b"by zkside"),
                joined(groups, path=path, member_id="dave__party__", data=b"dave"),
            ):
                party.join()
                everybody = {
                    "alice": b"by Curator",
                    "bob": b"by zkside",
                    "dave__party__": b"dave",
                    party.node: b"carol",
                }
                await view.becomes(everybody)
                assert await listed(groups, path) == everybody
                assert sorted(party) == ["carol", "dave"]
                await agree(lambda: curator.ask("list"), {name: data.decode() for name, data in everybody.items()})

                await curator.ask("data moved")
                await view.becomes(everybody | {"alice": b"moved"})
                party.leave()
                del everybody[party.node]
                await view.becomes(everybody | {"alice": b"moved"})
            await view.becomes({"alice": b"moved"})
            assert list(party) == []
            await agree(lambda: curator.ask("list"), {"alice": "moved"})
            await curator.leave()
        await view.becomes({})
    finally:
        kazoo.stop()
        kazoo.close()


async def test_a_killed_member_of_curators_is_seen_to_go(stage: Stage, path: str, groups: Any) -> None:
    """H8: with its session."""
    view = View(groups.WatchGroup(group_pb2.WatchGroupRequest(path=path)))
    async with (
        group_member(stage.hosts, path, "alice", "") as curator,
        joined(groups, path=path, member_id="bob", data=b""),
    ):
        await view.becomes({"alice": b"", "bob": b""})
        curator.kill()
        await view.becomes({"bob": b""})


async def test_curator_discovers_what_zkside_registers(stage: Stage, path: str, groups: Any) -> None:
    """H8: by asking and through a ServiceCache, with everything that was told."""
    service = group_pb2.ServiceInstance(
        address="192.0.2.7",
        port=8080,
        ssl_port=8443,
        payload=json.dumps("blue"),
        uri_spec="{scheme}://{address}:{port}",
    )
    expected = {
        "name": "web", "id": "one", "address": "192.0.2.7", "port": 8080, "sslPort": 8443, "payload": "blue",
        "type": "DYNAMIC", "enabled": True, "uri": "http://192.0.2.7:8080",
    }  # fmt: skip
    async with discovery(stage.hosts, path) as curator:

        async def ask(command: str) -> Any:
            return [
                {key: value for key, value in each.items() if key != "registered"}
                for each in await curator.ask(command)
            ]

        assert await ask("query web") == []
        assert await ask("watch web") == []
        before_ms = time.time() * 1000 - 1
        async with joined(groups, path=f"{path}/web", member_id="one", service=service):
            assert await ask("query web") == [expected]
            await agree(lambda: ask("watch web"), [expected])
            [instance] = await curator.ask("query web")
            assert before_ms <= instance["registered"] <= time.time() * 1000
            bare = group_pb2.ServiceInstance(address="192.0.2.8", enabled=False)
            async with joined(groups, path=f"{path}/web", member_id="two", service=bare):
                # By itself Curator's cache leaves no instance out: `enabled` is for its providers.
                await agree(
                    lambda: curator_ids(curator),
                    [("one", 8080, True, "blue"), ("two", None, False, None)],
                )
        await agree(lambda: ask("watch web"), [])
        await agree(lambda: ask("query web"), [])


async def curator_ids(curator: Any) -> list[tuple[Any, ...]]:
    instances = await curator.ask("watch web")
    return sorted((each["id"], each["port"], each["enabled"], each["payload"]) for each in instances)


async def test_zkside_lists_what_curator_registers(stage: Stage, path: str, groups: Any) -> None:
    """H8: a group of zkside below Curator's base path has its instances, read as what they are."""
    view = View(groups.WatchGroup(group_pb2.WatchGroupRequest(path=f"{path}/web")))
    async with discovery(stage.hosts, path) as curator:
        await curator.ask("register web one 192.0.2.9 9090 green")
        answer = await groups.ListGroup(group_pb2.ListGroupRequest(path=f"{path}/web"))
        [member] = answer.members
        assert member.member_id == "one"
        service = member.service
        assert (service.name, service.id, service.address, service.port) == ("web", "one", "192.0.2.9", 9090)
        assert json.loads(service.payload) == "green"
        assert service.uri_spec == "{scheme}://{address}:{port}"
        # Curator writes it only for an instance that is out of rotation.
        assert not service.HasField("enabled")
        assert not service.HasField("ssl_port")
        assert abs(service.registration_time.ToMilliseconds() - time.time() * 1000) < 60_000
        await view.becomes({"one": member.data})
        await curator.ask("unregister one")
        await view.becomes({})

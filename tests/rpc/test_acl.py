"""What ZooKeeper's access control lists let through, and what they hide, as a client of the daemon sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from kazoo.client import KazooClient
from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id, Permissions, make_digest_acl

from tests.parts.proxy import Proxy
from tests.rpc.host import Host, Stubs, failure, fault
from tests.rpc.test_lost_replies import answer_lost, start
from zkside.model.operation import Acl
from zkside.pb import group_pb2, hold_pb2, lock_pb2, node_pb2
from zkside.pb.election_pb2 import CampaignRequest
from zkside.pb.lock_pb2 import AcquireRequest
from zkside.pb.node_pb2 import CreateRequest, DeleteRequest, GetRequest, HoldEphemeralRequest, ReadOptions, SetRequest

CACHED = ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)
THEIRS = [make_digest_acl("them", "secret", all=True)]


def world(permissions: int) -> ACL:
    return ACL(permissions, Id("world", "anyone"))


@pytest.fixture
def them(hosts: str) -> Iterator[KazooClient]:
    """Who may do everything where the daemon may not."""
    client = KazooClient(hosts, auth_data=[("digest", "them:secret")])
    client.start(timeout=30)
    yield client
    client.stop()
    client.close()


async def held(stream: Any) -> Any:
    while (update := await stream.read()) is not grpc.aio.EOF:
        if update.state == hold_pb2.HOLD_STATE_HELD:
            return update
    raise AssertionError("the stream ended")


class TestParents:
    """What is missing above a node is made from the node upwards: the root and what is there need no CREATE."""

    @pytest.fixture
    async def app(self, client: Stubs, them: KazooClient) -> Stubs:
        them.create("/app", acl=OPEN_ACL_UNSAFE)
        them.set_acls("/", [world(Permissions.READ), *THEIRS])
        return client

    async def test_create(self, app: Stubs) -> None:
        made = await app.node.Create(CreateRequest(path="/app/a/b/c", make_parents=True))
        assert made.path == "/app/a/b/c"

    async def test_a_refusal_is_of_the_parent_that_may_not_be_made(self, app: Stubs) -> None:
        found = await failure(app.node.Create(CreateRequest(path="/other/a", make_parents=True)))
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NO_AUTH")

    async def test_ephemeral(self, app: Stubs) -> None:
        stream = app.node.HoldEphemeral(HoldEphemeralRequest(path="/app/e/f/g", make_parents=True))
        assert (await held(stream)).hold.path == "/app/e/f/g"
        stream.cancel()

    async def test_lock(self, app: Stubs) -> None:
        stream = app.lock.Acquire(AcquireRequest(path="/app/locks/one"))
        assert (await held(stream)).hold.path.startswith("/app/locks/one/")
        stream.cancel()

    async def test_semaphore(self, app: Stubs) -> None:
        stream = app.lock.Acquire(AcquireRequest(path="/app/permits/one", mode=lock_pb2.LOCK_MODE_SEMAPHORE, permits=2))
        assert (await held(stream)).hold.path.startswith("/app/permits/one/")
        stream.cancel()

    async def test_election(self, app: Stubs) -> None:
        stream = app.election.Campaign(CampaignRequest(path="/app/leaders/one"))
        assert (await held(stream)).hold.path.startswith("/app/leaders/one/")
        stream.cancel()

    async def test_group(self, app: Stubs) -> None:
        stream = app.group.Join(group_pb2.JoinRequest(path="/app/groups/one", member_id="me"))
        assert (await held(stream)).hold.path == "/app/groups/one/me"
        stream.cancel()


class TestHelpfulLooks:
    """A look that is only to help never takes the place of what ZooKeeper said."""

    @pytest.fixture
    def blind(self, them: KazooClient) -> str:
        """A node that the daemon may write and not read."""
        them.create("/blind", b"0")
        them.set_acls("/blind", [world(Permissions.WRITE), *THEIRS])
        return "/blind"

    async def test_set_with_another_version(self, client: Stubs, blind: str) -> None:
        found = await failure(client.node.Set(SetRequest(path=blind, data=b"1", expected_version=7)))
        assert (found.reason, found.metadata["expected"]) == ("BAD_VERSION", "7")

    async def test_delete_with_another_version(self, client: Stubs, blind: str) -> None:
        found = await failure(client.node.Delete(DeleteRequest(path=blind, expected_version=7)))
        assert (found.reason, found.metadata["expected"]) == ("BAD_VERSION", "7")

    async def test_a_lost_answer(self, shaky_client: Stubs, blind: str, proxy: Proxy, them: KazooClient) -> None:
        """N2: that the node may not be looked at does not mean that nothing was changed."""
        async with answer_lost(proxy, lambda: them.get(blind)[0] == b"1"):
            setting = start(shaky_client.node.Set(SetRequest(path=blind, data=b"1")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await setting
        assert fault(caught.value).reason == "OUTCOME_UNKNOWN"


async def test_an_acl_that_was_set_through_the_daemon_holds_for_its_cache_at_once(
    client: Stubs, them: KazooClient
) -> None:
    """V3, R1: a cached read sees all that this daemon wrote."""
    them.create("/cfg", b"v1")
    assert (await client.node.Get(GetRequest(path="/cfg", options=CACHED))).node.data == b"v1"
    theirs = node_pb2.Acl(permissions=31, scheme="digest", id=THEIRS[0].id.id)
    await client.node.SetAcl(node_pb2.SetAclRequest(path="/cfg", acl=[theirs]))
    ended = await failure(client.node.Get(GetRequest(path="/cfg", options=CACHED)))
    assert (ended.reason, ended.metadata) == ("NO_AUTH", {"path": "/cfg"})
    assert ended.message.startswith("/cfg: its access control list does not allow it: ")
    assert "zookeeper.auth" in ended.message, "what to do"
    below = await failure(client.node.Create(CreateRequest(path="/cfg/a")))
    assert below.message.startswith("/cfg/a: the access control list of /cfg does not allow it: ")


async def test_who_holds_is_told_also_where_its_node_may_not_be_read(client: Stubs, them: KazooClient) -> None:
    """V3: not who waits behind it, nor nobody."""
    them.ensure_path("/q")
    name = "/q/_c_00000000-0000-4000-8000-000000000000-lock-"
    them.create(name, ephemeral=True, sequence=True, acl=THEIRS)
    stream = client.lock.Acquire(AcquireRequest(path="/q"))
    waiting = await stream.read()
    assert waiting.state == hold_pb2.HOLD_STATE_WAITING
    listed = (await client.lock.GetContenders(lock_pb2.GetContendersRequest(path="/q"))).contenders
    assert [(each.is_holder, each.fencing_token > 0) for each in listed] == [(True, False), (False, True)]
    stream.cancel()


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
async def test_two_users_share_a_queue_in_which_each_may_read_its_own_nodes_only(
    hosts: str, stock_client: KazooClient, many: bool
) -> None:
    """H7: granted when who is ahead lets go, although nobody may look at its node."""
    stock_client.create("/locks")
    mine = (Acl(31, "auth", ""),)
    async with AsyncExitStack() as stack:
        stubs = []
        for name in "ab":
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="zkside-", dir="/tmp")))
            host = Host(hosts, folder, auth=(("digest", f"{name}:{name}"),), default_acl=mine)
            await stack.enter_async_context(host)
            stubs.append(await stack.enter_async_context(host.stubs()))
        first, second = stubs
        everybody = node_pb2.Acl(permissions=31, scheme="world", id="anyone")
        await first.node.Create(CreateRequest(path="/locks/x", acl=[everybody]))
        ahead = [first.lock.Acquire(AcquireRequest(path="/locks/x"))]
        await held(ahead[0])
        if many:
            ahead += [first.lock.Acquire(AcquireRequest(path="/locks/x")) for _ in range(5)]
            for stream in ahead[1:]:
                assert (await stream.read()).state == hold_pb2.HOLD_STATE_WAITING
        waiting = second.lock.Acquire(AcquireRequest(path="/locks/x"))
        assert (await waiting.read()).state == hold_pb2.HOLD_STATE_WAITING
        if many:
            ahead.pop().cancel()  # who waits looks at all the others then
            assert (await waiting.read()).state == hold_pb2.HOLD_STATE_WAITING
        for stream in reversed(ahead):
            stream.cancel()
        async with asyncio.timeout(10):
            granted = await held(waiting)
        assert granted.hold.path.startswith("/locks/x/")
        waiting.cancel()

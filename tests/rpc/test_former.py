"""What a hold leaves behind: its data in the next epoch, and its node in the way of who comes back under its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.parts.eventually import until
from tests.parts.proxy import Proxy
from tests.rpc.host import Host, Stubs, failure
from tests.rpc.test_hold import next_state, update
from tests.zk.scripted import THROTTLED, refusing
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.hub.reads import Freshness
from zkside.model.session import SessionState
from zkside.pb.group_pb2 import JoinRequest, ServiceInstance
from zkside.pb.hold_pb2 import (
    HOLD_STATE_HELD,
    HOLD_STATE_LOST,
    HOLD_STATE_RELEASED,
    HOLD_STATE_WAITING,
    ON_EXISTS_FAIL,
    ON_EXISTS_REPLACE,
    ON_EXISTS_WAIT,
    OnExists,
)
from zkside.pb.lock_pb2 import AcquireRequest
from zkside.pb.node_pb2 import HoldEphemeralRequest, SetRequest

GRACE = Duration(seconds=60)
SHORT = Duration(nanos=200_000_000)
GET_DATA, CREATE = 4, 15


def service(registered_s: int, **more: object) -> ServiceInstance:
    instance = ServiceInstance(address="10.0.0.1", port=80, **more)  # type: ignore[arg-type]
    instance.registration_time.FromSeconds(registered_s)
    return instance


class TestData:
    """H5: a membership that is made again says what it said last."""

    @pytest.fixture
    async def expire(self, shaky_host: Host, proxy: Proxy) -> Callable[[], None]:
        def expire() -> None:
            proxy.refuse()
            proxy.cut()

        return expire

    @pytest.mark.parametrize("kind", ["member", "service", "ephemeral"])
    async def test_what_was_set_lasts(
        self,
        kind: str,
        shaky_host: Host,
        shaky_client: Stubs,
        proxy: Proxy,
        stock_client: KazooClient,
        expire: Callable[[], None],
    ) -> None:
        if kind == "ephemeral":
            stream = shaky_client.node.HoldEphemeral(HoldEphemeralRequest(path="/h", data=b"v1", recreate=True))
        elif kind == "member":
            stream = shaky_client.group.Join(JoinRequest(path="/g", member_id="me", data=b"v1"))
        else:
            stream = shaky_client.group.Join(JoinRequest(path="/s", member_id="me", service=service(1)))
        path = (await update(stream)).hold.path
        await shaky_client.node.Set(SetRequest(path=path, data=b"v2"))
        hold = shaky_host.holds.at(path)
        assert hold is not None
        await until(lambda: hold.data == b"v2")
        expire()
        assert (await next_state(stream, HOLD_STATE_HELD)).state != HOLD_STATE_HELD
        lost = await update(stream)
        assert (lost.state, lost.reason) == (HOLD_STATE_LOST, "SESSION_LOST")
        proxy.accept()
        assert (await update(stream)).state == HOLD_STATE_HELD
        assert stock_client.get(path)[0] == b"v2"
        stream.cancel()

    async def test_what_others_set_during_the_outage_lasts_where_the_old_node_shows_it(
        self,
        hosts: str,
        shaky_host: Host,
        shaky_client: Stubs,
        proxy: Proxy,
        stock_client: KazooClient,
        expire: Callable[[], None],
    ) -> None:
        stream = shaky_client.group.Join(JoinRequest(path="/g", member_id="me", data=b"v1"))
        await update(stream)
        ticket = shaky_host.session._epoch.ticket
        assert ticket is not None
        expire()
        await next_state(stream, HOLD_STATE_HELD)
        # The session lives longer than the daemon believes: somebody else has it.
        keeper = KazooClient(hosts, client_id=(ticket.session_id, ticket.password))
        await asyncio.to_thread(keeper.start)
        lost = await update(stream)
        assert lost.reason == "SESSION_LOST"
        stock_client.set("/g/me", b"v2")
        proxy.accept()
        await until(lambda: "/g/me" in {watch.path for watch in shaky_host.hub.list_watches()})
        await asyncio.to_thread(keeper.stop)
        assert (await update(stream)).state == HOLD_STATE_HELD
        assert stock_client.get("/g/me")[0] == b"v2"
        stream.cancel()
        keeper.close()


class TestForTheMoment:
    """V1: what ZooKeeper refuses for the moment is asked for again by who waits already, and ends no stream."""

    async def test_a_name_that_is_waited_for(
        self, zookeeper: ZooKeeperServer, chroot: str, short_path: Path, stock_client: KazooClient
    ) -> None:
        left = {GET_DATA: 2}
        async with (
            refusing(zookeeper.port, left, THROTTLED) as through,
            Host(through + chroot, short_path) as host,
            host.stubs() as client,
        ):
            stock_client.create("/me", b"", ephemeral=True)
            stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/me", on_exists=ON_EXISTS_WAIT))
            assert (await update(stream)).state == HOLD_STATE_WAITING
            left[CREATE] = 2
            await asyncio.to_thread(stock_client.delete, "/me")
            assert (await update(stream)).state == HOLD_STATE_HELD
            assert left == {GET_DATA: 0, CREATE: 0}
            stream.cancel()

    @pytest.mark.parametrize("on_exists", [ON_EXISTS_FAIL, ON_EXISTS_WAIT])
    async def test_a_node_that_is_made_again_in_the_next_session(
        self, zookeeper: ZooKeeperServer, chroot: str, short_path: Path, on_exists: OnExists.ValueType
    ) -> None:
        left: dict[int, int] = {}
        async with refusing(zookeeper.port, left, THROTTLED) as through:
            with Proxy(int(through.rpartition(":")[2])) as proxy:
                async with Host(proxy.hosts + chroot, short_path) as host, host.stubs() as client:
                    request = HoldEphemeralRequest(path="/me", recreate=True, on_exists=on_exists)
                    stream = client.node.HoldEphemeral(request)
                    assert (await next_state(stream, HOLD_STATE_WAITING)).state == HOLD_STATE_HELD
                    proxy.refuse()
                    proxy.cut()
                    await next_state(stream, HOLD_STATE_HELD)
                    assert (await update(stream)).state == HOLD_STATE_LOST
                    left |= {GET_DATA: 2, CREATE: 2}
                    proxy.accept()
                    assert (await next_state(stream, HOLD_STATE_WAITING)).state == HOLD_STATE_HELD
                    assert left == {GET_DATA: 0, CREATE: 0}
                    stream.cancel()

    async def test_a_place_in_a_queue_that_is_taken_anew_in_the_next_session(
        self, zookeeper: ZooKeeperServer, chroot: str, short_path: Path, stock_client: KazooClient
    ) -> None:
        left: dict[int, int] = {}
        first = "/lock/_c_00000000-0000-4000-8000-000000000000-lock-"
        first = stock_client.create(first, sequence=True, makepath=True)
        async with refusing(zookeeper.port, left, THROTTLED) as through:
            with Proxy(int(through.rpartition(":")[2])) as proxy:
                async with Host(proxy.hosts + chroot, short_path) as host, host.stubs() as client:
                    stream = client.lock.Acquire(AcquireRequest(path="/lock"))
                    assert (await update(stream)).state == HOLD_STATE_WAITING
                    proxy.refuse()
                    proxy.cut()
                    await until(lambda: host.session.status.state in (SessionState.LOST, SessionState.CONNECTING))
                    left[CREATE] = 2
                    proxy.accept()
                    await until(lambda: left == {CREATE: 0})
                    await asyncio.to_thread(stock_client.delete, first)
                    assert (await next_state(stream, HOLD_STATE_WAITING)).state == HOLD_STATE_HELD
                    stream.cancel()


class TestName:
    """H6: the node of a process that died with its daemon stays until its session ends."""

    @pytest.fixture
    def former(self, stock_client: KazooClient, hosts: str) -> KazooClient:
        """Whose session has an ephemeral `/g/me`."""
        client = KazooClient(hosts)
        client.start(timeout=30)
        client.create("/g/me", b"me", ephemeral=True, makepath=True)
        return client

    async def test_it_is_refused_unless_asked_otherwise(self, client: Stubs, former: KazooClient) -> None:
        for request in (
            JoinRequest(path="/g", member_id="me"),
            JoinRequest(path="/g", member_id="me", on_exists=ON_EXISTS_FAIL),
        ):
            assert (await failure(client.group.Join(request))).reason == "NODE_EXISTS"
        former.stop()

    @pytest.mark.parametrize("data", [b"me", b"other"])
    async def test_wait(self, client: Stubs, former: KazooClient, stock_client: KazooClient, data: bytes) -> None:
        request = JoinRequest(path="/g", member_id="me", data=data, on_exists=ON_EXISTS_WAIT)
        stream = client.group.Join(request)
        assert (await update(stream)).state == HOLD_STATE_WAITING
        await asyncio.to_thread(former.stop)
        held = await update(stream)
        assert held.state == HOLD_STATE_HELD
        assert stock_client.exists("/g/me").czxid == held.hold.fencing_token
        stream.cancel()

    async def test_wait_for_so_long(self, client: Stubs, former: KazooClient, stock_client: KazooClient) -> None:
        request = JoinRequest(path="/g", member_id="me", on_exists=ON_EXISTS_WAIT, wait_timeout=SHORT)
        stream = client.group.Join(request)
        assert (await update(stream)).state == HOLD_STATE_WAITING
        ended = await update(stream)
        assert (ended.state, ended.reason) == (HOLD_STATE_RELEASED, "WAIT_TIMEOUT")
        await asyncio.to_thread(former.stop)
        assert stock_client.exists("/g/me") is None

    async def test_who_leaves_while_it_waits_leaves_nothing(
        self, client: Stubs, host: Host, former: KazooClient, stock_client: KazooClient
    ) -> None:
        stream = client.group.Join(JoinRequest(path="/g", member_id="me", on_exists=ON_EXISTS_WAIT))
        await update(stream)
        stream.cancel()
        await until(lambda: len(host.holds) == 0)
        await asyncio.to_thread(former.stop)
        assert stock_client.exists("/g/me") is None
        assert not host.hub.list_watches()

    async def test_a_former_node_that_says_the_same_is_replaced_at_once(
        self, client: Stubs, former: KazooClient, stock_client: KazooClient
    ) -> None:
        request = JoinRequest(path="/g", member_id="me", data=b"me", on_exists=ON_EXISTS_REPLACE)
        stream = client.group.Join(request)
        held = await update(stream)
        assert held.state == HOLD_STATE_HELD
        assert stock_client.exists("/g/me").czxid == held.hold.fencing_token
        stream.cancel()
        former.stop()

    async def test_one_that_says_something_else_is_waited_for(self, client: Stubs, former: KazooClient) -> None:
        request = JoinRequest(path="/g", member_id="me", data=b"other", on_exists=ON_EXISTS_REPLACE)
        stream = client.group.Join(request)
        assert (await update(stream)).state == HOLD_STATE_WAITING
        await asyncio.to_thread(former.stop)
        assert (await update(stream)).state == HOLD_STATE_HELD
        stream.cancel()

    async def test_an_instance_at_the_same_address_is_replaced(self, client: Stubs, host: Host, hosts: str) -> None:
        """With another time of registration, which every start has."""
        first = client.group.Join(JoinRequest(path="/s", member_id="me", service=service(1)))
        path = (await update(first)).hold.path
        data = (await host.hub.reads.get(path, Freshness())).value[:-68]
        first.cancel()
        await until(lambda: len(host.holds) == 0)
        other = KazooClient(hosts)
        await asyncio.to_thread(other.start)
        other.create(path, data, ephemeral=True, makepath=True)
        for instance, state in (
            (service(2, payload='"x"'), HOLD_STATE_HELD),
            (ServiceInstance(address="10.0.0.2", port=80), HOLD_STATE_WAITING),
        ):
            request = JoinRequest(path="/s", member_id="me", service=instance, on_exists=ON_EXISTS_REPLACE)
            stream = client.group.Join(request)
            assert (await update(stream)).state == state
            if state == HOLD_STATE_WAITING:
                stream.cancel()
        await asyncio.to_thread(other.stop)

    async def test_a_node_that_is_not_ephemeral_stays(self, client: Stubs, stock_client: KazooClient) -> None:
        stock_client.create("/g/me", b"me", makepath=True)
        for on_exists in (ON_EXISTS_WAIT, ON_EXISTS_REPLACE):
            request = JoinRequest(path="/g", member_id="me", data=b"me", on_exists=on_exists)
            assert (await failure(client.group.Join(request))).reason == "NODE_EXISTS"
        assert stock_client.get("/g/me")[0] == b"me"

    async def test_a_process_that_is_there_is_not_replaced_and_one_that_has_left_is(
        self, client: Stubs, host: Host
    ) -> None:
        request = HoldEphemeralRequest(path="/me", data=b"me", on_exists=ON_EXISTS_REPLACE, reconnect_grace=GRACE)
        async with host.stubs() as before:
            first = before.node.HoldEphemeral(request)
            held = await update(first)
            second = client.node.HoldEphemeral(request)
            assert (await update(second)).state == HOLD_STATE_WAITING
            second.cancel()
        await until(lambda: not any(hold.attached for hold in host.holds.list()))
        third = client.node.HoldEphemeral(request)
        again = await update(third)
        if again.state == HOLD_STATE_WAITING:
            again = await update(third)
        assert again.hold.fencing_token > held.hold.fencing_token
        third.cancel()

    async def test_what_makes_no_sense_is_refused(self, client: Stubs) -> None:
        """O1"""
        for request, field in (
            (HoldEphemeralRequest(path="/x-", sequential=True, on_exists=ON_EXISTS_WAIT), "on_exists"),
            (HoldEphemeralRequest(path="/x", wait_timeout=SHORT), "wait_timeout"),
            (HoldEphemeralRequest(path="/x", on_exists=9), "on_exists"),  # type: ignore[arg-type]
        ):
            found = await failure(client.node.HoldEphemeral(request))
            assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))

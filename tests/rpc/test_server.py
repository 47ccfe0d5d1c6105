"""The server itself: where it listens, what it stands, how it ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from kazoo.client import KazooClient

from tests.parts.eventually import until
from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Fault, Host, Stubs, failure, fault
from zkside.errors import StartError
from zkside.pb import admin_pb2, node_pb2, session_pb2, watch_pb2
from zkside.pb.hold_pb2 import HOLD_STATE_RELEASED
from zkside.pb.node_pb2 import CreateRequest, GetRequest, HoldEphemeralRequest, SetRequest
from zkside.rpc.listeners import TcpListener, UnixListener
from zkside.rpc.server import SERVER_OPTIONS

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def ending(stream: Any) -> Fault:
    """How a stream ends, whatever it says before."""
    while True:
        try:
            if await stream.read() is grpc.aio.EOF:
                raise AssertionError("it ended with OK")
        except grpc.aio.AioRpcError as error:
            return fault(error)


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


def resident_bytes() -> int:
    """Of this process, without what its allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Where it listens


async def test_a_second_daemon_on_the_same_socket_is_refused_and_harms_nothing(
    host: Host, client: Stubs, hosts: str, short_path: Path
) -> None:
    second = Host(hosts, short_path, connect=False)
    with pytest.raises(StartError, match=f"another daemon .pid {os.getpid()}. listens on"):
        await second.start()
    await second.hub.close()
    await second.session.close(keep_session=False, within_s=1.0)
    await client.node.Get(GetRequest(path="/"))
    async with host.stubs() as newcomer:
        await newcomer.node.Get(GetRequest(path="/"))


async def test_the_socket_of_a_killed_daemon_is_taken_over(hosts: str, short_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(short_path / "zkside.sock"))
    left.close()
    async with Host(hosts, short_path) as host, host.stubs() as client:
        await client.node.Get(GetRequest(path="/"))
    assert not (short_path / "zkside.sock").exists()


async def test_a_file_that_is_no_socket_is_left_alone(hosts: str, short_path: Path) -> None:
    (short_path / "zkside.sock").write_text("precious")
    host = Host(hosts, short_path, connect=False)
    with pytest.raises(StartError, match="not a socket"):
        await host.start()
    await host.stop(0.0)
    assert (short_path / "zkside.sock").read_text() == "precious"


async def test_the_socket_has_its_mode_and_group(hosts: str, short_path: Path) -> None:
    listener = UnixListener(short_path / "below" / "s", mode=0o600, group=os.getgid())
    async with Host(hosts, short_path, listeners=(listener,), connect=False) as host:
        made = listener.path.stat()
        assert (stat.S_IMODE(made.st_mode), made.st_gid) == (0o600, os.getgid())
        assert host.rpc.addresses == (f"unix:{listener.path}",)


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        (UnixListener(Path("/tmp") / ("x" * 110)), "longer than 107 bytes"),
        (UnixListener(Path("/proc/zkside.sock")), "cannot be made"),
        (UnixListener(Path("/tmp/zkside-test.sock"), group="no such group"), "no group"),
        (TcpListener("0.0.0.0", 0), "reached from other hosts"),
        (TcpListener("::", 0), "reached from other hosts"),
        (TcpListener("example.com", 0), "reached from other hosts"),
    ],
)
async def test_an_unsafe_or_impossible_listener_is_refused_at_start(
    hosts: str, short_path: Path, listener: Any, message: str
) -> None:
    """O2."""
    host = Host(hosts, short_path, listeners=(listener,), connect=False)
    with pytest.raises(StartError, match=message):
        await host.start()
    await host.stop(0.0)


async def test_loopback_tcp_serves_and_its_port_is_not_shared(hosts: str, short_path: Path) -> None:
    """O2."""
    listeners = (UnixListener(short_path / "zkside.sock"), TcpListener("127.0.0.1", 0))
    async with Host(hosts, short_path, listeners=listeners) as host:
        address = host.rpc.addresses[1]
        async with Stubs(address) as client:
            await client.node.Get(GetRequest(path="/"))
        port = int(address.rpartition(":")[2])
        second = Host(hosts, short_path, listeners=(TcpListener("127.0.0.1", port),), connect=False)
        with pytest.raises(StartError, match="cannot listen"):
            await second.start()
        await second.stop(0.0)


# What it stands


async def test_a_burst_of_2000_streams_is_served(host: Host) -> None:
    """SERVER_OPTIONS: max_pending_requests. Without it gRPC cancels some of them."""
    clients = [host.stubs() for _ in range(10)]
    request = session_pb2.WatchSessionRequest()
    streams = [clients[number % 10].session.WatchSession(request) for number in range(2000)]
    first = await asyncio.wait_for(asyncio.gather(*(stream.read() for stream in streams)), 60)
    assert {answer.session.state for answer in first} == {1 + 1}
    assert len(host.rpc.streams) == 2000
    for client in clients:
        await client.channel.close()
    await soon(host.rpc.streams.wait_ended(infrastructure=True))
    assert dict(SERVER_OPTIONS)["grpc.server.max_pending_requests"] >= 2000


async def test_a_client_that_does_not_read_costs_bounded_memory_and_delays_nobody(
    host: Host, client: Stubs, stock_client: KazooClient
) -> None:
    """W8, O1: as its application, not its runtime, is at fault, pings do not find it."""
    size, rounds = 200_000, 300
    await client.node.Create(CreateRequest(path="/n"))
    request = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/n", with_data=True)])
    deaf, good = host.stubs(), host.stubs()
    unread = deaf.watch.Watch(request)
    await soon(unread.read())
    stream = good.watch.Watch(request)
    await soon(stream.read())
    before = resident_bytes()
    for number in range(rounds):
        written = await client.node.Set(SetRequest(path="/n", data=bytes(size)))
        while True:
            heard = await soon(stream.read())
            if heard.header.zxid >= written.header.zxid:
                break
        assert number <= rounds
    grown = resident_bytes() - before
    assert grown < rounds * size / 2, f"{grown / 1e6:.1f} MB"
    await good.channel.close()
    # It cannot be told that the daemon stops, and does not keep it from stopping.
    began = time.perf_counter()
    await host.stop(5.0)
    assert time.perf_counter() - began < 5.0
    await deaf.channel.close()


# How it ends


async def test_an_orderly_stop_tells_every_stream_and_releases_every_hold(
    hosts: str, short_path: Path, stock_client: KazooClient
) -> None:
    """O3, H5."""
    host = Host(hosts, short_path)
    await host.start()
    async with host.stubs() as client:
        hold = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
        watch = client.watch.Watch(watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/")]))
        session = client.session.WatchSession(session_pb2.WatchSessionRequest())
        health = client.health.Watch(health_pb2.HealthCheckRequest())
        for stream in (hold, watch, session, health):
            await soon(stream.read())
        pipeline = client.node.Pipeline()
        await pipeline.write(node_pb2.PipelineRequest(id=1))
        await soon(pipeline.read())
        began = time.perf_counter()
        stopping = asyncio.ensure_future(host.stop(10.0))
        while (last := await soon(hold.read())).state != HOLD_STATE_RELEASED:
            pass
        assert last.reason == "DRAINED"
        assert await soon(hold.read()) is grpc.aio.EOF
        for stream in (watch, session, pipeline):
            ended = await soon(ending(stream))
            assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert (await soon(health.read())).status == NOT_SERVING
        await stopping
        assert time.perf_counter() - began < 5
    assert stock_client.exists("/h") is None
    assert not (short_path / "zkside.sock").exists()
    assert len(host.rpc.streams) == 0


async def test_a_drain_ends_streams_and_holds_and_leaves_calls_alone(client: Stubs, stock_client: KazooClient) -> None:
    hold = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    session = client.session.WatchSession(session_pb2.WatchSessionRequest())
    health = client.health.Watch(health_pb2.HealthCheckRequest(service="zkside.v1.NodeService"))
    for stream in (hold, session, health):
        await soon(stream.read())
    answer = await soon(client.admin.Drain(admin_pb2.DrainRequest()))
    assert (answer.ended_streams, answer.released_holds) == (2, 1)
    assert stock_client.exists("/h") is None
    refused = await failure(client.node.HoldEphemeral(HoldEphemeralRequest(path="/i")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    refused = await failure(client.session.WatchSession(session_pb2.WatchSessionRequest()))
    assert refused.reason == "DRAINING"
    await client.node.Create(CreateRequest(path="/still"))
    assert (await client.admin.GetStatus(admin_pb2.GetStatusRequest())).draining
    assert (await soon(health.read())).status == NOT_SERVING
    assert (await client.health.Check(health_pb2.HealthCheckRequest())).status == SERVING


# What it tells


async def test_health_follows_the_session_but_liveness_does_not(
    shaky_client: Stubs, shaky_host: Host, proxy: Proxy
) -> None:
    """Liveness never depends on ZooKeeper."""
    watch = shaky_client.health.Watch(health_pb2.HealthCheckRequest(service="zkside.v1.NodeService"))
    assert (await soon(watch.read())).status == SERVING
    proxy.refuse()
    proxy.cut()
    assert (await soon(watch.read())).status == NOT_SERVING
    assert shaky_host.session.status.state.name in ("LOST", "CONNECTING")
    listed = (await shaky_client.health.List(health_pb2.HealthListRequest())).statuses
    assert {name: each.status for name, each in listed.items()} == {
        "": SERVING,
        "zkside.v1.SessionService": SERVING,
        "zkside.v1.AdminService": SERVING,
        "zkside.v1.NodeService": NOT_SERVING,
        "zkside.v1.WatchService": NOT_SERVING,
        "zkside.v1.HoldService": NOT_SERVING,
        "zkside.v1.CarryService": NOT_SERVING,
        "zkside.v1.LockService": NOT_SERVING,
        "zkside.v1.ElectionService": NOT_SERVING,
        "zkside.v1.GroupService": NOT_SERVING,
    }
    proxy.accept()
    assert (await soon(watch.read())).status == SERVING
    unknown = await failure(shaky_client.health.Check(health_pb2.HealthCheckRequest(service="x")))
    assert unknown.code is grpc.StatusCode.NOT_FOUND


async def test_a_daemon_that_never_reached_zookeeper_serves_and_says_so(short_path: Path) -> None:
    async with Host("127.0.0.1:1", short_path, connect=False) as host, host.stubs() as client:
        assert (await client.health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        asked = health_pb2.HealthCheckRequest(service="zkside.v1.NodeService")
        assert (await client.health.Check(asked)).status == NOT_SERVING
        answer = await client.session.GetSession(session_pb2.GetSessionRequest())
        assert (answer.session.epoch, answer.header.session_id) == (0, "")
        assert (await failure(client.node.Get(GetRequest(path="/")))).reason == "SESSION_SUSPENDED"


async def test_a_server_for_probes_knows_health_and_nothing_else(hosts: str, short_path: Path) -> None:
    """O2: it may be reached from other hosts, so it must not do anything."""
    async with Host(hosts, short_path, health_listener=TcpListener("0.0.0.0", 0)) as host:
        address = host.rpc.health_address.replace("0.0.0.0", "127.0.0.1")
        async with Stubs(address) as probe:
            assert (await probe.health.Check(health_pb2.HealthCheckRequest())).status == SERVING
            refused = await failure(probe.node.Get(GetRequest(path="/")))
            assert refused.code is grpc.StatusCode.UNIMPLEMENTED
            watch = probe.health.Watch(health_pb2.HealthCheckRequest())
            await soon(watch.read())
            await host.stop()
            assert (await soon(watch.read())).status == NOT_SERVING


async def test_reflection_knows_every_service_in_both_versions(client: Stubs) -> None:
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    for version in ("v1alpha", "v1"):
        call = client.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        stream = call(iter([ask]))
        names = {each.name for each in (await soon(stream.read())).list_services_response.service}
        assert {"zkside.v1.NodeService", "zkside.v1.WatchService", "grpc.health.v1.Health"} <= names
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(client.channel)  # type: ignore[no-untyped-call]
    by_symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol="zkside.v1.NodeService")
    answer = await soon(stub.ServerReflectionInfo(iter([by_symbol])).read())
    assert answer.file_descriptor_response.file_descriptor_proto


async def test_channelz_counts_calls(client: Stubs) -> None:
    stub: Any = channelz_pb2_grpc.ChannelzStub(client.channel)  # type: ignore[no-untyped-call]
    servers = (await stub.GetServers(channelz_pb2.GetServersRequest())).server
    assert any(server.data.calls_started > 0 for server in servers)


async def test_the_session_stream_tells_every_change_in_order(shaky_client: Stubs, proxy: Proxy) -> None:
    """S2."""
    stream = shaky_client.session.WatchSession(session_pb2.WatchSessionRequest())
    seen = [(await soon(stream.read())).session]
    for _ in range(3):
        proxy.cut()
        while seen[-1].state == seen[-2].state if len(seen) > 1 else True:
            seen.append((await soon(stream.read())).session)
        seen.append((await soon(stream.read())).session)
    sequences = [each.sequence for each in seen]
    assert sequences == list(range(sequences[0], sequences[0] + len(seen)))
    assert {each.state for each in seen} == {2, 4}


async def test_calls_are_counted_by_the_fields_names(host: Host, client: Stubs) -> None:
    await client.node.Get(GetRequest(path="/"))
    await failure(client.node.Get(GetRequest(path="/absent")))
    stream = client.session.WatchSession(session_pb2.WatchSessionRequest())
    await soon(stream.read())
    await failure(client.health.Check(health_pb2.HealthCheckRequest(service="x")))
    # What a call ends with is counted when its status has left, which its client may hear before.
    await until(lambda: not host.rpc.interceptors.calls)
    samples = {
        (sample.name, sample.labels["grpc_method"], sample.labels.get("grpc_code"), sample.labels.get("le")): sample
        for family in host.rpc.interceptors.collect()
        for sample in family.samples
    }
    assert samples["grpc_server_started_total", "Get", None, None].value == 2
    assert samples["grpc_server_handled_total", "Get", "OK", None].value == 1
    assert samples["grpc_server_handled_total", "Get", "NOT_FOUND", None].value == 1
    assert samples["grpc_server_msg_received_total", "Get", None, None].value == 2
    assert samples["grpc_server_msg_sent_total", "Get", None, None].value == 1
    assert samples["grpc_server_handling_seconds_bucket", "Get", None, "+Inf"].value == 2
    assert samples["grpc_server_handled_total", "Check", "NOT_FOUND", None].value == 1
    watch = samples["grpc_server_msg_sent_total", "WatchSession", None, None]
    assert (watch.value, watch.labels["grpc_type"], watch.labels["grpc_service"]) == (
        1,
        "server_stream",
        "zkside.v1.SessionService",
    )

"""Servers that break the protocol, hang, or lie: the session outlives them (S7, O1)."""

from __future__ import annotations

import asyncio
import struct

import pytest

from tests.contract.world import WITHIN_S, Peer
from tests.zk.conftest import Connect
from tests.zk.scripted import Client, answer_all, scripted_server, silent
from zkside import errors
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.model.operation import GetData, Sync
from zkside.zk.port import Ending

GARBAGE = {
    "not ZooKeeper at all": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "a negative length": struct.pack("!i", -5) + bytes(40),
    "an empty frame": struct.pack("!i", 0),
    "an answer to nothing": struct.pack("!iiqi", 16, 4711, 1, 0),
    "an event of half a path": struct.pack("!iiqiiii", 28, -1, -1, 0, 3, 3, 500),
    "a data length beyond the frame": struct.pack("!iiqii", 20, 1, 1, 0, 500),
    "a huge frame": struct.pack("!iiqi", 2**31 - 1, 4711, 1, 0) + bytes(100_000),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_bytes_that_make_no_sense_cost_the_connection_and_no_more(connect: Connect, garbage: bytes) -> None:
    """O1, S7"""

    async def talks_rubbish(client: Client) -> None:
        await client.greet()
        await client.read_request()
        client.writer.write(garbage)
        await silent(client)

    async with scripted_server(talks_rubbish, answer_all) as hosts:
        peer = await connect(hosts)
        with pytest.raises(errors.ConnectionLoss):
            await peer.do(GetData("/a"))
        assert len(peer.all("suspended")) == 1
        await peer.wait_for("connected", 2)
        await peer.do(Sync())
        assert peer.connection.statistics().errors == 1


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", struct.pack("!i", 3) + b"abc"])
async def test_who_is_no_zookeeper_server_is_passed_over(connect: Connect, greeting: bytes) -> None:
    async def no_server(client: Client) -> None:
        await client.read_frame()
        client.writer.write(greeting)

    async with scripted_server(no_server, no_server, answer_all) as hosts:
        peer = await connect(hosts, session_timeout_s=3.0)
        await peer.do(Sync())
        assert not peer.all("suspended")


async def test_a_server_that_takes_connections_and_says_nothing_is_passed_over(
    connect: Connect, hosts: str, zookeeper: ZooKeeperServer
) -> None:
    """S7"""
    async with scripted_server(silent) as dead:
        for _ in range(3):  # whichever comes first
            peer = await connect(f"{dead},{hosts}", connect_timeout_s=0.3)
            assert peer.all("connected")[0].server == zookeeper.hosts


async def test_a_request_that_hangs_is_noticed_although_events_flow(connect: Connect) -> None:
    """S3: a server whose `sync` hangs goes on sending events."""

    async def hangs(client: Client) -> None:
        await client.greet(timeout_ms=1500)
        await client.read_request()
        while True:
            client.event(3, "/a")
            await asyncio.sleep(0.05)

    async with scripted_server(hangs, answer_all) as hosts:
        peer = await connect(hosts)
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.ConnectionLoss, match="no answer"):
            await peer.do(Sync())
        assert 0.9 <= asyncio.get_running_loop().time() - began <= 1.3
        assert len(peer.events) > 10


async def test_a_long_answer_that_keeps_coming_is_no_silence(connect: Connect) -> None:
    data = b"x" * 30

    async def slow(client: Client) -> None:
        await client.greet(timeout_ms=900)
        xid, _ = await client.read_request()
        body = struct.pack("!i", len(data)) + data + bytes(68)
        frame = struct.pack("!iiqi", 16 + len(body), xid, 1, 0) + body
        for byte in frame:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        await silent(client)

    async with scripted_server(slow) as hosts:
        peer = await connect(hosts)
        assert (await peer.do(GetData("/a"))).startswith(data)
        assert not peer.all("suspended")


async def test_another_session_than_the_one_asked_for_ends_the_connection(connect: Connect) -> None:
    """S4"""

    async def grants(client: Client) -> None:
        await client.greet(session_id=7)

    async def grants_another(client: Client) -> None:
        await client.greet(session_id=8)

    async with scripted_server(grants, grants_another) as hosts:
        peer = await connect(hosts)
        assert await peer.wait_for("ended") is Ending.EXPIRED


async def test_a_listener_that_raises_costs_the_connection_and_no_more(connect: Connect) -> None:
    """S7"""

    async def sends_an_event(client: Client) -> None:
        await client.greet()
        client.event(3, "/a")
        await silent(client)

    class Fragile(Peer):
        def event(self, event: object) -> None:
            raise RuntimeError("a mistake in the listener")

    async with scripted_server(sends_an_event, answer_all) as hosts:
        from zkside.zk.kazoo import KazooSettings, kazoo_connector

        peer = Fragile()
        peer.connection = kazoo_connector(KazooSettings(hosts))(peer, None)
        peer.connection.start()
        try:
            assert "a mistake in the listener" in await peer.wait_for("suspended")
            await peer.wait_for("connected", 2)
            await peer.do(Sync())
        finally:
            await peer.connection.close(within_s=1)


async def test_a_reply_that_is_too_large_fails_its_request_alone(connect: Connect) -> None:
    """O1: one huge listing does not cut off everybody."""

    async def generous(client: Client) -> None:
        await client.greet()
        first, _ = await client.read_request()
        second, _ = await client.read_request()
        client.answer(first, body=bytes(3_000_000))
        client.answer(second)
        await silent(client)

    async with scripted_server(generous) as hosts:
        peer = await connect(hosts, max_reply_bytes=1_000_000)
        large, small = peer.call(GetData("/large")), peer.call(Sync())
        async with asyncio.timeout(WITHIN_S):
            await small
            with pytest.raises(errors.TooLarge, match="3000016 bytes"):
                await large
        assert not peer.all("suspended")


async def test_a_server_that_hangs_up_on_sasl_is_given_up_after_three_attempts(connect: Connect) -> None:
    from zkside.zk.sasl import SaslSettings

    async def hangs_up(client: Client) -> None:
        await client.greet()
        await client.read_request()

    async with scripted_server(hangs_up) as hosts:
        peer = await connect(hosts, connected=False, sasl=SaslSettings("DIGEST-MD5", "ann", "wrong"))
        assert await peer.wait_for("ended") is Ending.AUTH_FAILED
        assert not peer.all("connected")

"""The chroot of the connect string: not there, made later, made by the daemon, and deleted under it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from tests.contract.world import WITHIN_S, Peer
from tests.zk.conftest import Connect
from zkside import errors
from zkside.model.operation import Acl, Create, CreateMode, GetData
from zkside.zk import chroot as looks
from zkside.zk.port import Ending


async def told(peer: Peer, words: str) -> str:
    """The last error, when it has these words."""
    async with asyncio.timeout(WITHIN_S):
        while words not in (error := peer.connection.statistics().connecting.last_error):
            with contextlib.suppress(errors.ZksideError):
                await peer.do(GetData("/"))
            await asyncio.sleep(0.01)
    return error


async def test_nobody_is_connected_to_a_chroot_that_is_not_there_until_it_is(
    connect: Connect, hosts: str, chroot: str, stock_client: KazooClient, caplog: pytest.LogCaptureFixture
) -> None:
    """O5: one line names it."""
    caplog.set_level("INFO", logger="zkside")
    peer = await connect(f"{hosts}/nope", connected=False)
    assert await told(peer, "chroot") == f"the chroot {chroot}/nope does not exist"
    with pytest.raises(errors.SessionSuspended):
        await peer.do(GetData("/"))
    await asyncio.sleep(looks.INTERVAL_S)
    assert caplog.text.count(f"the chroot {chroot}/nope does not exist") == 1
    stock_client.create("/nope", b"made later")
    began_s = time.monotonic()
    await peer.wait_for("connected")
    assert time.monotonic() - began_s < looks.INTERVAL_S + 1
    assert not peer.connection.statistics().connecting.stands, "it is told as long as it stands in the way"
    record: bytes = await peer.do(GetData("/"))
    assert record.startswith(b"made later")


async def test_who_waits_for_a_chroot_can_be_closed(connect: Connect, hosts: str) -> None:
    """S6."""
    peer = await connect(f"{hosts}/nope", connected=False)
    await told(peer, "chroot")
    began_s = time.monotonic()
    await peer.connection.close(within_s=10)
    assert time.monotonic() - began_s < 2
    assert peer.log == [("ended", Ending.CLOSED)]


async def test_a_chroot_is_made_with_what_is_lacking_above_it_where_that_is_wanted(
    connect: Connect, hosts: str, stock_client: KazooClient
) -> None:
    acl = (Acl(31, "world", "anyone"),)
    peer = await connect(f"{hosts}/a/b/c", create_chroot=True, chroot_acl=acl)
    await peer.do(Create("/mine"))
    assert stock_client.exists("/a/b/c/mine") is not None


async def test_nothing_above_the_chroot_need_be_allowed_if_nothing_is_lacking_there(
    connect: Connect, hosts: str, stock_client: KazooClient
) -> None:
    """Ancestors are made from the node upwards: NO_AUTH comes before NODE_EXISTS."""
    stock_client.create("/closed")
    stock_client.create("/closed/open")
    stock_client.set_acls("/closed", [make_digest_acl("somebody", "else", all=True)])
    await connect(f"{hosts}/closed/open/a/b", create_chroot=True)
    refused = await connect(f"{hosts}/closed/a", connected=False, create_chroot=True)
    assert "/closed/a does not exist, and cannot be made: " in await told(refused, "cannot be made")


async def test_a_chroot_deleted_under_a_session_ends_it(
    connect: Connect, hosts: str, stock_client: KazooClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O5, H2: what the session owned is gone with it, and nobody is to believe otherwise."""
    monkeypatch.setattr(looks, "LOOK_S", 0.3)
    stock_client.create("/root")
    peer = await connect(f"{hosts}/root", session_timeout_s=4.0)
    await peer.do(Create("/held", mode=CreateMode.EPHEMERAL))
    stock_client.delete("/root", recursive=True)
    began_s = time.monotonic()
    assert await peer.wait_for("ended") is Ending.EXPIRED
    assert time.monotonic() - began_s < 1.5
    assert "root does not exist" in await told(peer, "chroot")


async def test_a_chroot_that_may_not_be_looked_at_is_taken_to_be_there(
    connect: Connect, hosts: str, stock_client: KazooClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 3.8.4 and 3.9.2 on, `exists` takes the right to read."""
    monkeypatch.setattr(looks, "LOOK_S", 0.1)
    stock_client.create("/secret/below", makepath=True)
    stock_client.set_acls("/secret", [make_digest_acl("somebody", "else", all=True)])
    peer = await connect(f"{hosts}/secret")
    await asyncio.sleep(0.3)
    await peer.do(GetData("/below"))
    assert not peer.all("suspended")

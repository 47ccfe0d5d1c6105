"""The daemon's restart with a hundred held locks, on real ZooKeeper: the next one goes on where it was."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from tests.rpc.conftest import short_path
from tests.rpc.host import PATIENCE_S, Host, Stubs
from tests.rpc.test_hold import gone, update
from zkside.pb.hold_pb2 import HOLD_STATE_HELD, HOLD_STATE_JEOPARDY, HOLD_STATE_WAITING, HoldUpdate, ReleaseRequest
from zkside.pb.lock_pb2 import AcquireRequest
from zkside.pb.node_pb2 import SyncRequest

__all__ = ["short_path"]

READY = (("zkside-wait-for-ready", "true"),)
"""wait_for_ready waits for the daemon, this for its session."""
LOCKS = 100
WAITERS = 20
"""Of the daemon that is killed: their nodes are nobody's then."""


@pytest.fixture
async def other(hosts: str, short_path: Path) -> AsyncIterator[Stubs]:
    """A client of another host."""
    (short_path / "other").mkdir()
    async with Host(hosts, short_path / "other") as host, host.stubs() as stubs:
        yield stubs


def killed(daemon: DaemonProcess) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait_ended()


def stopped_in_order(daemon: DaemonProcess) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_ended() == 0


def session_id(daemon: DaemonProcess) -> str:
    document = json.loads(daemon.get("/statusz")[1])
    return str(document["session"]["status"]["session_id"])


async def held(stream: Any) -> HoldUpdate:
    """Held again, perhaps in jeopardy before."""
    while (heard := await update(stream)).state == HOLD_STATE_JEOPARDY:
        pass
    assert heard.state == HOLD_STATE_HELD
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("end", [killed, stopped_in_order])
async def test_a_hundred_locks_outlive_their_daemon(
    end: Callable[[DaemonProcess], None],
    tmp_path: Path,
    hosts: str,
    other: Stubs,
    stock_client: KazooClient,
) -> None:
    """S5, H1, H2, H6: with the same session, the same nodes and tokens; no other host gets any of them meanwhile,
    and everybody gets it afterwards; the nodes of those who waited are swept."""
    keys = {
        "ZOOKEEPER_HOSTS": hosts,
        "ZOOKEEPER_SESSION_TIMEOUT": "30s",
        "STATE_DIR": str(tmp_path / "state"),
        "SHUTDOWN_SESSION": "keep_session",
    }
    paths = [f"/locks/{number:03}" for number in range(LOCKS)]
    async with AsyncExitStack() as watching:
        with DaemonProcess(tmp_path, **keys) as first:
            async with Stubs(first.address) as client:
                ready = client.node.Sync(SyncRequest(), wait_for_ready=True, metadata=READY)
                await asyncio.wait_for(ready, PATIENCE_S)
                session = session_id(first)
                streams = [client.lock.Acquire(AcquireRequest(path=path)) for path in paths]
                before = [await held(stream) for stream in streams]
                others = [other.lock.Acquire(AcquireRequest(path=path)) for path in paths]
                for stream in others:
                    assert (await update(stream)).state == HOLD_STATE_WAITING
                waiting = [client.lock.Acquire(AcquireRequest(path=path)) for path in paths[:WAITERS]]
                for stream in waiting:
                    assert (await update(stream)).state == HOLD_STATE_WAITING
                for path in paths[:WAITERS]:
                    last = max(stock_client.get_children(path), key=lambda name: name[-10:])
                    await watching.enter_async_context(gone(stock_client, f"{path}/{last}"))
                await asyncio.to_thread(end, first)
                for stream in streams + waiting:
                    assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        turns = [asyncio.create_task(update(stream)) for stream in others]

        second = watching.enter_context(DaemonProcess(tmp_path, **keys))
        client = await watching.enter_async_context(Stubs(second.address))
        requests = [
            AcquireRequest(path=path, resume_token=each.hold.resume_token)
            for path, each in zip(paths, before, strict=True)
        ]
        streams = [client.lock.Acquire(request, wait_for_ready=True) for request in requests]
        after = [await held(stream) for stream in streams]
        assert session_id(second) == session
        assert [each.hold.path for each in after] == [each.hold.path for each in before]
        assert [each.hold.fencing_token for each in after] == [each.hold.fencing_token for each in before]
        assert all(each.hold.lease_boottime_ns for each in after)
        await other.node.Sync(SyncRequest())
        assert not any(turn.done() for turn in turns)

        for each in after:
            await client.hold.Release(ReleaseRequest(hold_id=each.hold.hold_id))
        for turn, each in zip(turns, after, strict=True):
            granted = await turn
            assert granted.state == HOLD_STATE_HELD
            assert granted.hold.fencing_token > each.hold.fencing_token

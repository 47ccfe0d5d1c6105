"""Many waiters for one lock, on real ZooKeeper: what a hand-over costs does not depend on how many they are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.conftest import short_path
from tests.rpc.host import PATIENCE_S, Host, Stubs
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.pb.hold_pb2 import HOLD_STATE_HELD, HOLD_STATE_RELEASED, HOLD_STATE_WAITING, HoldUpdate, ReleaseRequest
from zkside.pb.lock_pb2 import AcquireRequest

__all__ = ["short_path"]

WAITERS = 200
HAND_OVERS = 60


class Waiter:
    """One stream of Acquire and all that it heard, without what only moves the lease."""

    def __init__(self, client: Stubs, granted: asyncio.Queue[Waiter]) -> None:
        self.heard: list[int] = []
        self.update = HoldUpdate()
        self._client = client
        self._granted = granted
        self._first = asyncio.Event()
        self._stream: Any = client.lock.Acquire(AcquireRequest(path="/lock"))
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while isinstance(update := await self._stream.read(), HoldUpdate):
            is_news = (update.state, update.position) != (self.update.state, self.update.position) or not self.heard
            self.update = update
            if is_news:
                self.heard.append(update.state)
                self._first.set()
                if update.state == HOLD_STATE_HELD:
                    self._granted.put_nowait(self)

    async def queued(self) -> None:
        await asyncio.wait_for(self._first.wait(), PATIENCE_S)

    async def release(self) -> None:
        await self._client.hold.Release(ReleaseRequest(hold_id=self.update.hold.hold_id))
        await asyncio.wait_for(self._task, PATIENCE_S)

    async def go(self) -> None:
        self._stream.cancel()
        await asyncio.wait([self._task])


@pytest.fixture(params=[1, 3], ids=["through one daemon", "through three daemons"])
async def daemons(
    request: pytest.FixtureRequest, own_zookeeper: ZooKeeperServer, short_path: Path
) -> AsyncIterator[list[Host]]:
    async with AsyncExitStack() as stack:
        hosts = []
        for number in range(request.param):
            directory = short_path / str(number)
            directory.mkdir()
            hosts.append(await stack.enter_async_context(Host(own_zookeeper.hosts, directory)))
        yield hosts


def asked(daemons: list[Host]) -> int:
    """Requests to ZooKeeper so far, without the proofs of the leases."""
    statistics = [host.session.statistics() for host in daemons]
    return sum(each.connection.sent - each.proofs_sent for each in statistics if each.connection is not None)


def watches(server: ZooKeeperServer) -> int:
    """By the server's own account."""
    (count,) = re.findall(r"Total watches:(\d+)", server.four_letter("wchs"))
    return int(count)


def told(daemons: list[Host]) -> int:
    """Events from ZooKeeper so far."""
    return sum(host.hub.statistics().events_in for host in daemons)


@pytest.mark.slow
async def test_a_release_wakes_one_waiter_however_many_wait(
    daemons: list[Host], own_zookeeper: ZooKeeperServer
) -> None:
    """H7: first come, first served over all hosts; one watch for each waiter; a hand-over is one event for one
    daemon and a few requests."""
    granted: asyncio.Queue[Waiter] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        # More than one for each, since a connection has 200 streams and calls at once.
        clients = [await stack.enter_async_context(host.stubs()) for host in (*daemons, *daemons)]
        waiters = []
        for number in range(1 + WAITERS):
            waiters.append(Waiter(clients[number % len(clients)], granted))
            await waiters[-1].queued()
        assert await granted.get() is waiters[0]
        assert [waiter.heard for waiter in waiters[1:]] == [[HOLD_STATE_WAITING]] * WAITERS
        assert watches(own_zookeeper) <= WAITERS + 1

        before = asked(daemons), told(daemons)
        for number in range(HAND_OVERS):
            await waiters[number].release()
            assert await asyncio.wait_for(granted.get(), PATIENCE_S) is waiters[number + 1]
        requests, events = asked(daemons) - before[0], told(daemons) - before[1]

        assert granted.empty()
        for waiter in waiters[1:HAND_OVERS]:
            assert waiter.heard == [HOLD_STATE_WAITING, HOLD_STATE_HELD, HOLD_STATE_RELEASED]
        assert [waiter.heard for waiter in waiters[HAND_OVERS + 1 :]] == [[HOLD_STATE_WAITING]] * (WAITERS - HAND_OVERS)
        tokens = [waiter.update.hold.fencing_token for waiter in waiters[: HAND_OVERS + 1]]
        assert tokens == sorted(set(tokens))
        # The delete, a look at the waiter's own node and at those that went through other daemons meanwhile, and
        # a watch taken away; sometimes one on a node of one's own.
        assert requests <= (4 + len(daemons)) * HAND_OVERS
        assert events <= 2 * HAND_OVERS
        assert watches(own_zookeeper) <= WAITERS - HAND_OVERS + 1

        await asyncio.gather(*(waiter.go() for waiter in waiters[HAND_OVERS:]))

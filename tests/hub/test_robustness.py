"""Random writers, random outages, subscribers of every speed: the watch guarantees hold all along.

Each schedule comes from a seed, which the failing test's name tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest
from kazoo.security import make_digest_acl_credential

from tests.contract.world import Peer, World
from tests.hub.watcher import Watcher
from zkside.errors import Refused
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.subscription import Changes, Delivery, Subscription
from zkside.model.operation import OPEN_ACL, Acl, Create, Delete, GetChildren, GetData, SetAcl, SetData, Transaction
from zkside.model.record import data
from zkside.model.watch import Scope, Target

GROUPS = 3
MEMBERS = 4
STEPS = 150
THEIRS = (Acl(31, "digest", make_digest_acl_credential("them", "secret")),)


class GroupWatcher(Watcher):
    """Checks at every cut that no transaction is seen by half: all members of a group agree (W6)."""

    def __init__(self, subscription: Subscription, rng: random.Random) -> None:
        super().__init__(subscription)
        self._rng = rng

    def _take(self, delivery: Delivery) -> None:
        super()._take(delivery)
        if self._loading:
            return
        for group in range(GROUPS):
            states = {self.data().get(path) for path in members(group)}
            assert len(states) == 1, f"group {group} was seen torn: {states}"

    async def _follow(self) -> None:
        try:
            while True:
                delivery = await self.subscription.next()
                self._take(delivery)
                self._changed.set()
                if isinstance(delivery, Changes) and self._rng.random() < 0.3:
                    await asyncio.sleep(self._rng.random() * 0.05)  # now and then it is slow
        finally:
            self._changed.set()


def members(group: int) -> list[str]:
    return [f"/t/g{group}-{member}" for member in range(MEMBERS)]


async def write(other: Peer, rng: random.Random, *, hides: bool = False) -> None:
    """Groups are created, set and deleted whole; around them single nodes come, change and go.

    With `hides` they are forbidden to the daemon and allowed again, and so is the parent of all.
    """
    for step in range(STEPS):
        value = str(step).encode()
        paths = members(rng.randrange(GROUPS))
        single = f"/t/s{rng.randrange(6)}"
        for operation in rng.sample(
            [
                Transaction(tuple(SetData(path, value) for path in paths)),
                Transaction(tuple(Create(path, value) for path in paths)),
                Transaction(tuple(Delete(path) for path in paths)),
                Transaction((*(Delete(path) for path in paths), *(Create(path, value) for path in paths))),
                Create(single, value),
                SetData(single, value),
                Delete(single),
                Create(f"{single}/below", value),
                Delete(f"{single}/below"),
                *(
                    [SetAcl(rng.choice([single, "/t"]), rng.choice([THEIRS, OPEN_ACL])) for _ in range(3)]
                    if hides
                    else ()
                ),
            ],
            rng.randrange(1, 9),
        ):
            call = other.call(operation)
            if rng.random() < 0.2:
                with contextlib.suppress(Refused):
                    await call
            else:
                call.add_done_callback(lambda done: done.exception())
        await asyncio.sleep(rng.random() * 0.02)


async def break_things(world: World, rng: random.Random) -> None:
    """Cut connections, some for long enough to lose the session."""
    while True:
        await asyncio.sleep(0.3 + rng.random() * 0.7)
        await world.refuse()
        await world.cut()
        await asyncio.sleep(rng.choice([0.0, 0.2, 0.5]))
        await world.accept()


async def truth(other: Peer, path: str = "/t") -> dict[str, bytes]:
    """What is there, read node by node."""
    found = {path: data(await other.do(GetData(path)))}
    names, _ = await other.do(GetChildren(path))
    for name in names:
        found.update(await truth(other, f"{path}/{name}"))
    return found


@pytest.fixture
def hub_settings() -> HubSettings:
    return HubSettings(window_size=40)


@pytest.mark.parametrize("seed", range(6))
async def test_every_subscriber_sees_whole_transactions_in_order_and_ends_with_the_truth(
    hub: Hub, other: Peer, world: World, seed: int
) -> None:
    """W1, W2, W3, W5, W6, W7, W8"""
    await follow_and_write(hub, other, world, seed)


@pytest.mark.parametrize("hub_settings", [HubSettings(window_size=40, revalidate_interval_s=0.2)])
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_may_not_be_read_for_a_while_every_subscriber_ends_with_the_truth(
    hub: Hub, join: Callable[..., Awaitable[Peer]], world: World, seed: int
) -> None:
    """V1, V3, W1, W2, W3, W5"""
    them = await join(auth=(("digest", "them:secret"),))
    await follow_and_write(hub, them, world, seed, hides=True)
    assert not any(hub.session.supervisor.deaths.values())


async def follow_and_write(hub: Hub, other: Peer, world: World, seed: int, *, hides: bool = False) -> None:
    rng = random.Random(seed)
    await other.do(Create("/t"))
    watchers = [
        GroupWatcher(
            await hub.subscribe((Target("/t", scope),), bookmark_interval_s=0.05), random.Random(seed * 100 + number)
        )
        for number, scope in enumerate([Scope.SUBTREE, Scope.SUBTREE, Scope.CHILDREN])
    ]
    for watcher in watchers:
        watcher.__enter__()
    breaking = asyncio.create_task(break_things(world, random.Random(seed + 1000)))
    try:
        await write(other, rng, hides=hides)
        breaking.cancel()
        await world.accept()
        await other.catch_up()
        for path in await truth(other) if hides else ():
            await other.do(SetAcl(path, OPEN_ACL))
        expected = await truth(other)
        level = {path: value for path, value in expected.items() if path.count("/") <= 2}
        for watcher, state in zip(watchers, [expected, expected, level], strict=True):
            with contextlib.suppress(TimeoutError):
                await watcher.until(lambda: (watcher.data(), watcher.unreadable) == (state, set()))  # noqa: B023
            assert (watcher.data(), watcher.unreadable) == (state, set())
    finally:
        breaking.cancel()
        for watcher in watchers:
            watcher.__exit__()

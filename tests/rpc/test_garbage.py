"""What clients leave is freed at once: what waits for the garbage collector waits for minutes (adr/0023)."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from types import CoroutineType, FrameType
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.rpc.host import Host, Stubs
from zkside.pb import carry_pb2, election_pb2, group_pb2, hold_pb2, lock_pb2, node_pb2, session_pb2, watch_pb2

ROUNDS = 20
KEPT_BY_GRPC = frozenset({"Status", "frame _abort", "frame Interceptors._unary.<locals>.call"})
"""Of a call that is refused."""
FEW = ROUNDS // 2
"""The last rounds may not be over when it is counted."""


async def rest(stream: Any) -> None:
    """Read to the end."""
    while await stream.read() is not grpc.aio.EOF:
        pass


async def carry(client: Stubs, *, waits: bool, releases: bool) -> None:
    stream = client.carry.Carry()
    for tag in range(1, 4):
        step = carry_pb2.CarryStep(tag=tag, acquire=lock_pb2.AcquireRequest(path=f"/c{0 if waits else tag}"))
        await stream.write(carry_pb2.CarryRequest(steps=[step]))
    heard = 0
    while heard < (1 if waits else 3):
        heard += len((await stream.read()).updates)
    if releases:
        steps = [carry_pb2.CarryStep(tag=tag, release=carry_pb2.CarryRelease()) for tag in range(1, 4)]
        await stream.write(carry_pb2.CarryRequest(steps=steps))
        await stream.done_writing()
        await rest(stream)
    stream.cancel()


async def carry_held_and_cut(client: Stubs) -> None:
    await carry(client, waits=False, releases=False)


async def carry_waiting_and_cut(client: Stubs) -> None:
    await carry(client, waits=True, releases=False)


async def carry_released(client: Stubs) -> None:
    await carry(client, waits=False, releases=True)


async def carry_waiting_and_released(client: Stubs) -> None:
    await carry(client, waits=True, releases=True)


async def carry_refused(client: Stubs) -> None:
    stream = client.carry.Carry()
    step = carry_pb2.CarryStep(tag=1, acquire=lock_pb2.AcquireRequest(path="no path"))
    await stream.write(carry_pb2.CarryRequest(steps=[step, carry_pb2.CarryStep(tag=2)]))
    await stream.read()
    stream.cancel()


async def acquire_held_and_cut(client: Stubs) -> None:
    stream = client.lock.Acquire(lock_pb2.AcquireRequest(path="/a"))
    await stream.read()
    stream.cancel()


async def acquire_waiting_and_cut(client: Stubs) -> None:
    first = client.lock.Acquire(lock_pb2.AcquireRequest(path="/w"))
    await first.read()
    second = client.lock.Acquire(lock_pb2.AcquireRequest(path="/w"))
    await second.read()
    second.cancel()
    first.cancel()


async def acquire_waiting_too_long(client: Stubs) -> None:
    first = client.lock.Acquire(lock_pb2.AcquireRequest(path="/w"))
    await first.read()
    async for _ in client.lock.Acquire(lock_pb2.AcquireRequest(path="/w", wait_timeout=Duration(nanos=20_000_000))):
        pass
    first.cancel()


async def acquire_released(client: Stubs) -> None:
    stream = client.lock.Acquire(lock_pb2.AcquireRequest(path="/r"))
    update = await stream.read()
    await client.hold.Release(hold_pb2.ReleaseRequest(hold_id=update.hold.hold_id))
    await rest(stream)


async def campaign_and_cut(client: Stubs) -> None:
    stream = client.election.Campaign(election_pb2.CampaignRequest(path="/e"))
    await stream.read()
    stream.cancel()


async def join_and_cut(client: Stubs) -> None:
    stream = client.group.Join(group_pb2.JoinRequest(path="/g"))
    await stream.read()
    stream.cancel()


async def watch_and_cut(client: Stubs) -> None:
    scopes = [watch_pb2.SCOPE_NODE, watch_pb2.SCOPE_CHILDREN, watch_pb2.SCOPE_SUBTREE]
    targets = [watch_pb2.WatchTarget(path=f"/x{scope}", scope=scope, with_data=True) for scope in scopes]
    stream = client.watch.Watch(watch_pb2.WatchRequest(targets=targets))
    await stream.read()
    stream.cancel()


async def watch_events_and_cut(client: Stubs) -> None:
    target = watch_pb2.WatchTarget(path="/events", kind=watch_pb2.WATCH_KIND_EXISTS)
    stream = client.watch.Watch(watch_pb2.WatchRequest(targets=[target], mode=watch_pb2.WATCH_MODE_EVENTS))
    await stream.initial_metadata()
    stream.cancel()


async def watch_session_and_cut(client: Stubs) -> None:
    stream = client.session.WatchSession(session_pb2.WatchSessionRequest())
    await stream.read()
    stream.cancel()


async def watch_group_and_cut(client: Stubs) -> None:
    stream = client.group.WatchGroup(group_pb2.WatchGroupRequest(path="/wg"))
    await stream.read()
    stream.cancel()


async def observe_and_cut(client: Stubs) -> None:
    stream = client.election.Observe(election_pb2.ObserveRequest(path="/o"))
    await stream.read()
    stream.cancel()


async def acquire_and_take_up(client: Stubs) -> None:
    """The stream that had it hears TAKEN_OVER."""
    first = client.lock.Acquire(lock_pb2.AcquireRequest(path="/t", reconnect_grace=Duration(seconds=5)))
    token = (await first.read()).hold.resume_token
    second = client.lock.Acquire(lock_pb2.AcquireRequest(path="/t", resume_token=token))
    await second.read()
    await rest(first)
    second.cancel()


async def vanish(client: Stubs) -> None:
    """The connection is cut with everything under way."""
    other = Stubs(client.address)
    lock, waits = (other.lock.Acquire(lock_pb2.AcquireRequest(path="/v")) for _ in range(2))
    watch = other.watch.Watch(watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/")]))
    for stream in (lock, waits, watch):
        await stream.read()
    await other.channel.close()


async def get_and_cut(client: Stubs) -> None:
    call = client.node.Get(node_pb2.GetRequest(path="/"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()


async def get_what_is_not_there(client: Stubs) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await client.node.Get(node_pb2.GetRequest(path="/absent"))


async def get(client: Stubs) -> None:
    await client.node.Get(node_pb2.GetRequest(path="/"))


async def set_and_get_many(client: Stubs) -> None:
    await client.node.Set(node_pb2.SetRequest(path="/", data=b"1"))
    await client.node.GetMany(node_pb2.GetManyRequest(paths=["/", "/zookeeper"]))
    await client.node.List(node_pb2.ListRequest(path="/", with_nodes=True))


WAYS: tuple[Callable[[Stubs], Awaitable[None]], ...] = (
    acquire_and_take_up,
    acquire_held_and_cut,
    acquire_released,
    acquire_waiting_and_cut,
    acquire_waiting_too_long,
    campaign_and_cut,
    carry_held_and_cut,
    carry_refused,
    carry_released,
    carry_waiting_and_cut,
    carry_waiting_and_released,
    get,
    get_and_cut,
    get_what_is_not_there,
    join_and_cut,
    observe_and_cut,
    set_and_get_many,
    vanish,
    watch_and_cut,
    watch_events_and_cut,
    watch_group_and_cut,
    watch_session_and_cut,
)


def ours(found: object) -> str:
    """What it is, if it is of the daemon; else ''. The error that ends a call is kept by gRPC, and small."""
    kind = type(found)
    if isinstance(found, BaseException) and found.__traceback__ is None:
        return ""
    if kind.__module__.startswith("zkside."):
        return kind.__qualname__
    if isinstance(found, CoroutineType):
        return f"coroutine {found.__qualname__}"
    if isinstance(found, FrameType) and "/zkside/" in found.f_code.co_filename:
        return f"frame {found.f_code.co_qualname}"
    return ""


async def left_by(leave: Callable[[Stubs], Awaitable[Any]], client: Stubs) -> dict[str, int]:
    """What of the daemon only the collector frees, after some rounds of this."""
    gc.collect()
    gc.freeze()  # what was left before is none of it
    for _ in range(ROUNDS):
        await leave(client)
    await asyncio.sleep(0.3)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    left = Counter(name for name in map(ours, gc.garbage) if name and name not in KEPT_BY_GRPC)
    gc.garbage.clear()
    gc.unfreeze()
    return {name: count for name, count in left.items() if count > FEW}


async def test_what_a_client_leaves_needs_no_collector(host: Host, client: Stubs) -> None:
    """O1: holds that had ended stood in cycles with the errors that ended them, 25 kB each, until the collector's
    oldest generation was looked at: 45 MB a minute under abuse."""
    gc.disable()
    try:
        assert {way.__name__: left for way in WAYS if (left := await left_by(way, client))} == {}
    finally:
        gc.enable()

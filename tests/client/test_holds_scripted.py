"""How the SDK holds something, against a server that does what it is told: leases, losses, waits, broken streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from google.protobuf.message import Message

from tests.client.parts.scripted import (
    HELD,
    JEOPARDY,
    LOST,
    RELEASED,
    WAITING,
    ScriptedDaemon,
    ScriptedStream,
    hold_update,
)
from tests.parts.eventually import until
from zkside.client import Client, Held, HoldState, HoldStatus
from zkside.client.clock import now_ns
from zkside.client.pulse import BOUND_NS
from zkside.errors import DeadlineExceeded, HoldLost, NoAuth, Unavailable, WaitTimeout

BOUND_S = BOUND_NS / 1e9


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def last_believed_ns(held: Held, *, within_s: float = 10.0) -> int:
    """When it was believed in for the last time; strict, however slow this machine is."""
    seen_ns = now_ns()
    async with asyncio.timeout(within_s):
        while True:
            at_ns = now_ns()
            if not held.is_held():
                return seen_ns
            seen_ns = at_ns
            await asyncio.sleep(0.002)


@asynccontextmanager
async def granted(scripted: ScriptedDaemon, held: Held, *, lease_s: float = 30.0) -> AsyncIterator[ScriptedStream]:
    """Inside the block of `held`, which was granted at once: its stream."""

    async def grant() -> ScriptedStream:
        stream = await scripted.stream()
        stream.send(hold_update(HELD, "GRANTED", lease_s=lease_s))
        return stream

    granting = asyncio.create_task(grant())
    async with held:
        yield await granting


Body = Callable[[ScriptedStream], Awaitable[None]]


async def forever(stream: ScriptedStream) -> None:
    async with asyncio.timeout(20):
        await asyncio.Event().wait()


async def rely(
    scripted: ScriptedDaemon, held: Held, *updates: Message, body: Body = forever, lease_s: float = 30.0
) -> None:
    """A body that is told these updates."""
    async with granted(scripted, held, lease_s=lease_s) as stream:
        stream.send(*updates)
        await body(stream)


async def loss(
    scripted: ScriptedDaemon, held: Held, *updates: Message, body: Body = forever, lease_s: float = 30.0
) -> str:
    """The reason in the HoldLost that such a body's block raises."""
    with pytest.raises(HoldLost) as raised:
        await rely(scripted, held, *updates, body=body, lease_s=lease_s)
    return raised.value.metadata["reason"]


# The end of a hold


async def test_a_body_ends_with_its_hold(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """H5"""
    held = scripted_client.lock("/a")
    assert await loss(scripted, held, hold_update(LOST, "SESSION_LOST", lease_s=0)) == "SESSION_LOST"
    assert held.lost.is_set()
    assert await held.lost == "SESSION_LOST"
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_body_that_comes_to_its_end_after_the_loss_raises_too(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    async def finish_all_the_same(stream: ScriptedStream) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await forever(stream)

    update = hold_update(LOST, "NODE_DELETED", lease_s=0)
    assert await loss(scripted, scripted_client.lock("/a"), update, body=finish_all_the_same) == "NODE_DELETED"


async def test_an_outside_cancellation_goes_through_also_at_the_same_time(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    held = scripted_client.lock("/a")
    task = asyncio.create_task(rely(scripted, held, hold_update(LOST, "SESSION_LOST", lease_s=0)))
    await held.lost
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_body_may_choose_not_to_be_cancelled(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a", cancel_on_loss=False)
    async with granted(scripted, held) as stream:
        stream.send(hold_update(LOST, "SESSION_LOST", lease_s=0))
        assert await held.lost == "SESSION_LOST"
        assert not held.is_held()
        await asyncio.sleep(0)


async def test_a_lease_that_nobody_moves_ends_the_hold(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a")
    begun_s = now_s()
    assert await loss(scripted, held, lease_s=0.5) == "LEASE_OVER"
    assert now_s() - begun_s > 0.4
    assert scripted.released.empty()


async def test_the_daemon_may_say_why_the_lease_ended(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """H5"""

    async def say_why_at_the_end(stream: ScriptedStream) -> None:
        try:
            await forever(stream)
        finally:
            stream.send(hold_update(LOST, "HEARTBEAT_MISSED", lease_s=0))

    held = scripted_client.lock("/a")
    assert await loss(scripted, held, body=say_why_at_the_end, lease_s=0.2) == "HEARTBEAT_MISSED"


async def test_a_lease_that_is_moved_does_not_end(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a")
    async with granted(scripted, held, lease_s=0.2) as stream:
        stream.send(hold_update(HELD, "GRANTED", lease_s=30))
        await until(lambda: held.status.lease_boottime_ns != 0 and held.lease_left_s() > 0.5)
        await asyncio.sleep(0.3)  # the first lease is over
        assert held.is_held()


async def test_a_hold_that_is_asked_back_is_given_back(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """H5: lease 0 means let go now; leaving the block is the answer."""
    held = scripted_client.lock("/a")

    async def stop_in_order(stream: ScriptedStream) -> None:
        try:
            await forever(stream)
        finally:
            assert not held.is_held()
            assert scripted.released.empty(), "the body has its time to stop"

    update = hold_update(JEOPARDY, "DRAINED", lease_s=0)
    assert await loss(scripted, held, update, body=stop_in_order) == "DRAINED"
    assert await scripted.released.get() == "h1"


async def test_jeopardy_alone_ends_nothing(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """H5"""
    heard: asyncio.Queue[HoldState] = asyncio.Queue()
    held = scripted_client.lock("/a", on_update=lambda status: heard.put_nowait(status.state))
    async with granted(scripted, held) as stream:
        stream.send(hold_update(JEOPARDY, "CONNECTION_LOST", lease_s=5))
        assert [await heard.get(), await heard.get()] == [HoldState.HELD, HoldState.JEOPARDY]
        assert held.is_held()
        stream.send(hold_update(HELD, "RESUMED"))
        assert await heard.get() is HoldState.HELD


async def test_the_end_of_the_client_is_the_end_of_what_it_holds(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    async def close(stream: ScriptedStream) -> None:
        await scripted_client.close()
        await forever(stream)

    held = scripted_client.lock("/a")
    assert await loss(scripted, held, body=close) == "CLIENT_CLOSED"
    assert not held.is_held()


async def test_a_hold_is_entered_once(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a")
    async with granted(scripted, held):
        pass
    with pytest.raises(RuntimeError, match="once"):
        await held.__aenter__()


async def test_who_is_asked_to_let_go_is_told(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a", revocable=True)
    async with granted(scripted, held) as stream:
        assert not held.revoke_requested.is_set()
        stream.send(hold_update(HELD, "REVOKE_REQUESTED"))
        await held.revoke_requested.wait()
        assert held.is_held()


async def test_a_callback_that_raises_ends_nothing(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    told: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.put_nowait(context))

    def fail(status: HoldStatus) -> None:
        raise ZeroDivisionError

    held = scripted_client.lock("/a", on_update=fail)
    async with granted(scripted, held):
        assert isinstance((await told.get())["exception"], ZeroDivisionError)
        assert held.is_held()


# Waiting


async def test_entering_waits_for_its_turn(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """H7"""
    held = scripted_client.lock("/a", timeout_s=0.3)
    async with AsyncExitStack() as stack:
        entering = asyncio.create_task(stack.enter_async_context(held))
        stream = await scripted.stream()
        stream.send(hold_update(WAITING, "QUEUED", position=3))
        await until(lambda: scripted.asked >= 3)  # who waits has a pulse, so that the grant can be believed at once
        assert not entering.done(), "`timeout_s` bounds the first answer only"
        assert not held.is_held()
        assert held.status.position == 3
        stream.send(hold_update(HELD, "GRANTED"))
        await entering
        assert held.is_held()


async def test_what_is_granted_without_a_proof_of_life_waits_for_one(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """H1"""
    scripted.answers.clear()
    held = scripted_client.lock("/a")
    async with AsyncExitStack() as stack:
        entering = asyncio.create_task(stack.enter_async_context(held))
        stream = await scripted.stream()
        opened_s = now_s()
        stream.send(hold_update(WAITING, "QUEUED"))
        await until(lambda: now_s() - opened_s > BOUND_S + 0.1)
        stream.send(hold_update(HELD, "GRANTED"))
        await until(lambda: held.state is HoldState.HELD)
        assert not held.is_held()
        assert not entering.done()
        scripted.answers.set()
        await entering
        assert held.is_held()


async def test_who_has_waited_long_enough_is_told(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a", wait_timeout_s=5)
    entering = asyncio.create_task(held.__aenter__())
    stream = await scripted.stream()
    assert 4 < stream.request.wait_timeout.seconds + stream.request.wait_timeout.nanos / 1e9 <= 5
    stream.send(hold_update(WAITING, "QUEUED"), hold_update(RELEASED, "WAIT_TIMEOUT", lease_s=0))
    stream.end()
    with pytest.raises(WaitTimeout) as raised:
        await entering
    assert raised.value.reason == "WAIT_TIMEOUT"
    assert isinstance(raised.value, Unavailable)


async def test_a_try_is_over_at_once(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    entering = asyncio.create_task(scripted_client.lock("/a", wait_timeout_s=0).__aenter__())
    stream = await scripted.stream()
    assert stream.request.HasField("wait_timeout")
    stream.send(hold_update(RELEASED, "WAIT_TIMEOUT", lease_s=0))
    stream.end()
    with pytest.raises(WaitTimeout):
        await entering


async def test_a_daemon_that_forgets_the_time_is_not_waited_for(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    entering = asyncio.create_task(scripted_client.lock("/a", wait_timeout_s=0.2).__aenter__())
    stream = await scripted.stream()
    stream.send(hold_update(WAITING, "QUEUED"))
    with pytest.raises(WaitTimeout):
        await entering
    await asyncio.wait_for(stream.ended.wait(), 5)


async def test_who_waits_queues_again_when_the_stream_breaks(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a", wait_timeout_s=20)
    async with AsyncExitStack() as stack:
        entering = asyncio.create_task(stack.enter_async_context(held))
        stream = await scripted.stream()
        stream.send(hold_update(WAITING, "QUEUED"))
        await until(lambda: scripted.asked >= 1)  # it has heard that it waits
        await scripted.stop()
        await scripted.start()
        again = await scripted.stream()
        assert not again.request.resume_token, "a place in the queue is not kept"
        assert again.request.wait_timeout.seconds < 20, "only what is left of the time"
        again.send(hold_update(HELD, "GRANTED"))
        await entering
        assert held.is_held()


async def test_a_refusal_is_not_waited_for(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    entering = asyncio.create_task(scripted_client.lock("/a").__aenter__())
    stream = await scripted.stream()
    stream.send(hold_update(WAITING, "QUEUED"))
    stream.refuse(NoAuth("no"))
    with pytest.raises(NoAuth):
        await entering


async def test_a_cancelled_wait_ends_its_stream(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """H6"""
    entering = asyncio.create_task(scripted_client.lock("/a").__aenter__())
    stream = await scripted.stream()
    stream.send(hold_update(WAITING, "QUEUED"))
    await until(lambda: scripted.asked >= 1)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await asyncio.wait_for(stream.ended.wait(), 5)


async def test_a_daemon_that_says_nothing_is_given_up(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    with pytest.raises(DeadlineExceeded, match="given up"):
        async with scripted_client.lock("/a", timeout_s=0.2):
            raise AssertionError("it was not granted")


# Memberships: made again


async def test_a_membership_goes_on_in_a_new_session(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.join("/group", member_id="a")
    async with granted(scripted, held) as stream:
        stream.send(hold_update(LOST, "SESSION_LOST", lease_s=0))
        await until(lambda: not held.is_held())
        stream.send(hold_update(HELD, "CREATED", token=9))
        await until(held.is_held)
        assert held.fencing_token == 9
        assert not held.lost.is_set()


@pytest.mark.parametrize("reason", ["HEARTBEAT_MISSED", "NODE_DELETED", "TAKEN_OVER"])
async def test_a_membership_that_was_taken_away_is_lost(
    scripted: ScriptedDaemon, scripted_client: Client, reason: str
) -> None:
    held = scripted_client.join("/group", member_id="a")
    assert await loss(scripted, held, hold_update(LOST, reason, lease_s=0)) == reason

"""How long the SDK believes in what it holds (ADR 7), against a server that does what it is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc

from tests.client.parts.scripted import (
    HELD,
    ScriptedDaemon,
    hold_update,
)
from tests.client.test_holds_scripted import granted, last_believed_ns, now_s
from tests.parts.eventually import until
from zkside.client import Client, HoldState
from zkside.client.clock import now_ns
from zkside.client.pulse import BOUND_NS, INTERVAL_S, Pulse
from zkside.rpc.server import SERVER_OPTIONS

# The client's own lease (ADR 7)


def test_a_client_stops_believing_before_the_daemon_may_find_it_silent() -> None:
    """H1: of all that the daemon's gRPC goes by before it ends the stream of a process that is stopped."""
    options = dict(SERVER_OPTIONS)
    for name in ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        assert options[name] * 1_000_000 > BOUND_NS


async def test_a_daemon_that_is_silent_is_not_believed_in_for_long(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """H1"""
    held = scripted_client.lock("/a")
    async with granted(scripted, held):
        await until(lambda: scripted.asked >= 3)
        assert held.is_held()
        scripted.answers.clear()
        silent_ns = now_ns()
        assert await last_believed_ns(held) - silent_ns <= BOUND_NS
        assert held.lease_left_s() == 0
        assert held.state is HoldState.HELD
        assert not held.lost.is_set(), "it may come back before the lease is over"
        scripted.answers.set()
        await until(held.is_held)


async def test_the_first_answer_after_a_gap_proves_nothing() -> None:
    """H1: it may have come over a new connection, before this process has heard that the old one is gone."""
    asked: asyncio.Queue[None] = asyncio.Queue()
    answers: asyncio.Queue[bool] = asyncio.Queue()

    async def ask() -> bool:
        asked.put_nowait(None)
        return await answers.get()

    async def answer(answered: bool) -> None:
        await asked.get()
        answers.put_nowait(answered)

    pulse = Pulse(ask)
    pulse.join()
    pulse.hurry()
    await answer(True)
    await answer(True)
    await asked.get()
    before_ns = pulse.proof_ns
    assert before_ns > 0
    await until(lambda: now_ns() - before_ns > BOUND_NS)  # stopped, in the middle of a call
    answers.put_nowait(False)
    await answer(True)
    await asked.get()
    assert pulse.proof_ns == before_ns
    answers.put_nowait(True)
    await asked.get()
    assert pulse.proof_ns > before_ns + BOUND_NS
    await pulse.close()


async def test_a_short_hold_costs_no_call_more(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    held = scripted_client.lock("/a")
    async with granted(scripted, held):
        assert held.is_held()
    assert scripted.asked == 0


async def test_many_holds_have_one_pulse(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    holds = [scripted_client.lock("/a") for _ in range(20)]
    async with AsyncExitStack() as stack:
        for held in holds:
            await stack.enter_async_context(granted(scripted, held))
        await until(lambda: scripted.asked >= 2)
        begun_s, asked = now_s(), scripted.asked
        await until(lambda: scripted.asked >= asked + 3)
        assert now_s() - begun_s > 2 * INTERVAL_S - 0.1
        assert all(held.is_held() for held in holds)


async def test_nothing_is_held_once_it_is_being_released(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """H1"""
    held = scripted_client.lock("/a")
    scripted.releases.clear()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(granted(scripted, held))
        leaving = asyncio.create_task(stack.aclose())
        assert await scripted.released.get() == "h1"
        assert not held.is_held()
        scripted.releases.set()
        await leaving
    assert not held.lost.is_set()


async def test_without_a_grace_nothing_is_held_by_a_broken_stream(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """H1: the daemon may be the one that ended it, and has released by now."""
    held = scripted_client.lock("/a")
    async with granted(scripted, held) as stream:
        stream.end(grpc.StatusCode.UNAVAILABLE)
        again = await scripted.stream()
        assert again.request.resume_token == "secret"
        assert not held.is_held()
        again.send(hold_update(HELD, "RESUMED"))
        await until(held.is_held)


async def test_with_a_grace_a_broken_stream_is_believed_in_for_as_long(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    held = scripted_client.lock("/a", reconnect_grace_s=1.0)
    async with granted(scripted, held) as stream:
        broken_ns = now_ns()
        stream.end(grpc.StatusCode.UNAVAILABLE)
        await scripted.stream()
        assert held.is_held()
        assert await last_believed_ns(held) - broken_ns <= 1_000_000_000


async def test_a_belief_that_had_run_out_does_not_come_back_by_the_end_of_the_stream(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """H1: also with a long grace, a process that was stopped believes in nothing before it was taken up."""
    held = scripted_client.lock("/a", reconnect_grace_s=60)
    async with granted(scripted, held) as stream:
        await until(lambda: scripted.asked >= 2)
        scripted.answers.clear()
        await until(lambda: not held.is_held())
        stream.end(grpc.StatusCode.UNAVAILABLE)
        again = await scripted.stream()
        assert not held.is_held()
        again.send(hold_update(HELD, "RESUMED"))
        await until(held.is_held)

"""What cannot share a path: refused where zkside sees it, shown where it cannot (docs/interop.md)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import grpc
import pytest

from tests.interop.conftest import Contend
from tests.interop.contest import Crew, Stage, curator, kazoo, running, wait_ended, zkside
from tests.interop.referee import Referee
from tests.interop.zkside_contender import opening, until_held

pytestmark = pytest.mark.interop


async def test_the_referee_catches_two_who_do_not_see_each_other(contend: Contend) -> None:
    """The overlap detector can fail: kazoo's own Lock and Curator's mutex take no notice of each other."""
    ledger = await contend(curator("mutex"), kazoo("lock"))
    assert ledger.overlaps


@pytest.mark.parametrize(
    "crews",
    [
        (curator("mutex"), zkside("shared:CURATOR")),
        (curator("mutex"), curator("write")),
        (kazoo("lock"), zkside("shared:KAZOO")),
    ],
    ids=[
        "readers and InterProcessMutex",
        "InterProcessMutex and InterProcessReadWriteLock",
        "readers and kazoo's Lock",
    ],
)
async def test_what_the_other_library_takes_no_notice_of(contend: Contend, crews: tuple[Crew, ...]) -> None:
    """Why docs/interop.md says not to mix these: they overlap, and zkside cannot see it from outside."""
    ledger = await contend(*crews, grants=1000)
    assert ledger.overlaps


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (curator("latch"), "election:LOCK"),
        (curator("latch"), "election:KAZOO"),
        (curator("latch"), "lock:CURATOR"),
        (curator("selector"), "election:LATCH"),
        (curator("selector"), "election:KAZOO"),
        (curator("mutex"), "lock:KAZOO"),
        (curator("mutex"), "lock:CURATOR_READ_WRITE"),
        (curator("write"), "lock:CURATOR"),
        (kazoo("lock"), "lock:CURATOR"),
        (kazoo("election"), "election:LATCH"),
    ],
    ids=str,
)
async def test_another_layout_on_the_path_is_refused(stage: Stage, path: str, first: Crew, second: str) -> None:
    """H8: who comes with names that the others do not queue by is told so, and gets nothing."""
    async with (
        Referee(contenders=first.size, grants=1_000_000) as referee,
        running(str(first), stage.command(first, path, referee.port)),
        grpc.aio.insecure_channel(stage.daemons[0]) as channel,
    ):
        # By then all of them queue.
        await referee.wait_grants(2 * first.size)
        stream = opening(second, path, channel)("intruder")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await until_held(stream)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "layout" in (refused.value.details() or "")
        before = referee.ledger.grants.total()
        await referee.wait_grants(before + 2 * first.size)
        assert referee.ledger.overlaps == []


async def test_intruders_do_no_harm(stage: Stage, path: str) -> None:
    """H1, H8: while somebody tries other layouts again and again, those who belong there are served as ever."""
    crews = curator("mutex"), zkside("lock:CURATOR")
    refusals = 0

    async def intrude(channel: grpc.aio.Channel) -> None:
        nonlocal refusals
        for recipe in itertools.cycle(("lock:CURATOR_READ_WRITE", "election:LATCH", "lock:KAZOO")):
            with pytest.raises(grpc.aio.AioRpcError, match="layout"):
                await until_held(opening(recipe, path, channel)("intruder"))
            refusals += 1

    async with (
        Referee(contenders=6, grants=1000) as referee,
        contextlib.AsyncExitStack() as stack,
        grpc.aio.insecure_channel(stage.daemons[0]) as channel,
    ):
        started = [
            await stack.enter_async_context(running(str(crew), stage.command(crew, path, referee.port)))
            for crew in crews
        ]
        # From the second round on, until shortly before the end, the path is never empty.
        await referee.wait_grants(12)
        intruder = asyncio.create_task(intrude(channel))
        await referee.wait_grants(900)
        intruder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await intruder
        await wait_ended(referee, started, within_s=30.0)
    assert refusals > 50
    assert referee.ledger.overlaps == []
    assert referee.ledger.disorders == []

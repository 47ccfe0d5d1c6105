"""What cannot share a path: refused where zkside sees it, shown where it cannot (docs/interop.md)."""

from __future__ import annotations

import grpc
import pytest

from tests.interop.conftest import Contend
from tests.interop.contest import Crew, Stage, curator, kazoo, running, zkside
from tests.interop.referee import Referee
from tests.interop.zkside_contender import opening, until_held

pytestmark = pytest.mark.interop


async def test_the_referee_catches_two_who_do_not_see_each_other(contend: Contend) -> None:
    """The overlap detector can fail: kazoo's own Lock and Curator's mutex take no notice of each other."""
    ledger = await contend(curator("mutex"), kazoo("lock"))
    assert ledger.overlaps


async def test_curators_mutex_takes_no_notice_of_readers(contend: Contend) -> None:
    """Why docs/interop.md says to use no SHARED where InterProcessMutex is: they overlap."""
    ledger = await contend(curator("mutex"), zkside("shared:CURATOR"))
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

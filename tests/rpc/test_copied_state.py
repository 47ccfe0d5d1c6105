"""Two daemons on copies of one state directory, and a third host that contends for what the first holds."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.rpc.host import Host
from tests.rpc.test_lock import Seeker
from zkside.model.session import SessionState
from zkside.pb.hold_pb2 import HOLD_STATE_HELD, HOLD_STATE_WAITING, ReleaseRequest
from zkside.recipes.holds import HoldSettings
from zkside.zk.journal import Journal

GRACE_S = 0.3


@pytest.mark.parametrize("is_journalled", [True, False], ids=["copied with the lock", "copied before the lock"])
async def test_a_daemon_on_a_copy_has_a_session_of_its_own_and_the_first_goes_on_undisturbed(
    hosts: str, short_path: Path, stock_client: KazooClient, caplog: pytest.LogCaptureFixture, is_journalled: bool
) -> None:
    """H1, S5: they took the session from each other, and after its grace the second deleted the first's lock."""
    for name in "abc":
        (short_path / name).mkdir()
    state = short_path / "state"
    first = Host(hosts, short_path / "a", journal=Journal.open(state, hosts))
    third = Host(hosts, short_path / "c")
    async with first, third, first.stubs() as owner, third.stubs() as other:
        if not is_journalled:
            shutil.copytree(state, short_path / "copy")
        holder = Seeker(owner)
        held = await holder.until(HOLD_STATE_HELD)
        if is_journalled:
            shutil.copytree(state, short_path / "copy")
        waiter = Seeker(other)
        await waiter.until(HOLD_STATE_WAITING)
        before = first.session.statistics()
        journal = Journal.open(short_path / "copy", hosts)
        assert "the journal is a copy" in caplog.text
        assert journal.statistics().set_aside == 1
        second = Host(hosts, short_path / "b", journal=journal, hold_settings=HoldSettings(reclaim_grace_s=GRACE_S))
        async with second:
            assert second.session.status.session_id not in (0, before.status.session_id)
            assert len(second.holds) == 0
            granted = asyncio.ensure_future(waiter.until(HOLD_STATE_HELD))
            await asyncio.wait([granted], timeout=GRACE_S + 1.0)
            assert not granted.done(), "while its owner believes in it"
            now = first.session.statistics()
            assert (now.status.session_id, now.status.state) == (before.status.session_id, SessionState.CONNECTED)
            assert now.transitions == before.transitions, "nobody took its session"
            assert stock_client.exists(held.hold.path).czxid == held.hold.fencing_token
            await owner.hold.Release(ReleaseRequest(hold_id=held.hold.hold_id))
            assert (await granted).hold.fencing_token > held.hold.fencing_token

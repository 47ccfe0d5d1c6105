"""What zkside tells about others' contenders, and what others tell about zkside's (H8)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest

from tests.interop.contest import Crew, Stage, curator, java, kazoo, running, zkside
from tests.interop.referee import Referee
from tests.interop.zkside_contender import until_held
from zkside.pb import election_pb2, election_pb2_grpc, hold_pb2, lock_pb2, lock_pb2_grpc

pytestmark = pytest.mark.interop


async def participants(stage: Stage, recipe: str, path: str) -> Any:
    pipe = asyncio.subprocess.PIPE
    command = (*java(), "participants", recipe, stage.hosts, path)
    async with running("curator participants", command, stdout=pipe) as asked:
        answer, _ = await asked.process.communicate()
        assert asked.process.returncode == 0, asked.told()
        return json.loads(answer)


@pytest.mark.parametrize(
    "crew",
    [curator("latch", 1), curator("selector", 1), kazoo("election", 1), zkside("election:LATCH", 1, host=2)],
    ids=str,
)
async def test_zkside_tells_who_leads(stage: Stage, path: str, crew: Crew) -> None:
    """H8: by asking and by observing, whoever programmed the leader; its id, or what it is called in its node."""
    [name] = crew.names
    async with (
        Referee(contenders=1, grants=1, detained={name}) as referee,
        grpc.aio.insecure_channel(stage.daemons[0]) as channel,
    ):
        elections: Any = election_pb2_grpc.ElectionServiceStub(channel)
        observed = elections.Observe(election_pb2.ObserveRequest(path=path))
        assert not (await observed.read()).HasField("leader")
        async with running(str(crew), stage.command(crew, path, referee.port)):
            await referee.wait_inside(name)
            answer = await elections.GetLeader(election_pb2.GetLeaderRequest(path=path))
            assert answer.leader.value == name.encode()
            assert [one.is_holder for one in answer.contenders] == [True]
            assert (await observed.read()).leader == answer.leader
        assert not (await observed.read()).HasField("leader")


@pytest.mark.parametrize("recipe", ["latch", "selector"])
async def test_curator_tells_who_leads_through_zkside(stage: Stage, path: str, recipe: str) -> None:
    """H8: the ids of the leader and of who waits."""
    layout = "LATCH" if recipe == "latch" else "LOCK"
    first, second = zkside(f"election:{layout}", 1), zkside(f"election:{layout}", 1, host=2)
    [leader], [other] = first.names, second.names
    async with (
        Referee(contenders=1, grants=1, detained={leader}) as referee,
        running(str(first), stage.command(first, path, referee.port)),
        grpc.aio.insecure_channel(stage.daemons[1]) as channel,
    ):
        await referee.wait_inside(leader)
        elections: Any = election_pb2_grpc.ElectionServiceStub(channel)
        standing = election_pb2.ElectionLayout.Value(f"ELECTION_LAYOUT_{layout}")
        stream = elections.Campaign(election_pb2.CampaignRequest(path=path, candidate_id=other, layout=standing))
        assert (await stream.read()).state == hold_pb2.HOLD_STATE_WAITING
        assert await participants(stage, recipe, path) == {"leader": leader, "all": sorted([leader, other])}
        stream.cancel()


async def test_curators_revoker_reaches_a_revocable_hold(stage: Stage, path: str) -> None:
    """H8: the holder is told, goes on holding, and lets go when it likes."""
    async with grpc.aio.insecure_channel(stage.daemons[0]) as channel:
        locks: Any = lock_pb2_grpc.LockServiceStub(channel)
        stream = locks.Acquire(lock_pb2.AcquireRequest(path=path, mode=lock_pb2.LOCK_MODE_EXCLUSIVE, revocable=True))
        hold = await until_held(stream)
        async with running("curator revoke", (*java(), "revoke", stage.hosts, path)) as asked:
            assert await asked.process.wait() == 0, asked.told()
        async for update in stream:
            assert update.state == hold_pb2.HOLD_STATE_HELD
            assert update.hold.hold_id == hold.hold_id
            if update.reason == "REVOKE_REQUESTED":
                break
        stream.cancel()

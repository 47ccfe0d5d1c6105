"""Elections, on real ZooKeeper."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Host, Stubs, failure
from tests.rpc.test_hold import update
from zkside.pb.election_pb2 import (
    ELECTION_LAYOUT_KAZOO,
    ELECTION_LAYOUT_LOCK,
    CampaignRequest,
    GetLeaderRequest,
    ObserveRequest,
    ObserveResponse,
    ProclaimRequest,
)
from zkside.pb.hold_pb2 import HOLD_STATE_HELD, HOLD_STATE_RELEASED, HOLD_STATE_WAITING, HoldUpdate, ReleaseRequest
from zkside.pb.lock_pb2 import AcquireRequest

UNKNOWN: Any = 99


async def state(stream: Any, wanted: int) -> HoldUpdate:
    while (heard := await update(stream)).state != wanted:
        pass
    return heard


async def leader(stream: Any) -> ObserveResponse:
    async with asyncio.timeout(PATIENCE_S):
        heard: ObserveResponse = await stream.read()
        return heard


async def test_the_first_candidate_leads_and_the_next_follows(client: Stubs, stock_client: KazooClient) -> None:
    """H1, H2, H5: Curator's latch by default."""
    first = client.election.Campaign(CampaignRequest(path="/e", candidate_id="a"))
    leading = await state(first, HOLD_STATE_HELD)
    assert stock_client.get(leading.hold.path)[0] == b"a"
    assert "-latch-" in leading.hold.path
    second = client.election.Campaign(CampaignRequest(path="/e", candidate_id="b"))
    assert (await state(second, HOLD_STATE_WAITING)).position == 0
    first.cancel()
    assert (await state(second, HOLD_STATE_HELD)).hold.fencing_token > leading.hold.fencing_token


async def test_observers_hear_of_every_leader_and_of_its_value(client: Stubs, stock_client: KazooClient) -> None:
    observed = client.election.Observe(ObserveRequest(path="/e"))
    assert not (await leader(observed)).HasField("leader")
    first = client.election.Campaign(CampaignRequest(path="/e", value=b"a:1"))
    leading = await state(first, HOLD_STATE_HELD)
    heard = await leader(observed)
    assert (heard.leader.value, heard.leader.fencing_token) == (b"a:1", leading.hold.fencing_token)
    second = client.election.Campaign(CampaignRequest(path="/e", value=b"b:1"))
    await state(second, HOLD_STATE_WAITING)
    await client.election.Proclaim(ProclaimRequest(hold_id=leading.hold.hold_id, value=b"a:2"))
    heard = await leader(observed)
    assert (heard.leader.value, heard.leader.fencing_token) == (b"a:2", leading.hold.fencing_token)
    await client.hold.Release(ReleaseRequest(hold_id=leading.hold.hold_id))
    assert (await leader(observed)).leader.value == b"b:1"
    second.cancel()
    assert not (await leader(observed)).HasField("leader")


async def test_observers_are_told_when_what_they_know_may_be_old(
    shaky_client: Stubs, shaky_host: Host, proxy: Proxy
) -> None:
    leading = shaky_client.election.Campaign(CampaignRequest(path="/e", value=b"a"))
    await state(leading, HOLD_STATE_HELD)
    observed = shaky_client.election.Observe(ObserveRequest(path="/e"))
    assert not (await leader(observed)).header.stale
    proxy.refuse()
    proxy.cut()
    stale = await leader(observed)
    assert (stale.header.stale, stale.leader.value) == (True, b"a")
    proxy.accept()
    while (heard := await leader(observed)).header.stale:
        pass
    assert not heard.header.stale


async def test_the_leader_is_listed_before_those_who_wait(client: Stubs) -> None:
    assert not (await client.election.GetLeader(GetLeaderRequest(path="/e"))).HasField("leader")
    streams = []
    for name in ("a", "b", "c"):
        streams.append(client.election.Campaign(CampaignRequest(path="/e", candidate_id=name)))
        await state(streams[-1], HOLD_STATE_WAITING if len(streams) > 1 else HOLD_STATE_HELD)
    answer = await client.election.GetLeader(GetLeaderRequest(path="/e"))
    assert answer.leader.value == b"a"
    assert [(each.value, each.is_holder) for each in answer.contenders] == [(b"a", True), (b"b", False), (b"c", False)]


@pytest.mark.parametrize(("layout", "name"), [(ELECTION_LAYOUT_LOCK, "-lock-"), (ELECTION_LAYOUT_KAZOO, "__lock__")])
async def test_each_layout_has_its_names_and_they_are_not_mixed(client: Stubs, layout: Any, name: str) -> None:
    """H8."""
    held = await state(client.election.Campaign(CampaignRequest(path="/e", layout=layout)), HOLD_STATE_HELD)
    assert name in held.hold.path
    refused = await failure(client.election.Campaign(CampaignRequest(path="/e")))
    assert (refused.reason, refused.fields) == ("INVALID_ARGUMENT", ("layout",))


async def test_only_a_leader_proclaims(client: Stubs, stock_client: KazooClient) -> None:
    first = client.election.Campaign(CampaignRequest(path="/e"))
    leading = await state(first, HOLD_STATE_HELD)
    waiting = await state(client.election.Campaign(CampaignRequest(path="/e")), HOLD_STATE_WAITING)
    refused = await failure(client.election.Proclaim(ProclaimRequest(hold_id=waiting.hold.hold_id)))
    assert refused.reason == "HOLD_LOST"
    locked = await state(client.lock.Acquire(AcquireRequest(path="/lock")), HOLD_STATE_HELD)
    refused = await failure(client.election.Proclaim(ProclaimRequest(hold_id=locked.hold.hold_id)))
    assert refused.fields == ("hold_id",)
    stock_client.delete(leading.hold.path)
    refused = await failure(client.election.Proclaim(ProclaimRequest(hold_id=leading.hold.hold_id)))
    assert refused.reason == "HOLD_LOST"


async def test_a_candidate_can_stand_for_a_while_only(client: Stubs) -> None:
    first = client.election.Campaign(CampaignRequest(path="/e"))
    await state(first, HOLD_STATE_HELD)
    once = client.election.Campaign(CampaignRequest(path="/e", wait_timeout=Duration()))
    assert (await state(once, HOLD_STATE_RELEASED)).reason == "WAIT_TIMEOUT"


async def test_a_layout_that_is_unknown_is_refused(client: Stubs) -> None:
    """O1."""
    refused = await failure(client.election.Campaign(CampaignRequest(path="/e", layout=UNKNOWN)))
    assert refused.fields == ("layout",)

"""Candidates in an election, each a process of its own: zkside's, and kazoo's Election.

Each says when it came to lead, on the host's monotonic clock; told anything, it says when it resigned, and stands
again.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from bench.crew import Link
from zkside.pb import election_pb2, election_pb2_grpc, hold_pb2, hold_pb2_grpc


def stand_with_zkside(link: Link, address: str, path: str) -> None:
    """Work: a candidate through the daemon."""

    async def resign(holds: Any, hold_id: str) -> None:
        await link.heard()
        sent = time.monotonic_ns()
        released = holds.Release(hold_pb2.ReleaseRequest(hold_id=hold_id))
        link.say(sent)
        await released

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
            elections = election_pb2_grpc.ElectionServiceStub(channel)
            holds = hold_pb2_grpc.HoldServiceStub(channel)
            while True:
                leading = False
                async for update in elections.Campaign(election_pb2.CampaignRequest(path=path)):
                    if update.state == hold_pb2.HOLD_STATE_HELD and not leading:
                        leading = True
                        link.say(time.monotonic_ns())
                        tasks.create_task(resign(holds, update.hold.hold_id))
                    assert update.state != hold_pb2.HOLD_STATE_LOST, update

    asyncio.run(run())


def stand_with_kazoo(link: Link, hosts: str, path: str, timeout_s: float) -> None:
    """Work: a candidate with a ZooKeeper session of its own."""
    from kazoo.client import KazooClient

    def lead() -> None:
        link.say(time.monotonic_ns())
        link.hear()
        link.say(time.monotonic_ns())

    client = KazooClient(hosts, timeout=timeout_s)
    client.start(timeout=30)
    election = client.Election(path, f"pid {time.monotonic_ns()}")
    while True:
        election.run(lead)

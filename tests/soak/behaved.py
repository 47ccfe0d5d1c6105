"""The well-behaved client: python -m tests.soak.behaved ADDRESS SECONDS. Prints a JSON line for each call that it made.

It uses the Python SDK for reads, writes, a watch and a lock that it holds throughout, and a raw stub of gRPC beside it.
A line: `[kind, when it began, seconds that it took, how it ended]`, the end "" or what the error says: its reason, or
`CODE without a reason`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from tests.soak.abuse.task import ROOT
from zkside.client import Client, Consistency
from zkside.client.event import Changes, WatchEvent
from zkside.errors import HoldLost, NodeExists, ZksideError
from zkside.pb import node_pb2
from zkside.pb.node_pb2_grpc import NodeServiceStub

EVERY_S = 0.1
LOOK_S = 0.02
TIMEOUT_S = 10.0
NODE = f"{ROOT}/behaved"
CACHED, SERVER, SET, WATCH, RAW, LOCK = "get cached", "get server", "set", "watch", "raw get", "lock"


def note(kind: str, began_s: float, took_s: float, end: str = "") -> None:
    print(json.dumps([kind, round(began_s, 4), round(took_s, 5), end]), flush=True)


def end_of(error: grpc.RpcError) -> str:
    """The reason in its ErrorInfo; the code where it has none."""
    trailers: Any = error.trailing_metadata()
    for key, value in trailers or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return f"{error.code().name} without a reason"


class Behaved:
    """Calls on a fixed beat: one that is late does not hide those that would have come meanwhile."""

    def __init__(self, address: str, until_s: float) -> None:
        self._address = address
        self._until_s = until_s

    async def run(self) -> None:
        async with (
            Client(self._address, timeout_s=TIMEOUT_S) as client,
            grpc.aio.insecure_channel(self._address) as channel,
        ):
            with contextlib.suppress(NodeExists):
                await client.create(NODE, b"", wait_for_ready=True)
            raw: Any = NodeServiceStub(channel)
            options = node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_SERVER)
            request = node_pb2.GetRequest(path=NODE, options=options)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                CACHED: lambda: client.get(NODE, consistency=Consistency.CACHED),
                SERVER: lambda: client.get(NODE),
                SET: lambda: client.set(NODE, repr(time.monotonic()).encode()),
                RAW: lambda: raw.Get(request, timeout=TIMEOUT_S),
            }
            async with client.watch(NODE, on_change=_seen), asyncio.TaskGroup() as group:
                group.create_task(self._hold(client))
                for kind, call in calls.items():
                    group.create_task(self._beat(group, kind, call))

    async def _beat(self, group: asyncio.TaskGroup, kind: str, call: Callable[[], Awaitable[object]]) -> None:
        due_s = time.monotonic()
        while due_s < self._until_s:
            group.create_task(_timed(kind, call))
            due_s += EVERY_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _hold(self, client: Client) -> None:
        """Notes each time when the lock is not held, or lost; then it is taken again."""
        while time.monotonic() < self._until_s:
            began_s = time.monotonic()
            try:
                async with client.lock(f"{ROOT}/lock", wait_timeout_s=TIMEOUT_S) as held:
                    note(LOCK, began_s, time.monotonic() - began_s)
                    believes = True
                    while time.monotonic() < self._until_s:
                        if held.is_held() is not believes:
                            believes = not believes
                            note(LOCK, time.monotonic(), 0.0, "" if believes else "is_held() is false")
                        await asyncio.sleep(LOOK_S)
            except HoldLost as lost:
                note(LOCK, time.monotonic(), 0.0, f"lost: {lost.metadata.get('reason')}")
            except ZksideError as error:
                note(LOCK, began_s, time.monotonic() - began_s, f"not granted: {error.reason}")
                await asyncio.sleep(EVERY_S)


async def _timed(kind: str, call: Callable[[], Awaitable[object]]) -> None:
    began_s, end = time.monotonic(), ""
    try:
        await call()
    except grpc.RpcError as error:
        end = end_of(error)
    except ZksideError as error:
        # What the SDK made of it is not what is judged here.
        end = end_of(error.__context__) if isinstance(error.__context__, grpc.RpcError) else error.reason
    note(kind, began_s, time.monotonic() - began_s, end)


def _seen(event: WatchEvent) -> None:
    """A Set carries the moment when it was sent."""
    if isinstance(event, Changes):
        for change in event.changes:
            if change.node is not None and change.node.data:
                sent_s = float(change.node.data)
                note(WATCH, sent_s, time.monotonic() - sent_s)


if __name__ == "__main__":
    address, seconds = sys.argv[1:]
    asyncio.run(Behaved(address, time.monotonic() + float(seconds)).run())

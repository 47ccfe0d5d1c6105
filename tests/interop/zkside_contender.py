"""zkside's recipes as a process: `python -m tests.interop.zkside_contender RECIPE ADDRESS PATH REFEREE-PORT NAME...`.

RECIPE is lock:LAYOUT, shared:LAYOUT, semaphore:PERMITS or election:LAYOUT. Written on the generated stubs, as
somebody would whose language has no SDK; so it is a second, independent client of the daemon. Every name is a
contender with streams and a line to the referee of its own. Ends with 0 when all went as it should.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc

from tests.interop.referee import Line
from zkside.pb import election_pb2, election_pb2_grpc, hold_pb2, hold_pb2_grpc, lock_pb2, lock_pb2_grpc

Open = Callable[[str], Any]
"""Opens the stream of one turn, in the name of a contender."""


def opening(recipe: str, path: str, channel: grpc.aio.Channel) -> Open:
    kind, _, detail = recipe.partition(":")
    locks: Any = lock_pb2_grpc.LockServiceStub(channel)
    elections: Any = election_pb2_grpc.ElectionServiceStub(channel)
    match kind:
        case "lock" | "shared":
            mode = lock_pb2.LOCK_MODE_SHARED if kind == "shared" else lock_pb2.LOCK_MODE_EXCLUSIVE
            layout = lock_pb2.LockLayout.Value(f"LOCK_LAYOUT_{detail}")
            return lambda name: locks.Acquire(lock_pb2.AcquireRequest(path=path, mode=mode, layout=layout, owner=name))
        case "semaphore":
            return lambda name: locks.Acquire(
                lock_pb2.AcquireRequest(path=path, mode=lock_pb2.LOCK_MODE_SEMAPHORE, permits=int(detail), owner=name)
            )
        case "election":
            standing = election_pb2.ElectionLayout.Value(f"ELECTION_LAYOUT_{detail}")
            return lambda name: elections.Campaign(
                election_pb2.CampaignRequest(path=path, candidate_id=name, layout=standing)
            )
        case _:
            raise ValueError(recipe)


async def until_held(updates: AsyncIterator[hold_pb2.HoldUpdate]) -> hold_pb2.Hold:
    async for update in updates:
        if update.state == hold_pb2.HOLD_STATE_HELD:
            return update.hold
        assert update.state == hold_pb2.HOLD_STATE_WAITING, update
    raise AssertionError("the stream ended before it was granted")


async def contend(open_stream: Open, channel: grpc.aio.Channel, name: str, line: Line, *, numbered: bool) -> None:
    """Turn by turn until the referee says that it is over; gives back by Release and by ending the stream, in turn."""
    holds: Any = hold_pb2_grpc.HoldServiceStub(channel)
    on = True
    for number in itertools.count():
        if not on:
            return
        stream = open_stream(name)
        hold = await until_held(stream)
        on = await line.turn(str(int(hold.path[-10:])) if numbered else "-")
        if number % 2:
            stream.cancel()
            continue
        answer = await holds.Release(hold_pb2.ReleaseRequest(hold_id=hold.hold_id))
        assert answer.released, "it was gone before it was given back"
        async for update in stream:
            assert update.state in (hold_pb2.HOLD_STATE_HELD, hold_pb2.HOLD_STATE_RELEASED), update


async def run(recipe: str, address: str, path: str, referee_port: int, names: Sequence[str]) -> None:
    async def one(name: str) -> None:
        async with Line(referee_port, name, shared=recipe.startswith("shared")) as line:
            # Permits of a semaphore are not granted in the order of their nodes' numbers alone.
            await contend(open_stream, channel, name, line, numbered=not recipe.startswith("semaphore"))

    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as contenders:
        open_stream = opening(recipe, path, channel)
        for name in names:
            contenders.create_task(one(name))


def main(arguments: Sequence[str]) -> None:
    recipe, address, path, referee_port, *names = arguments
    asyncio.run(run(recipe, address, path, int(referee_port), names))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Whatever two sessions do, ZooKeeper in process answers and tells the same as a real one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.contract.strategies import PATHS, operations
from tests.contract.world import MemoryWorld, Peer, RealWorld, World
from tests.parts.proxy import Proxy
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.errors import ZksideError
from zkside.model import record
from zkside.model.operation import (
    AddWatch,
    Create,
    Created,
    CreateMode,
    Exists,
    GetAcl,
    GetChildren,
    GetEphemerals,
    Operation,
    TransactionResult,
)
from zkside.model.stat import Stat

AUTH = (("digest", "ann:secret"),)

BEGINNING: list[tuple[int, Operation[Any]]] = [
    (0, Create("/a", b"x")),
    (1, Create("/b")),
    (0, Create("/a/a")),
    (1, Create("/a/a/a", mode=CreateMode.EPHEMERAL)),
    (0, AddWatch("/a", recursive=True)),
    (0, AddWatch("/b")),
    (1, AddWatch("/", recursive=True)),
    (1, AddWatch("/a")),
]

_numbers = itertools.count()


class Trace:
    """What happened, in terms that do not depend on the server: zxids by rank, owners by number."""

    def __init__(self, peers: list[Peer]) -> None:
        self._owners = {0: 0} | {peer.ticket.session_id: number for number, peer in enumerate(peers, 1)}
        self._zxids: set[int] = set()
        self._steps: list[Any] = []

    def note(self, operation: Operation[Any], zxid: int, value: object) -> None:
        self._steps.append((operation, self._plain(value, operation), ("zxid", zxid)))

    def note_events(self, events: list[Any], *, in_order: bool = True) -> None:
        heard = [(event.type.name, event.path) for event in events]
        self._steps.append(heard if in_order else sorted(heard))

    def _plain(self, value: object, operation: Operation[Any]) -> object:
        match value:
            case ZksideError():
                return type(value)
            case Stat():
                owner = self._owners[value.ephemeral_owner]
                zxids = [("zxid", zxid) for zxid in (value.czxid, value.mzxid, value.pzxid)]
                return value._replace(czxid=0, mzxid=0, pzxid=0, ctime=0, mtime=0, ephemeral_owner=owner), zxids
            case bytes():
                return record.data(value), self._plain(record.stat(value), operation)
            case Created(path, stat):
                return path, self._plain(stat, operation)
            case TransactionResult(committed, results):
                # Whether a create inside a transaction tells its Stat depends on the release.
                made = [result.path if isinstance(result, Created) else result for result in results]
                return committed, [self._plain(result, operation) for result in made]
            case tuple():
                return [self._plain(part, operation) for part in value]
            case list() if isinstance(operation, GetChildren | GetEphemerals) or all(
                isinstance(part, str) for part in value
            ):
                return sorted(value)
            case list():
                return [self._plain(part, operation) for part in value]
        return value

    def read(self) -> list[Any]:
        """Zxids become ranks among all that were seen."""
        found: set[int] = set()

        def collect(part: Any) -> None:
            if isinstance(part, tuple) and part and part[0] == "zxid":
                found.add(part[1])
            elif isinstance(part, tuple | list):
                for inner in part:
                    collect(inner)

        collect(self._steps)
        ranks = {zxid: rank for rank, zxid in enumerate(sorted(found))}

        def ranked(part: Any) -> Any:
            if isinstance(part, tuple) and part and part[0] == "zxid":
                return ("zxid", ranks[part[1]])
            if isinstance(part, tuple | list):
                return [ranked(inner) for inner in part]
            return part

        return [ranked(step) for step in self._steps]


async def run(world: World, script: list[tuple[int, Operation[Any]]]) -> list[Any]:
    below = f"/example-{next(_numbers)}"
    peers = [Peer(), Peer()]
    top = Peer()
    top.connection = world.connector()(top, None)
    top.connection.start()
    await top.wait_for("connected")
    await top.do(Create(below))
    for peer, auth in zip(peers, ((), AUTH), strict=True):
        peer.connection = world.connector(below=below, auth=auth)(peer, None)
        peer.connection.start()
        await peer.wait_for("connected")
    try:
        trace = Trace(peers)
        dump = [(1, operation) for path in PATHS for operation in (Exists(path), GetAcl(path), GetChildren(path))]
        for who, operation in (*BEGINNING, *script, *dump):
            try:
                reply = await peers[who].ask(operation)
            except ZksideError as error:
                trace.note(operation, 0, error)
            else:
                trace.note(operation, reply.zxid, reply.value)
        for peer in peers:
            await peer.catch_up()
            trace.note_events(peer.all("event"))
        heard = len(peers[0].all("event"))
        await peers[1].connection.close(within_s=10)
        await peers[0].catch_up()
        # In which order a closing session's nodes go is nobody's business.
        trace.note_events(peers[0].all("event")[heard:], in_order=False)
        trace.note(Exists("/"), 0, await peers[0].do(Exists("/")))
        return trace.read()
    finally:
        for peer in (top, *peers):
            await peer.connection.close(within_s=10)


@pytest.fixture
def server_to_itself(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """Nobody else uses its zxids: no other test's containers are swept while one script runs."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=200) as server:
        yield server


# Of kazoo's threads, which have nothing to do with the strategies.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@settings(
    max_examples=60,
    deadline=None,
    # Each try costs 100 round trips to a real server: shrinking would take minutes.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=st.lists(st.tuples(st.sampled_from((0, 1)), operations), min_size=5, max_size=40))
def test_memory_and_real_zookeeper_are_not_to_be_told_apart(
    server_to_itself: ZooKeeperServer, script: list[tuple[int, Operation[Any]]]
) -> None:
    async def both() -> None:
        memory = await run(MemoryWorld(), script)
        with Proxy(server_to_itself.port) as proxy:
            real = await run(RealWorld(server_to_itself.hosts, "", proxy), script)
        assert memory == real

    asyncio.run(both())

"""The session's persistent watches, and reading many, where the server has them (3.6 and later)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from zkside.errors import ConnectionLoss, NotSupported, Refused, ZksideError
from zkside.model.event import EventType, KeeperState, WatchedEvent
from zkside.model.operation import AddWatch, GetChildren, ReadMany, RemoveWatch
from zkside.zk.requests import complete
from zkside.zk.socket import Socket
from zkside.zk.wire import SetPersistentWatches

MAX_PACKET_BYTES = 128 * 1024
"""Of the packets that set watches again, as in ZooKeeper's own client."""

# By the numbers on the wire: looking them up is several times cheaper than calling the enumeration.
EVENT_TYPES: Final = {kind.value: kind for kind in EventType}
KEEPER_STATES: Final = {state.value: state for state in KeeperState}

Emit = Callable[[WatchedEvent], None]


def in_packets(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The paths in groups that fit into one packet each, whatever the chroot."""
    group: list[str] = []
    size_bytes = 0
    for path in paths:
        path_bytes = len(path.encode()) + 4
        if group and size_bytes + path_bytes > MAX_PACKET_BYTES // 2:
            yield tuple(group)
            group, size_bytes = [], 0
        group.append(path)
        size_bytes += path_bytes
    if group:
        yield tuple(group)


class PersistentWatches:
    """Remembers what the server confirmed, to set it again on the next connection.

    Never mixed with standard watches in one session: on one path those destroy persistent ones up to ZooKeeper
    3.8 (ZOOKEEPER-4466).
    """

    def __init__(self, emit: Emit, unsupported: Callable[[AddWatch, asyncio.Future[Any]], None]) -> None:
        self.recursive: dict[str, bool] = {}
        """path → whether its watch is recursive."""
        self._emit = emit
        self._unsupported = unsupported

    def add(self, socket: Socket, operation: AddWatch) -> asyncio.Future[Any]:
        if not operation.recursive and self.recursive.get(operation.path):
            # From 3.9 on a server keeps both kinds on a path; before, the latest replaces the other.
            socket.requests.tell(RemoveWatch(operation.path), lambda zxid, value, error: None)

        def answered(zxid: int, value: Any, error: ZksideError | None) -> None:
            if isinstance(error, NotSupported):
                self._unsupported(operation, future)
                return
            if error is None:
                self.recursive[operation.path] = operation.recursive
            complete(future, zxid, value, error)

        future = socket.requests.call(operation, answered)
        return future

    def remove(self, socket: Socket, operation: RemoveWatch) -> asyncio.Future[Any]:
        def answered(zxid: int, value: Any, error: ZksideError | None) -> None:
            # With its connection the server forgets the watch, whether it has read the request or not.
            if error is None or isinstance(error, ConnectionLoss):
                self.recursive.pop(operation.path, None)
            complete(future, zxid, value, error)

        future = socket.requests.call(operation, answered)
        return future

    def heard(self, kind: EventType, state: KeeperState, path: str, zxid: int, since: int) -> None:
        if kind is EventType.NODE_CHILDREN_CHANGED and self.recursive.get(path):
            return  # of a plain watch that a recursive one replaced; 3.9 keeps it
        self._emit(WatchedEvent(kind, state, path, zxid, since))

    async def restore(self, socket: Socket) -> None:
        """Set all watches again. Raises: NotSupported if this server has no persistent watches."""
        plain = in_packets([path for path, recursive in self.recursive.items() if not recursive])
        below = in_packets([path for path, recursive in self.recursive.items() if recursive])
        packets = [SetPersistentWatches(socket.last_zxid, paths, ()) for paths in plain]
        packets += [SetPersistentWatches(socket.last_zxid, (), paths) for paths in below]
        await asyncio.gather(*(socket.requests.ask(packet) for packet in packets))


def read_many(socket: Socket, operation: ReadMany, *, yields: bool = False) -> asyncio.Future[Any]:
    """A multiRead, or its reads one by one where the server does not know it (before 3.6)."""

    def answered(zxid: int, value: Any, error: ZksideError | None) -> None:
        if isinstance(error, NotSupported):
            _read_one_by_one(socket, operation, future)
        else:
            complete(future, zxid, value, error)

    future = socket.requests.call(operation, answered, yields=yields)
    return future


def _read_one_by_one(socket: Socket, operation: ReadMany, future: asyncio.Future[Any]) -> None:
    """The answer's zxid is that of the first: all up to there is reflected in each, but they are no cut."""
    results: list[Any] = [None] * len(operation.reads)
    zxids: list[int] = []

    def take(index: int, zxid: int, value: Any, error: ZksideError | None) -> None:
        if error is not None and not isinstance(error, Refused):
            complete(future, 0, None, error)
            return
        if error is not None:
            results[index] = error
        elif isinstance(operation.reads[index], GetChildren):
            results[index] = value[0]
        else:
            results[index] = value
        zxids.append(zxid)
        if len(zxids) == len(results):
            complete(future, zxids[0], results, None)

    for index, read in enumerate(operation.reads):
        socket.requests.tell(read, lambda zxid, value, error, index=index: take(index, zxid, value, error))  # type: ignore[misc]

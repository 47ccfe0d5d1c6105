"""Streams that this process does not share: ZooKeeper's own notifications (W10), and the session's states."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import grpc
import grpc.aio

from zkside.client import fault
from zkside.client.event import EventTarget, EventType, Gap, GapReason, WatchedEvent
from zkside.client.following import follow
from zkside.client.link import Link
from zkside.client.reading import Put
from zkside.client.retry import Delays, is_final
from zkside.client.value import KeeperState, Session, session_of
from zkside.pb import session_pb2, watch_pb2
from zkside.pb.session_pb2_grpc import SessionServiceStub
from zkside.pb.watch_pb2_grpc import WatchServiceStub


class EventsFlow:
    """Reads WatchedEvents over any number of streams; a Gap stands for each that broke.

    Ends when all targets are one-shot and have fired. Raises NoNode (kinds DATA and CHILDREN on an absent
    node), InvalidPath, InvalidArgument, NoAuth; Unavailable if the first stream cannot be opened, unless
    `wait_for_ready`.
    """

    def __init__(self, link: Link, targets: tuple[EventTarget, ...], *, wait_for_ready: bool) -> None:
        self._link = link
        self._left = list(targets)
        self._wait_for_ready = wait_for_ready

    async def run(self, put: Put[WatchedEvent | Gap]) -> None:
        delays, ever_linked, gap_due = Delays(), False, False
        while self._left:
            asked = list(self._left)
            call = self._open(asked, wait=ever_linked or self._wait_for_ready)
            try:
                # The Gap comes once the daemon has the new watches (it sends its metadata then): what happens
                # while the consumer catches up is not missed.
                await call.initial_metadata()
                if gap_due and not call.done():
                    await put(Gap(GapReason.DISCONNECTED, 0))
                    gap_due = False
                while isinstance(message := await call.read(), watch_pb2.WatchResponse):
                    ever_linked = True
                    delays.succeeded()
                    await self._receive(message, asked, put)
                if all(target.one_shot for target in asked):
                    return
            except grpc.aio.AioRpcError as error:
                failure = fault.of_rpc(error, self._link.address)
                if is_final(failure) or not (ever_linked or self._wait_for_ready):
                    raise failure from None
            finally:
                call.cancel()
            gap_due = gap_due or ever_linked
            await asyncio.sleep(delays.next_s())

    def _open(
        self, targets: list[EventTarget], *, wait: bool
    ) -> grpc.aio.UnaryStreamCall[watch_pb2.WatchRequest, watch_pb2.WatchResponse]:
        request = watch_pb2.WatchRequest(
            targets=[
                watch_pb2.WatchTarget(path=target.path, kind=target.kind.number, one_shot=target.one_shot)
                for target in targets
            ],
            mode=watch_pb2.WATCH_MODE_EVENTS,
        )
        return self._link.stream(lambda channel: WatchServiceStub(channel).Watch(request, wait_for_ready=wait))

    async def _receive(
        self, message: watch_pb2.WatchResponse, asked: list[EventTarget], put: Put[WatchedEvent | Gap]
    ) -> None:
        kind = message.WhichOneof("message")
        if kind == "gap":
            await put(Gap(GapReason(message.gap.reason), message.gap.dropped))
        elif kind == "events":
            for event in message.events.events:
                type_ = EventType(event.type)
                target = None if type_ is EventType.NONE else asked[event.target]
                if target is not None and target.one_shot and target in self._left:
                    self._left.remove(target)
                await put(WatchedEvent(type_, KeeperState(event.state), event.path, event.zxid, target))


class SessionFlow:
    """Reads the states of the session: the present one, then every change in order, none skipped (S2) as long
    as the daemon lives; after a restart of it the present state again, if it is another.

    Raises Unavailable if the first stream cannot be opened, unless `wait_for_ready`.
    """

    def __init__(self, link: Link, *, wait_for_ready: bool) -> None:
        self._link = link
        self._wait_for_ready = wait_for_ready

    async def run(self, put: Put[Session]) -> None:
        latest = None
        kind = session_pb2.WatchSessionResponse
        following = follow(self._link, self._open, kind, wait_for_ready=self._wait_for_ready)
        async with aclosing(following) as messages:
            async for message, _ in messages:
                session = session_of(message.session)
                if session != latest:
                    latest = session
                    await put(session)

    def _open(
        self, wait: bool
    ) -> grpc.aio.UnaryStreamCall[session_pb2.WatchSessionRequest, session_pb2.WatchSessionResponse]:
        request = session_pb2.WatchSessionRequest()
        return self._link.stream(lambda channel: SessionServiceStub(channel).WatchSession(request, wait_for_ready=wait))

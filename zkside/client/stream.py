"""One Watch stream per set of targets in a process, kept alive, and shared by all its subscribers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc
import grpc.aio

from zkside.client import fault
from zkside.client.assembly import Assembly
from zkside.client.event import SessionChanged, Snapshot, SnapshotReason, Target
from zkside.client.link import Link
from zkside.client.retry import Delays, is_final
from zkside.client.subscriber import Callback, Fan, Subscriber
from zkside.client.value import duration
from zkside.errors import ZksideError
from zkside.pb import watch_pb2
from zkside.pb.watch_pb2_grpc import WatchServiceStub


class SharedStream:
    """The stream of one set of targets, from its first subscriber to its last.

    It opens again whenever it breaks, and resumes at the last complete cut, so that no change comes twice and
    none is missed; where the daemon cannot resume, a Snapshot says so.
    """

    def __init__(
        self,
        link: Link,
        targets: tuple[Target, ...],
        bookmark_interval_s: float,
        on_stop: Callable[[SharedStream], None],
    ) -> None:
        self.targets = targets
        self.assembly = Assembly(targets)
        self.fan = Fan(self._snapshot, self.stop)
        self._link = link
        self._bookmark_interval_s = bookmark_interval_s
        self._on_stop = on_stop
        self._patient: set[Subscriber] = set()
        self._linked = False
        self._ever_linked = False
        self._session_connected = True
        self._current_at = time.monotonic()
        self._task = asyncio.create_task(self._run(), name=f"zkside watch {targets[0].path}")
        self._task.add_done_callback(self._ended)

    @property
    def stale(self) -> bool:
        """Whether the state may lag behind ZooKeeper: no daemon, no session, or not compared yet."""
        return not self._linked or self._link.is_inherited or self.assembly.header.stale or not self._session_connected

    @property
    def age_s(self) -> float:
        """How long ago the state was last known to be current; 0 when it is not stale."""
        return max(0.0, time.monotonic() - self._current_at) if self.stale else 0.0

    def subscribe(self, callback: Callback | None, *, wants_bookmarks: bool, wait_for_ready: bool) -> Subscriber:
        """Add a subscriber; it begins with the state that is there, or with the first to come."""
        subscriber = Subscriber(self.fan, callback, wants_bookmarks=wants_bookmarks)
        if wait_for_ready:
            self._patient.add(subscriber)
        subscriber.start_with_snapshots(
            [target for index, target in enumerate(self.targets) if self.assembly.has_state(index)]
        )
        self.fan.add(subscriber)
        return subscriber

    def stop(self) -> None:
        """End the stream now. Idempotent."""
        self._linked = False
        self._patient.clear()
        self._task.cancel()
        self._on_stop(self)

    @property
    def stopped(self) -> bool:
        return self._task.done()

    async def wait_stopped(self) -> None:
        await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        for subscriber in self.fan.subscribers():
            subscriber.fail(error or ZksideError("the client was closed"))

    def _snapshot(self, target: Target, reason: SnapshotReason) -> Snapshot:
        return self.assembly.snapshot(self.targets.index(target), reason)

    async def _run(self) -> None:
        delays = Delays()
        while True:
            error = await self._read_stream(delays)
            self._linked = False
            if is_final(error) or not self._ever_linked:
                self._fail(error)
                if not self.fan:
                    return
            await asyncio.sleep(delays.next_s())

    async def _read_stream(self, delays: Delays) -> ZksideError:
        """Read one stream to its end; why it ended."""
        request = watch_pb2.WatchRequest(
            targets=[
                watch_pb2.WatchTarget(path=target.path, scope=target.scope.number, with_data=target.with_data)
                for target in self.targets
            ],
            mode=watch_pb2.WATCH_MODE_STATE,
            resume=self.assembly.restart(),
            bookmark_interval=duration(self._bookmark_interval_s),
        )
        impatient = not self._ever_linked and len(self._patient) < len(self.fan)
        call = self._link.stream(lambda channel: WatchServiceStub(channel).Watch(request, wait_for_ready=not impatient))
        try:
            # The daemon sends its metadata as soon as the stream is served, a resumed one in silence.
            await call.initial_metadata()
            self._linked = not call.done()
            while True:
                message = await call.read()
                if not isinstance(message, watch_pb2.WatchResponse):
                    return ZksideError("the daemon ended the stream")
                self._linked = self._ever_linked = True
                delays.succeeded()
                self._receive(message)
        except grpc.aio.AioRpcError as error:
            return fault.of_rpc(error, self._link.address)
        finally:
            call.cancel()

    def _receive(self, message: watch_pb2.WatchResponse) -> None:
        event = self.assembly.feed(message)
        header = self.assembly.header
        self._current_at = time.monotonic() - header.age_s if header.stale else time.monotonic()
        if type(event) is SessionChanged:
            self._session_connected = event.session.state.is_connected
        if event is not None:
            self.fan.publish(event)

    def _fail(self, error: ZksideError) -> None:
        """End those subscribers for whom this is the end: all, or those who did not want to wait."""
        final = is_final(error)
        for subscriber in self.fan.subscribers():
            if final or subscriber not in self._patient:
                subscriber.fail(error)

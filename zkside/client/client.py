"""The client: one connection to the daemon of this host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from zkside.client.admin import AdminCalls
from zkside.client.answer import SessionAnswer
from zkside.client.credentials import TlsOptions
from zkside.client.election import ElectionCalls
from zkside.client.ephemeral import EphemeralCalls
from zkside.client.event import EventTarget, Gap, Scope, Target, WatchedEvent, WatchEvent, WatchKind
from zkside.client.events import EventsFlow, SessionFlow
from zkside.client.group import GroupCalls
from zkside.client.link import DEFAULT_TIMEOUT_S, Link
from zkside.client.lock import LockCalls
from zkside.client.mirror import Mirror
from zkside.client.node import NodeCalls
from zkside.client.reading import Reading
from zkside.client.stream import SharedStream
from zkside.client.value import Consistency, Session, header_of, session_of
from zkside.client.watch import Watch
from zkside.errors import InvalidArgument
from zkside.pb import session_pb2
from zkside.pb.session_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from zkside.client.health import Health


class Client(NodeCalls, EphemeralCalls, LockCalls, ElectionCalls, GroupCalls):
    """Everything that a process can ask of its host's zkside.

        async with Client() as client:
            await client.create("/greeting", b"hello")
            print((await client.get("/greeting")).data)

    `address`: "unix:/path" or "host:port"; None: ZKSIDE_ADDRESS, or the daemon's default socket. The
    connection is made at the first call and made again whenever it breaks. One client for a process is
    enough; it belongs to the event loop that first uses it.

    `tls` (for "host:port") and `token_file` are what a daemon that tells callers apart may want; None: what the
    environment names, ZKSIDE_CA, ZKSIDE_CERT, ZKSIDE_KEY, ZKSIDE_SERVER_NAME and ZKSIDE_TOKEN_FILE. Their files
    are read again when they change.

    `timeout_s` and `consistency` are the defaults of all calls. Streams send a Bookmark every
    `bookmark_interval_s`, which is also how fresh `age_s` is.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: TlsOptions | None = None,
        token_file: str | Path | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        consistency: Consistency = Consistency.SERVER,
        bookmark_interval_s: float = 5.0,
    ) -> None:
        super().__init__(Link(address, timeout_s, tls=tls, token_file=token_file), consistency)
        self._bookmark_interval_s = bookmark_interval_s
        self._streams: dict[tuple[Target, ...], SharedStream] = {}
        self._stopping: set[SharedStream] = set()
        self.admin: AdminCalls = AdminCalls(self._link)

    @property
    def address(self) -> str:
        return self._link.address

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which another process of this host reaches the same daemon, as the same caller."""
        return self._link.environment

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all watches, mirrors and streams and close the connection; what is held is lost. Idempotent.

        In a child that was forked it does nothing: all that is its parent's."""
        if self._link.is_inherited:
            return
        streams = [*self._streams.values()]
        for stream in streams:
            stream.stop()
        for reading in self._readings:
            reading.close()
        for stream in [*self._stopping]:
            await stream.wait_stopped()
        for reading in [*self._readings]:
            await reading.wait_stopped()
        await self._link.close()
        # It has the channel, and that gRPC's threads: a process may fork without them.
        self._made = None

    def watch(
        self,
        *targets: str | Target,
        scope: Scope = Scope.NODE,
        with_data: bool = True,
        on_change: Callable[[WatchEvent], None] | None = None,
        bookmarks: bool = False,
        wait_for_ready: bool = False,
    ) -> Watch:
        """Subscribe to one or more targets; paths take `scope` and `with_data`. Begins at once.

        All subscriptions of this client to the same targets share one stream. `on_change` is called in place
        for each event and must not block; with it there is nothing to iterate over. `bookmarks`: hand those
        out too. `wait_for_ready`: wait for a daemon that is not there yet.
        """
        wanted = tuple(Target(target, scope, with_data) if isinstance(target, str) else target for target in targets)
        stream = self._stream(wanted)
        subscriber = stream.subscribe(on_change, wants_bookmarks=bookmarks, wait_for_ready=wait_for_ready)
        return Watch(stream, subscriber)

    def mirror(
        self, path: str, *, scope: Scope = Scope.SUBTREE, with_data: bool = True, wait_for_ready: bool = False
    ) -> Mirror:
        """A local copy of the subtree, kept current; used with `async with`, or `await mirror.ready()`."""
        stream = self._stream((Target(path, scope, with_data),))
        return Mirror(stream, wait_for_ready=wait_for_ready)

    def watch_events(
        self,
        *targets: str | EventTarget,
        kind: WatchKind = WatchKind.PERSISTENT,
        one_shot: bool = False,
        on_event: Callable[[WatchedEvent | Gap], None] | None = None,
        wait_for_ready: bool = False,
    ) -> Reading[WatchedEvent | Gap]:
        """ZooKeeper's own WatchedEvents, and Gaps where some are missing (see EventsFlow). Begins at once."""
        wanted = tuple(EventTarget(target, kind, one_shot) if isinstance(target, str) else target for target in targets)
        if not wanted:
            raise InvalidArgument("at least one target is needed", field="targets")
        flow = EventsFlow(self._link, wanted, wait_for_ready=wait_for_ready)
        return self._read(flow.run, on_event, f"zkside events {wanted[0].path}")

    def watch_session(
        self, *, on_change: Callable[[Session], None] | None = None, wait_for_ready: bool = False
    ) -> Reading[Session]:
        """The session's present state, then every change (see SessionFlow). Begins at once."""
        flow = SessionFlow(self._link, wait_for_ready=wait_for_ready)
        return self._read(flow.run, on_change, "zkside session")

    async def session(self, *, timeout_s: float | None = None, wait_for_ready: bool = False) -> SessionAnswer:
        """The session's present state; answers at once, in any state."""
        answer = await self._link.call(
            SessionServiceStub(self._link.channel).GetSession,
            session_pb2.GetSessionRequest(),
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
        )
        return SessionAnswer(header_of(answer.header), session_of(answer.session))

    async def health(self, service: str = "", *, timeout_s: float | None = None) -> Health:
        """What the daemon says of itself (grpc.health.v1); "" is the daemon as a whole."""
        from zkside.client.health import ask_health  # a rarely used package

        return await ask_health(self._link, service, timeout_s)

    def _stream(self, targets: Iterable[Target]) -> SharedStream:
        wanted = tuple(targets)
        if not wanted:
            raise InvalidArgument("at least one target is needed", field="targets")
        stream = self._streams.get(wanted)
        if stream is None:
            stream = SharedStream(self._link, wanted, self._bookmark_interval_s, self._stopped)
            self._streams[wanted] = stream
        return stream

    def _stopped(self, stream: SharedStream) -> None:
        if self._streams.get(stream.targets) is stream:
            del self._streams[stream.targets]
            self._stopping = {known for known in self._stopping if not known.stopped} | {stream}

"""Every open stream of the daemon: who has it, how far it is, and how it is made to end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from prometheus_client.core import GaugeMetricFamily, Metric

from zkside.errors import Draining, Quota, ZksideError
from zkside.model.watch import Place

STALLED_S = 5.0
"""A client that lets a message wait for so long does not read. One that was stopped or is cut off is found out
sooner, by gRPC's pings, and its streams end."""
LAST_MESSAGE_S = 1.0
"""How long the stream of a released hold may take to say so to a client that does not read."""


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """Limits of one daemon. A refused call or stream hears QUOTA (RESOURCE_EXHAUSTED).

    A client is a TCP connection. Connections over the Unix socket cannot be told apart (gRPC names every
    one of them "unix:"), so for them the limits of the whole daemon hold.
    """

    max_streams: int = 20_000
    max_streams_per_client: int = 160
    max_concurrent_streams: int = 200
    """Streams and calls of one connection at once, as HTTP/2 has it: gRPC's clients wait, without a word, with what is
    beyond. So it has to leave room for calls above `max_streams_per_client`."""
    max_calls: int = 5_000
    """Unary calls opened and not ended, with a message or without."""
    message_timeout_s: float = 10.0
    """How long a call that was opened may take to send its message."""
    max_pipeline: int = 1_000
    """Writes of one Pipeline stream under way at once; more wait in the client."""
    max_requests_bytes: int = 16 << 20
    """Large requests under way at once; half of it of one client. Beyond it they wait (rpc/flow.py)."""
    max_answers_bytes: int = 32 << 20
    """Large answers that clients have not taken yet, likewise."""
    max_messages_bytes: int = 64 << 20
    """Large messages of streams that clients have not taken yet, likewise."""
    max_answer_bytes: int = 16 << 20
    """The largest."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream at one moment."""

    method: str
    peer: str
    age_s: float
    sent: int
    pending: int


@dataclass(frozen=True, slots=True)
class StreamsStatistics:
    open: dict[str, int]
    """By method."""
    opened: int
    refused: dict[str, int]
    """By limit."""


def _nothing() -> int:
    return 0


class Stream:
    """One open stream; belongs to the task that serves it."""

    __slots__ = (
        "_task",
        "_writing",
        "before_end",
        "ending",
        "ends_by_itself",
        "method",
        "peer",
        "pending",
        "sent",
        "started_s",
        "watches",
    )

    def __init__(self, method: str, peer: str, task: asyncio.Task[object], writing: dict[Stream, float]) -> None:
        self.method = method
        self.peer = peer
        self.started_s = time.monotonic()
        self.sent = 0
        self.pending: Callable[[], int] = _nothing
        """Set by the handler: how many paths or events wait to be read by the client."""
        self.watches: Callable[[], Sequence[Place]] = tuple
        """Set by the handler: what the client watches."""
        self.ends_by_itself = False
        """Set by a handler that has a last message to send before a stop: a hold's, once that is released."""
        self.before_end: Callable[[], object] = tuple
        """Set by the handler: what it has to know before it is ended from outside."""
        self.ending: ZksideError | None = None
        self._task = task
        self._writing = writing

    def age_s(self) -> float:
        return time.monotonic() - self.started_s

    def unread_s(self) -> float:
        """For how long the client has not been reading; 0 while it takes what is sent.

        gRPC takes some megabytes for a client that does not read, so this begins when those are full.
        """
        since_s = self._writing.get(self)
        return 0.0 if since_s is None else time.monotonic() - since_s

    def end(self, error: ZksideError) -> None:
        """End the stream from outside, with this error as its status. The first call decides.

        Cancellation: the handler sees a CancelledError at its next await and must let it pass.
        """
        if self.ending is None:
            self.ending = error
            self.before_end()
            self._task.cancel()

    def acknowledge_end(self) -> None:
        """Called by the task that serves the stream, once it has caught the cancellation of `end`."""
        self._task.uncancel()

    @property
    def is_infrastructure(self) -> bool:
        """Health, reflection and the like: a drain lets them be."""
        return not self.method.startswith("zkside.")


class Streams:
    """The registry of open streams.

    Invariant: a stream is in it from before its handler runs until after the handler's last `finally`.
    """

    def __init__(self, quotas: QuotaSettings) -> None:
        self.quotas = quotas
        """May be replaced while streams are open."""
        self._open: set[Stream] = set()
        self.writing: dict[Stream, float] = {}
        """Those whose message waits to be taken by gRPC, with since when: the oldest comes first."""
        self._by_client: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._opened = 0
        self.refused = {"max_streams": 0, "max_streams_per_client": 0}
        """Counted by limit."""
        self.draining = False
        """True: new streams are refused (but for health and the like, until `stopping`)."""
        self.stopping = False

    def open(self, method: str, peer: str) -> Stream:
        """Enter a stream, served by the present task. Raises: Draining, Quota."""
        task = asyncio.current_task()
        assert task is not None
        stream = Stream(method, peer, task, self.writing)
        if self.stopping or (self.draining and not stream.is_infrastructure):
            raise Draining()
        if len(self._open) >= self.quotas.max_streams:
            self.refused["max_streams"] += 1
            raise Quota(f"the daemon has {len(self._open)} open streams, its limit", limit="max_streams")
        is_told_apart = not peer.startswith("unix:")
        if is_told_apart and self._by_client[peer] >= self.quotas.max_streams_per_client:
            self.refused["max_streams_per_client"] += 1
            raise Quota(
                f"this client has {self._by_client[peer]} open streams, its limit", limit="max_streams_per_client"
            )
        self._opened += 1
        self._by_client[peer] += 1
        self._open.add(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """Take a stream out, and what its handler set, which leads to it: a cycle."""
        self._open.discard(stream)
        stream.pending, stream.watches, stream.before_end = _nothing, tuple, tuple
        self._by_client[stream.peer] -= 1
        if not self._by_client[stream.peer]:
            del self._by_client[stream.peer]
        self._changed.set()

    def end_all(self, error: ZksideError, *, infrastructure: bool) -> int:
        """End all open streams; returns how many. With `infrastructure` health and the like too."""
        ending = [stream for stream in self._open if infrastructure or not stream.is_infrastructure]
        for stream in ending:
            stream.end(error)
        return len(ending)

    async def end_in_order(self, error: ZksideError, *, infrastructure: bool) -> None:
        """End all streams, and return when they are gone: those that end by themselves get time for it first.

        For use when every hold was released, or is being kept.
        """
        for stream in list(self._open):
            if (infrastructure or not stream.is_infrastructure) and not stream.ends_by_itself:
                stream.end(error)
        try:
            async with asyncio.timeout(LAST_MESSAGE_S):
                await self.wait_ended(infrastructure=infrastructure)
        except TimeoutError:
            self.end_all(error, infrastructure=infrastructure)
            await self.wait_ended(infrastructure=infrastructure)

    async def wait_ended(self, *, infrastructure: bool) -> None:
        """Return when no stream is left (but for health and the like, unless `infrastructure`)."""
        while any(infrastructure or not stream.is_infrastructure for stream in self._open):
            self._changed.clear()
            await self._changed.wait()

    def each(self) -> Iterator[Stream]:
        """The streams that are open now, in no order, also if some end meanwhile."""
        return iter([*self._open])

    def list(self) -> list[StreamInfo]:
        """All open streams, oldest first."""
        now_s = time.monotonic()
        return [
            StreamInfo(stream.method, stream.peer, now_s - stream.started_s, stream.sent, stream.pending())
            for stream in sorted(self._open, key=lambda stream: stream.started_s)
        ]

    def __len__(self) -> int:
        return len(self._open)

    def statistics(self) -> StreamsStatistics:
        return StreamsStatistics(
            open=dict(Counter(stream.method for stream in self._open)),
            opened=self._opened,
            refused=dict(self.refused),
        )

    def collect(self) -> Iterator[Metric]:
        """The families `zkside_stream…`. Costs no more than there are clients that do not read."""
        now_s = time.monotonic()
        stalled = takewhile(lambda since_s: now_s - since_s > STALLED_S, self.writing.values())
        since_s = next(iter(self.writing.values()), now_s)
        yield GaugeMetricFamily("zkside_streams", "Open streams of clients.", value=len(self._open))
        yield GaugeMetricFamily(
            "zkside_streams_stalled",
            f"Streams whose client has not read for more than {STALLED_S:g} s, though something waits for it.",
            value=sum(1 for _ in stalled),
        )
        yield GaugeMetricFamily(
            "zkside_stream_unread_max_seconds",
            "For how long the slowest client has let a message wait; 0 when none waits.",
            value=now_s - since_s,
        )

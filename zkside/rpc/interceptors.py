"""What every RPC passes through: parsing, quotas, waiting for readiness, the error table, timing.

Each method is wrapped once, when it is registered: gRPC's own interceptor chain builds a handler anew for
every call. Messages pass gRPC as bytes and are parsed here, so that bytes that are no message end in
INVALID_ARGUMENT; a handler may answer with bytes too, serialised once for many streams.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from zkside.errors import ConnectionLoss, InvalidArgument, Quota, SessionSuspended
from zkside.model.hold import HoldUpdate
from zkside.model.identity import Peer
from zkside.recipes.admission import CALLER
from zkside.rpc import status
from zkside.rpc.again import only_reads, read_again
from zkside.rpc.arrivals import Arrivals
from zkside.rpc.flow import SMALL_BYTES, Flow, owner
from zkside.rpc.identity import Door
from zkside.rpc.status import Status
from zkside.rpc.streams import QuotaSettings, Stream, Streams
from zkside.zk.in_flight import Share
from zkside.zk.session import Session

if TYPE_CHECKING:
    from zkside.rpc.guard import Guard
    from zkside.rpc.tracing import Tracing

READY_KEY = "zkside-wait-for-ready"
STATUS_PATIENCE_S = 1.0
"""How long a handler waits for its status to be taken by a client that does not read."""
NOT_SENT = 'Failed "execute_batch"'
"""How gRPC's error begins when it could not carry out what was begun."""

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Context = grpc.aio.ServicerContext[Any, Any]
Recall = Callable[[bytes], bytes | None]
"""From the bytes of a request to those of an answer that needs no handler; None if it does."""
Answer = Message | bytes
Opening = Callable[[Any], AsyncGenerator[HoldUpdate, None]]
"""From the request for a hold to its updates."""


class Call:
    """One RPC under way, as a servicer sees it."""

    __slots__ = ("context", "peer", "raw")

    def __init__(self, context: Context, raw: bytes = b"", peer: Peer | None = None) -> None:
        self.context = context
        self.raw = raw
        """The bytes of a unary call's request."""
        self.peer = peer
        """Who calls; None where the daemon does not tell callers apart."""

    def deadline_s(self) -> float | None:
        """The caller's deadline by the event loop's clock; None if there is none."""
        remaining_s = self.context.time_remaining()
        return None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s

    def waits_for_ready(self) -> bool:
        """Whether the caller would rather wait than hear SESSION_SUSPENDED."""
        return any(key == READY_KEY and value == "true" for key, value in self.context.invocation_metadata() or ())


class StreamCall(Call):
    """A streaming RPC under way."""

    __slots__ = ("stream",)

    def __init__(self, context: Context, stream: Stream, peer: Peer | None = None) -> None:
        super().__init__(context, peer=peer)
        self.stream = stream
        """Its entry in the registry."""

    def carried(self, step: str, opening: Opening, request: Any) -> AsyncGenerator[HoldUpdate, None]:
        """The updates of a hold that this step of the stream asks for."""
        return opening(request)

    def over_carried(self, carried: int) -> Quota | None:
        """The error if a stream that carries so many holds, opened or not, may carry no more."""
        return None


Requests = Callable[[Any, Context], Awaitable[Any]]
"""From what gRPC hands over to what a handler takes: the one request, or an iterator over all."""
UnaryHandler = Callable[[Any, Call], Awaitable[Answer]]
StreamHandler = Callable[[Any, StreamCall], AsyncGenerator[Answer, None]]
"""Takes the request, or for a method with a stream of requests an iterator over them."""


class MethodCounts:
    """What is counted of one method; plain numbers, read by the collector."""

    __slots__ = ("buckets", "handled", "handling_s", "received", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled: dict[str, int] = {}
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.handling_s = 0.0

    def finish(self, code: str, seconds: float) -> None:
        self.handled[code] = self.handled.get(code, 0) + 1
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.handling_s += seconds


class Interceptors(Collector):
    """Wraps handlers, and is the collector of `grpc_server_*` (register it with a registry)."""

    def __init__(self, session: Session, streams: Streams, quotas: QuotaSettings) -> None:
        self._session = session
        self._streams = streams
        self.quotas = quotas
        """May be replaced while calls are under way."""
        self.arrivals = Arrivals(quotas.message_timeout_s)
        self.flow = Flow(quotas)
        self._counts: dict[tuple[str, str, str], MethodCounts] = {}
        self.calls = 0
        """Unary calls under way."""
        self.refused = 0
        """Calls beyond the limit, counted."""
        self.incidents = 0
        """Calls and streams that ended in an error of our own, counted."""
        self._idle: asyncio.Event | None = None
        self.guard: Guard | None = None
        """Stands before every handler that is wrapped from now on, on a door; None: nothing does."""
        self.tracing: Tracing | None = None
        """Makes spans of the calls of every handler that is wrapped from now on; None: nothing does."""

    async def wait_idle(self) -> None:
        """Return when no unary call is under way."""
        if self.calls:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def wrap(
        self,
        method: MethodDescriptor,
        handler: Callable[[Any, Any], Any],
        recall: Recall | None = None,
        door: Door | None = None,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler to register with gRPC for a method; `recall` (of a unary one) is asked before it.

        `door`: by which its callers come, if they are to be told apart; asked before anything else.

        Cancellation: a caller that goes away or whose deadline passes cancels the handler, and with it the
        request that it awaits.
        """
        if self.guard is not None and door is not None:
            handler, door = self.guard.around(method, handler, recall, door)
            recall = None
        if self.tracing is not None:
            handler, recall = self.tracing.around(method, handler), None
        kind = ("unary", "client_stream", "server_stream", "bidi_stream")[
            method.client_streaming + 2 * method.server_streaming
        ]
        # One count for a method, by whichever door its callers come.
        key = (kind, method.containing_service.full_name, method.name)
        counts = self._counts.setdefault(key, MethodCounts())
        parse = GetMessageClass(method.input_type).FromString
        if not method.server_streaming:
            assert not method.client_streaming, "no such method yet"
            return grpc.unary_unary_rpc_method_handler(self._unary(method, counts, parse, handler, recall, door))
        name = f"{method.containing_service.full_name}/{method.name}"
        requests: Requests = _parse_each(counts, parse) if method.client_streaming else self._parse_one(counts, parse)
        return grpc.stream_stream_rpc_method_handler(self._stream(name, counts, requests, handler, door))

    def admit(self, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """The one that gRPC is to use of a handler of `wrap`, for a call that the present task serves."""
        if handler.unary_unary is None or self.arrivals.quick():
            return handler
        return grpc.stream_unary_rpc_method_handler(handler.unary_unary)

    def _parse_one(
        self, counts: MethodCounts, parse: Callable[[bytes], Message]
    ) -> Callable[[Any, Context], Awaitable[Message]]:
        async def request(_: object, context: Context) -> Message:
            try:
                raw = await self.arrivals.message(context)
            except asyncio.CancelledError:
                self.arrivals.reset += 1
                raise
            counts.received += 1
            return _parsed(parse, raw)

        return request

    def _unary(
        self,
        method: MethodDescriptor,
        counts: MethodCounts,
        parse: Callable[[bytes], Message],
        handler: UnaryHandler,
        recall: Recall | None,
        door: Door | None,
    ) -> Callable[[Any, Context], Awaitable[bytes]]:
        name = f"{method.containing_service.full_name}/{method.name}"
        clock, arrivals, is_read = time.perf_counter, self.arrivals, only_reads(method)

        async def call(given: Any, context: Context) -> bytes:
            """`given` is the message, or for a call that came without it an iterator."""
            begun_s = clock()
            counts.started += 1
            self.calls += 1
            code = "OK"
            raw: bytes | None = None
            if type(given) is bytes:
                raw = given
                arrivals.arrived()
            share: Share | None = None
            try:
                peer = None if door is None else door.peer(context)
                if self.calls > (limit := self.quotas.max_calls):
                    self.refused += 1
                    raise Quota(f"{limit} calls are under way, the daemon's limit", limit="max_calls")
                if raw is None:
                    raw = await arrivals.message(context)
                counts.received += 1
                if recall is not None and (recalled := recall(raw)) is not None:
                    counts.sent += 1
                    return recalled
                if len(raw) >= SMALL_BYTES:
                    share = await self.flow.request(name, context, peer, len(raw))
                request = _parsed(parse, raw)
                try:
                    answer = await handler(request, Call(context, raw, peer))
                except SessionSuspended as error:
                    answer = await self._once_ready(handler, request, Call(context, raw, peer), error)
                except ConnectionLoss:
                    if not is_read:
                        raise
                    again = Call(context, raw, peer)
                    answer = await read_again(self._session, partial(handler, request, again), again.deadline_s())
                counts.sent += 1
                return answer if isinstance(answer, bytes) else answer.SerializeToString()
            except asyncio.CancelledError:
                code = _cancelled(context)
                arrivals.reset += raw is None
                raise
            except grpc.aio.AbortError:
                code = _name(context.code())
                raise
            except Exception as error:
                failure = status.of(error, method=name)
                code = failure.code.name
                self.incidents += failure.code is grpc.StatusCode.INTERNAL
                _forget_frames(error)
                given = raw = request = None
                await _abort(context, failure)
                raise  # never reached: abort raises
            finally:
                self.calls -= 1
                if share is not None:
                    share.close()
                counts.finish(code, clock() - begun_s)
                if self._idle is not None and not self.calls:
                    self._idle.set()

        return call

    async def _once_ready(self, handler: UnaryHandler, request: object, call: Call, error: SessionSuspended) -> Answer:
        """Run a handler again that found the session suspended, if its caller asked for that.

        SessionSuspended promises that nothing was sent, so nothing is done twice.
        """
        if not call.waits_for_ready():
            raise error
        while True:
            await self._session.wait_connected()
            try:
                return await handler(request, call)
            except SessionSuspended:
                continue

    def _stream(
        self,
        name: str,
        counts: MethodCounts,
        requests: Requests,
        handler: StreamHandler,
        door: Door | None,
    ) -> Callable[[Any, Context], Awaitable[None]]:
        async def serve(raw_messages: Any, context: Context) -> None:
            begun_s = time.perf_counter()
            counts.started += 1
            code = "OK"
            stream: Stream | None = None
            try:
                peer = None if door is None else door.peer(context)
                stream = self._streams.open(name, context.peer())
                CALLER.set(owner(name, context, peer))
                asked = await requests(raw_messages, context)
                await self._feed(StreamCall(context, stream, peer), counts, asked, handler)
            except asyncio.CancelledError as cancelled:
                if stream is None or stream.ending is None:
                    code = _cancelled(context)
                    raise
                stream.acknowledge_end()
                failure = status.of(stream.ending, method=name)
                code = failure.code.name
                _forget_frames(cancelled)
                asked = None
                await _abort(context, failure)
            except grpc.aio.AbortError:
                code = _name(context.code())
                raise
            except Exception as error:
                if isinstance(error, ConnectionLoss):
                    # What a stream was about to write is undone by its end, so it was a read to its caller.
                    error = SessionSuspended(f"the connection was lost: {error}")
                failure = status.of(error, method=name)
                code = failure.code.name
                self.incidents += failure.code is grpc.StatusCode.INTERNAL
                _forget_frames(error)
                asked = None
                await _abort(context, failure)
            finally:
                counts.finish(code, time.perf_counter() - begun_s)
                if stream is not None:
                    self._streams.close(stream)

        return serve

    async def _feed(self, call: StreamCall, counts: MethodCounts, request: Any, handler: StreamHandler) -> None:
        """Send all that the handler yields."""
        stream, context = call.stream, call.context
        writing, clock = self._streams.writing, time.monotonic
        while True:
            try:
                async with aclosing(handler(request, call)) as answers:
                    async for answer in answers:
                        message = answer if isinstance(answer, bytes) else answer.SerializeToString()
                        share = None if len(message) < SMALL_BYTES else await self.flow.message(call, len(message))
                        writing[stream] = clock()
                        try:
                            await context.write(message)
                        except grpc.aio.InternalError as error:
                            raise _gone(error) from error
                        finally:
                            del writing[stream]
                            if share is not None:
                                share.close()
                        stream.sent += 1
                        counts.sent += 1
                return
            except SessionSuspended:
                if stream.sent or not call.waits_for_ready():
                    raise
                await self._session.wait_connected()

    def describe(self) -> Iterable[Metric]:
        return _families({})

    def collect(self) -> Iterator[Metric]:
        """The families of grpc-prometheus, by its names."""
        return _families(self._counts)


def _parsed(parse: Callable[[bytes], Message], raw: bytes) -> Message:
    try:
        return parse(raw)
    except DecodeError as error:
        raise InvalidArgument(f"the {len(raw)} bytes of the message cannot be parsed: {error}") from None


def _parse_each(
    counts: MethodCounts, parse: Callable[[bytes], Message]
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[AsyncIterator[Message]]]:
    async def each(raw_messages: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        async for raw in raw_messages:
            counts.received += 1
            yield _parsed(parse, raw)

    async def requests(raw_messages: AsyncIterator[bytes], _: Context) -> AsyncIterator[Message]:
        return each(raw_messages)

    return requests


def _forget_frames(error: BaseException) -> None:
    """Drop the frames of an error and of those behind it, which hold what was read.

    gRPC keeps the error that ends a call in a cycle with the call, and so does it whatever that error leads to: the
    message of a call that is refused would stay in memory until the collector comes by. For the same reason whoever
    calls `_abort` drops the message first.
    """
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


async def _abort(context: Context, failure: Status) -> None:
    """End the stream with this status; never returns.

    A client that does not read takes no status either. Then it waits inside gRPC, behind the messages, for the
    client to read or to go, and the handler ends without waiting with it (cancelled, as gRPC knows it).
    """
    try:
        async with asyncio.timeout(STATUS_PATIENCE_S):
            await context.abort(failure.code, failure.message, failure.trailers)
    except TimeoutError:
        raise asyncio.CancelledError from None
    except grpc.aio.InternalError as error:
        raise _gone(error) from error


def _gone(error: grpc.aio.InternalError) -> BaseException:
    """What an error of gRPC's means that came while something was sent: mostly that the client has gone, which is no
    defect of ours. gRPC cancels the handler too, but that may come later."""
    return asyncio.CancelledError("the client has gone") if str(error).startswith(NOT_SENT) else error


def _cancelled(context: Context) -> str:
    remaining_s = context.time_remaining()
    return "DEADLINE_EXCEEDED" if remaining_s is not None and remaining_s <= 0 else "CANCELLED"


def _name(code: Any) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"


_LABELS = ("grpc_type", "grpc_service", "grpc_method")


def _families(counts: dict[tuple[str, str, str], MethodCounts]) -> Iterator[Metric]:
    started = CounterMetricFamily("grpc_server_started", "RPCs started.", labels=_LABELS)
    handled = CounterMetricFamily("grpc_server_handled", "RPCs completed.", labels=(*_LABELS, "grpc_code"))
    received = CounterMetricFamily("grpc_server_msg_received", "Messages received.", labels=_LABELS)
    sent = CounterMetricFamily("grpc_server_msg_sent", "Messages sent.", labels=_LABELS)
    handling = HistogramMetricFamily(
        "grpc_server_handling_seconds", "How long RPCs took, streams from open to end.", labels=_LABELS
    )
    for labels, row in counts.items():
        started.add_metric(labels, row.started)
        received.add_metric(labels, row.received)
        sent.add_metric(labels, row.sent)
        for code, number in list(row.handled.items()):
            handled.add_metric((*labels, code), number)
        if not row.started:
            continue  # most methods are never called here, and their buckets would be most of all lines
        below = list(accumulate(row.buckets))
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        handling.add_metric(labels, list(zip(bounds, map(float, below), strict=True)), row.handling_s)
    yield from (started, handled, received, sent, handling)

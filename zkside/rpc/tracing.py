"""Traces with OpenTelemetry: the call of somebody who sent a W3C `traceparent` goes on as a span, with a span for each
request to ZooKeeper below it, and one for the time that a hold waited.

Loaded only where `tracing.endpoint` is configured (`zkside[otel]`); otherwise nothing here exists, and handlers and
session are what they are without it. No span has the data of a node, a token or what a request says beside its path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zkside.model.operation import Operation, Reply
from zkside.pb import hold_pb2
from zkside.rpc import status
from zkside.zk.session import Session

T = TypeVar("T")

EXPORT_TIMEOUT_S = 5
MAX_QUEUED = 2_048
"""Spans that wait to be exported; beyond them new ones are dropped, and no call waits for a collector."""
_TRACEPARENT = "traceparent"
_STATES = hold_pb2.HoldState
_TELLING = frozenset({"HoldUpdate"})
_FROM_HEADERS = TraceContextTextMapPropagator()


class Tracing:
    """From `__init__` to `close`; everything else on the event loop."""

    def __init__(self, endpoint: str, version: str) -> None:
        """`endpoint`: http://host:port or https://host:port of an OTLP collector, by gRPC."""
        # Who calls without a traceparent, or with one that is not sampled, has no span.
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_OFF),
            resource=Resource.create({"service.name": "zkside", "service.version": version}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUED))
        self._tracer = self._provider.get_tracer("zkside", version)

    def close(self) -> None:
        """Send what waits. Blocks for EXPORT_TIMEOUT_S and a little: not for the event loop's thread."""
        self._provider.shutdown()

    def session(self) -> type[Session]:
        """A session whose requests are spans when they are made on behalf of a call that is one."""
        tracer = self._tracer

        class TracedSession(Session):
            def call(self, operation: Operation[T], *, yields: bool = False) -> asyncio.Future[Reply[T]]:
                if not trace.get_current_span().is_recording():
                    return super().call(operation, yields=yields)
                span = tracer.start_span(f"zookeeper {type(operation).__name__}", kind=SpanKind.CLIENT)
                span.set_attribute("db.system.name", "zookeeper")
                path = getattr(operation, "path", None)
                if path is not None:
                    span.set_attribute("zkside.path", path)
                answer = super().call(operation, yields=yields)
                answer.add_done_callback(lambda done: _end_request(span, done))
                return answer

        return TracedSession

    def around(self, method: MethodDescriptor, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The handler with a span around it for callers who ask for one."""
        name = f"{method.containing_service.full_name}/{method.name}"
        if not method.server_streaming:
            return self._unary(name, handler)
        return self._stream(name, handler, tells_holds=method.output_type.name in _TELLING)

    def _unary(self, name: str, handler: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def traced(request: Any, call: Any) -> Any:
            parent = _parent(call.context)
            if parent is None:
                return await handler(request, call)
            span, token = self._begin(name, parent)
            try:
                return await handler(request, call)
            except BaseException as error:
                _fail(span, error)
                raise
            finally:
                context.detach(token)
                span.end()

        return traced

    def _stream(
        self, name: str, handler: Callable[[Any, Any], AsyncGenerator[Any, None]], *, tells_holds: bool
    ) -> Callable[[Any, Any], AsyncGenerator[Any, None]]:
        async def traced(request: Any, call: Any) -> AsyncGenerator[Any, None]:
            parent = _parent(call.context)
            hold = _HoldSpans(self._tracer) if tells_holds else None
            span, token = self._begin(name, parent) if parent is not None else (trace.INVALID_SPAN, None)
            try:
                async with aclosing(handler(request, call)) as answers:
                    async for answer in answers:
                        if hold is not None and span.is_recording():
                            hold.told(span, answer)
                        yield answer
            except BaseException as error:
                _fail(span, error)
                raise
            finally:
                if hold is not None:
                    hold.end()
                if token is not None:
                    context.detach(token)
                span.end()

        return traced

    def _begin(self, name: str, parent: context.Context) -> tuple[Span, Any]:
        service, _, method = name.rpartition("/")
        span = self._tracer.start_span(name, parent, SpanKind.SERVER)
        span.set_attributes({"rpc.system": "grpc", "rpc.service": service, "rpc.method": method})
        return span, context.attach(trace.set_span_in_context(span, parent))


class _HoldSpans:
    """The states of one hold as events of its stream's span, and its wait as a span below that."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._waiting: Span | None = None
        self._told = _STATES.HOLD_STATE_UNSPECIFIED

    def told(self, span: Span, update: hold_pb2.HoldUpdate) -> None:
        if update.state == self._told:
            return
        self._told = update.state
        state = _STATES.Name(update.state).removeprefix("HOLD_STATE_")
        held = update.hold
        said: dict[str, str | int] = {"zkside.path": held.path, "zkside.fencing_token": held.fencing_token}
        if update.state == _STATES.HOLD_STATE_WAITING:
            self._waiting = self._tracer.start_span("zkside hold waits")
            self._waiting.set_attribute("zkside.position", update.position)
        else:
            self.end()
        span.add_event(f"hold {state}", said)

    def end(self) -> None:
        """It waits no more."""
        if self._waiting is not None:
            self._waiting.end()
            self._waiting = None


def _parent(call: grpc.aio.ServicerContext[Any, Any]) -> context.Context | None:
    """What the caller's traceparent says; None without one that makes sense."""
    headers = {
        key: value for key, value in call.invocation_metadata() or () if key.startswith("trace") and type(value) is str
    }
    if _TRACEPARENT not in headers:
        return None
    parent = _FROM_HEADERS.extract(headers, context.Context())
    return parent if trace.get_current_span(parent).get_span_context().is_valid else None


def _fail(span: Span, error: BaseException) -> None:
    """Its status; the words are for the caller, and the traceback for the log."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        span.add_event("cancelled")
    elif isinstance(error, grpc.aio.AbortError):
        span.set_status(Status(StatusCode.ERROR))
    else:
        code = status.code_of(error)
        span.set_attribute("rpc.grpc.status_code", code.value[0])
        span.set_status(Status(StatusCode.ERROR, code.name))


def _end_request(span: Span, done: asyncio.Future[Reply[T]]) -> None:
    if done.cancelled():
        span.add_event("cancelled")
    elif (error := done.exception()) is not None:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    else:
        span.set_attribute("zkside.zxid", f"{done.result().zxid:#x}")
    span.end()

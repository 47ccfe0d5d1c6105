"""Traces: a call with a traceparent goes on as a span, at a real collector's end of OTLP over gRPC."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.ops.process import DaemonProcess
from zkside.config_source import read
from zkside.errors import BadConfiguration
from zkside.pb import hold_pb2, lock_pb2, node_pb2
from zkside.pb.lock_pb2_grpc import LockServiceStub
from zkside.pb.node_pb2_grpc import NodeServiceStub

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{CALLER}-01"),)
READY = (("zkside-wait-for-ready", "true"),)
SECRET = b"S3CRET-data"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes OTLP as a collector does."""

    def __init__(self) -> None:
        self._spans: queue.Queue[Span] = queue.Queue()
        self.raw = b""
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:
        self.raw += request.SerializeToString()
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._spans.put(span)
        return trace_service_pb2.ExportTraceServiceResponse()

    def all(self) -> list[Span]:
        """Those that have come; complete once the daemon has ended."""
        return [self._spans.get_nowait() for _ in range(self._spans.qsize())]

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def spans_of(collector: Collector, daemon: DaemonProcess) -> list[Span]:
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_ended() == 0
    assert "Traceback" not in daemon.log
    return collector.all()


@pytest.fixture
def daemon(tmp_path: Path, collector: Collector) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, backend="memory", TRACING_ENDPOINT=collector.endpoint) as made:
        yield made


def test_a_call_with_a_traceparent_is_a_span_with_its_requests_to_zookeeper_below(
    daemon: DaemonProcess, collector: Collector
) -> None:
    with grpc.insecure_channel(daemon.address) as channel:
        nodes = NodeServiceStub(channel)
        created = nodes.Create(node_pb2.CreateRequest(path="/app", data=SECRET), metadata=SAMPLED + READY)
        nodes.Get(node_pb2.GetRequest(path="/app"), metadata=SAMPLED + READY)
        with pytest.raises(grpc.RpcError):
            nodes.Set(node_pb2.SetRequest(path="/absent", data=SECRET), metadata=SAMPLED + READY)
        # Neither of these is wanted.
        nodes.Get(node_pb2.GetRequest(path="/app"))
        nodes.Get(node_pb2.GetRequest(path="/app"), metadata=(("traceparent", f"00-{TRACE}-{CALLER}-00"),))
        nodes.Get(node_pb2.GetRequest(path="/app"), metadata=(("traceparent", "nonsense"),))
    spans = spans_of(collector, daemon)
    served = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    asked = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT]
    assert [span.name for span in served] == [f"zkside.v1.NodeService/{name}" for name in ("Create", "Get", "Set")]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.parent_span_id.hex() for span in served} == {CALLER}
    assert [(span.name, span.parent_span_id) for span in asked] == [
        ("zookeeper Create", served[0].span_id),
        ("zookeeper GetData", served[1].span_id),
        ("zookeeper SetData", served[2].span_id),
    ]
    assert attributes(asked[0])["zkside.zxid"] == f"{created.header.zxid:#x}"
    assert attributes(asked[0])["zkside.path"] == "/app"
    assert asked[2].status.message == "NoNode"
    assert (served[2].status.message, attributes(served[2])["rpc.grpc.status_code"]) == ("NOT_FOUND", 5)
    assert b"/app" in collector.raw
    assert SECRET not in collector.raw


def test_the_wait_for_a_lock_is_a_span_and_its_states_are_events(daemon: DaemonProcess, collector: Collector) -> None:
    with grpc.insecure_channel(daemon.address) as channel:
        locks = LockServiceStub(channel)

        def until(stream: Any, state: int) -> None:
            while next(stream).state != state:
                pass

        first = locks.Acquire(lock_pb2.AcquireRequest(path="/lock", owner="first"), metadata=READY)
        until(first, hold_pb2.HOLD_STATE_HELD)
        second = locks.Acquire(lock_pb2.AcquireRequest(path="/lock", owner="second"), metadata=SAMPLED + READY)
        until(second, hold_pb2.HOLD_STATE_WAITING)
        first.cancel()
        until(second, hold_pb2.HOLD_STATE_HELD)
    spans = {span.name: span for span in spans_of(collector, daemon)}
    served, waited = spans["zkside.v1.LockService/Acquire"], spans["zkside hold waits"]
    assert waited.parent_span_id == served.span_id
    assert served.start_time_unix_nano <= waited.start_time_unix_nano < waited.end_time_unix_nano
    events = [event.name for event in served.events]
    assert events[:2] == ["hold WAITING", "hold HELD"]
    assert spans["zookeeper Create"].parent_span_id == served.span_id, "the flow of the hold is of that call"


def test_a_collector_that_is_not_there_costs_no_call_and_no_stop(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, backend="memory", TRACING_ENDPOINT="http://127.0.0.1:1") as daemon:
        with grpc.insecure_channel(daemon.address) as channel:
            NodeServiceStub(channel).Create(node_pb2.CreateRequest(path="/a"), metadata=SAMPLED + READY, timeout=5)
            daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended(within_s=20) == 0


def test_a_daemon_without_it_loads_nothing_and_wraps_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from zkside.config_source import read; from zkside.daemon import Backend, Daemon\n"
        "daemon = Daemon(read(environment={}).config, backend=Backend.MEMORY)\n"
        "assert daemon.rpc.interceptors.tracing is None\n"
        "assert type(daemon.session).__name__ == 'Session'\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("endpoint", ["collector:4317", "ftp://x:1", "http://user:pass@x:1", "http://x"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(BadConfiguration, match="must be like http://127"):
        read(environment={}, flags={"tracing.endpoint": endpoint})

"""Huge GetMany: one cached node of 1 MB named 2,000 times; then 40 at once from the server, each of 60 x 1 MB."""

from __future__ import annotations

import grpc

from tests.soak.abuse.task import BIG_NODES, Task, big
from zkside.pb import node_pb2
from zkside.pb.node_pb2_grpc import NodeServiceStub

NAMED, AT_ONCE = 2_000, 40
TIMEOUT_S, PAUSE_S = 20.0, 5.0


def run(task: Task) -> None:
    # With gRPC's own limit of 4 MB for an answer: what is larger is thrown away here, and costs the daemon the same.
    with grpc.insecure_channel(task.address) as channel:
        stub = NodeServiceStub(channel)
        while not task.is_over:
            _ask(task, stub, [big(0)] * NAMED, node_pb2.CONSISTENCY_CACHED, 1)
            task.pause(PAUSE_S)
            if not task.is_over:
                _ask(task, stub, [big(one) for one in range(BIG_NODES)], node_pb2.CONSISTENCY_SERVER, AT_ONCE)
                task.pause(PAUSE_S)


def _ask(
    task: Task, stub: NodeServiceStub, paths: list[str], consistency: node_pb2.Consistency.ValueType, count: int
) -> None:
    request = node_pb2.GetManyRequest(paths=paths, options=node_pb2.ReadOptions(consistency=consistency))
    calls = [stub.GetMany.future(request, timeout=TIMEOUT_S) for _ in range(count)]
    for call in calls:
        try:
            call.result()
            task.done["answered"] += 1
        except grpc.RpcError:
            task.done[call.code().name] += 1

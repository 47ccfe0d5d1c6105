"""20 streams on a tree of large nodes that change, and nobody reads a message of them."""

from __future__ import annotations

from typing import Any

import grpc

from tests.soak.abuse.task import ROOT, TREE_NODE_BYTES, TREE_NODES, Task, leaf
from zkside.pb import node_pb2, watch_pb2
from zkside.pb.node_pb2_grpc import NodeServiceStub
from zkside.pb.watch_pb2_grpc import WatchServiceStub

READERS, CHANGES_A_SECOND = 20, 5


def run(task: Task) -> None:
    target = watch_pb2.WatchTarget(path=f"{ROOT}/tree", scope=watch_pb2.SCOPE_SUBTREE, with_data=True)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(task.address, options) for _ in range(READERS)]
    streams = [_open(channel, target) for channel in channels]
    with grpc.insecure_channel(task.address, options) as channel:
        stub = NodeServiceStub(channel)
        while not task.is_over:
            for number, stream in enumerate(streams):
                if stream.done():
                    # It was given up: the next one takes its place.
                    task.done[f"ended: {stream.code().name}"] += 1
                    streams[number] = _open(channels[number], target)
            data = task.random.randbytes(16) * (TREE_NODE_BYTES // 16)
            path = leaf(task.random.randrange(TREE_NODES))
            try:
                stub.Set(node_pb2.SetRequest(path=path, data=data), timeout=5)
                task.done["changes"] += 1
            except grpc.RpcError as error:
                task.done[error.code().name] += 1
            task.pause(1 / CHANGES_A_SECOND)
    for stream in streams:
        stream.cancel()
    for channel in channels:
        channel.close()


def _open(channel: grpc.Channel, target: watch_pb2.WatchTarget) -> Any:
    return WatchServiceStub(channel).Watch(watch_pb2.WatchRequest(targets=[target]))

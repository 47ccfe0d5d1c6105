"""ZooKeeper stands still for 1 s each minute while 1 MB Sets are asked for. Prints when that began and was over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import grpc

from tests.soak.abuse.task import BIG_BYTES, ROOT, Task
from zkside.pb import node_pb2
from zkside.pb.node_pb2_grpc import NodeServiceStub

SETS, PAUSED_S, EVERY_S, TIMEOUT_S = 300, 1.0, 60.0, 10.0


def run(task: Task) -> None:
    data = task.random.randbytes(BIG_BYTES)
    with grpc.insecure_channel(task.address) as channel:
        stub = NodeServiceStub(channel)
        task.pause(EVERY_S / 4)
        while not task.is_over:
            began_s = time.monotonic()
            calls = []
            os.kill(task.zookeeper_pid, signal.SIGSTOP)
            try:
                for number in range(SETS):
                    request = node_pb2.SetRequest(path=f"{ROOT}/set/{number % 20}", data=data)
                    calls.append(stub.Set.future(request, timeout=TIMEOUT_S))
                time.sleep(max(0.0, began_s + PAUSED_S - time.monotonic()))
            finally:
                os.kill(task.zookeeper_pid, signal.SIGCONT)
            # What the Sets cost from here on is the daemon's to bound.
            print(f"pause {began_s} {time.monotonic()}", flush=True)
            for call in calls:
                task.done[_end(call.result, call.code)] += 1
            task.done["pauses"] += 1
            task.pause(EVERY_S)


def _end(result: Callable[[], object], code: Callable[[], grpc.StatusCode]) -> str:
    try:
        result()
    except grpc.RpcError:
        return code().name
    return "set"

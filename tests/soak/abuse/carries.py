"""Mass Carry: 60,000 acquires of one path in one message, then 100,000 steps that ask for nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from tests.soak.abuse.task import ROOT, Task
from zkside.pb import carry_pb2, lock_pb2
from zkside.pb.carry_pb2_grpc import CarryServiceStub

ACQUIRES, EMPTY, KEPT_S, QUIET_S = 60_000, 100_000, 5.0, 10.0


def run(task: Task) -> None:
    acquire = lock_pb2.AcquireRequest(path=f"{ROOT}/mass")
    many = carry_pb2.CarryRequest(steps=[carry_pb2.CarryStep(tag=tag + 1, acquire=acquire) for tag in range(ACQUIRES)])
    empty = carry_pb2.CarryRequest(steps=[carry_pb2.CarryStep(tag=tag + 1) for tag in range(EMPTY)])
    with grpc.insecure_channel(task.address) as channel:
        stub = CarryServiceStub(channel)
        # At least once: to make the messages takes a while.
        while not (task.is_over and task.done):
            for request in (many, empty):
                _carry(task, stub, request)
                task.pause(QUIET_S)


def _carry(task: Task, stub: CarryServiceStub, request: carry_pb2.CarryRequest) -> None:
    over = threading.Event()

    def requests() -> Iterator[carry_pb2.CarryRequest]:
        yield request
        over.wait(KEPT_S)

    call = stub.Carry(requests(), timeout=KEPT_S)
    task.done["messages"] += 1
    try:
        for answer in call:
            task.done["updates"] += len(answer.updates)
        task.done["ended"] += 1
    except grpc.RpcError as error:
        task.done[error.code().name] += 1
    finally:
        over.set()

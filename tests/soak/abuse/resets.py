"""Rapid reset: one connection opens and cancels 36,000 streams a second for 15 s, is quiet for 15 s, and again."""

from __future__ import annotations

import time

from tests.parts import http2
from tests.soak.abuse.task import Task

CALL = http2.header_block("/zkside.v1.NodeService/Get")
STREAMS_A_SECOND = 36_000
BATCH = 360
BURST_S, QUIET_S, AGAIN_S = 15.0, 15.0, 0.2


def run(task: Task) -> None:
    while not task.is_over:
        burst_until_s = min(time.monotonic() + BURST_S, task.until_s)
        while time.monotonic() < burst_until_s:
            try:
                _burst(task, burst_until_s)
            except OSError as error:
                task.done[f"closed: {type(error).__name__}"] += 1
                task.pause(AGAIN_S)
        task.pause(QUIET_S)


def _burst(task: Task, until_s: float) -> None:
    with task.connect() as connection:
        connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0))
        task.done["connections"] += 1
        answers = http2.Answers()
        stream, next_s = 1, time.monotonic()
        while time.monotonic() < until_s and stream < http2.MAX_STREAM - 2 * BATCH:
            batch = b"".join(http2.opened(one, CALL) + http2.reset(one) for one in range(stream, stream + 2 * BATCH, 2))
            connection.sendall(batch)
            task.done["streams opened and reset"] += BATCH
            stream += 2 * BATCH
            connection.settimeout(0.0)
            try:
                while data := connection.recv(1 << 16):
                    answer = answers.to(data)
                    if answer:
                        connection.settimeout(5.0)
                        connection.sendall(answer)
                        connection.settimeout(0.0)
                raise ConnectionResetError
            except BlockingIOError:
                pass
            finally:
                connection.settimeout(5.0)
            if answers.received[http2.GOAWAY]:
                raise ConnectionAbortedError
            next_s += BATCH / STREAMS_A_SECOND
            time.sleep(max(0.0, next_s - time.monotonic()))

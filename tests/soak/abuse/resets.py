"""Rapid reset: one connection opens and cancels 36,000 streams a second for 15 s, is quiet for 15 s, and again."""

from __future__ import annotations

import time

from tests.soak.abuse import frames
from tests.soak.abuse.task import Task

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
        connection.sendall(frames.PREFACE + frames.settings())
        task.done["connections"] += 1
        answers = frames.Answers()
        stream, next_s = 1, time.monotonic()
        while time.monotonic() < until_s and stream < frames.MAX_STREAM - 2 * BATCH:
            batch = b"".join(frames.opened(one) + frames.reset(one) for one in range(stream, stream + 2 * BATCH, 2))
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
            if answers.is_going:
                raise ConnectionAbortedError
            next_s += BATCH / STREAMS_A_SECOND
            time.sleep(max(0.0, next_s - time.monotonic()))

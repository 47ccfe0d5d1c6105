"""20,000 unary calls of headers alone on one connection, kept for 10 s; then the connection is closed, and again."""

from __future__ import annotations

import time

from tests.parts import http2
from tests.soak.abuse.task import Task

CALL = http2.header_block("/zkside.v1.NodeService/Get")
CALLS, BATCH, KEPT_S, QUIET_S = 20_000, 200, 10.0, 20.0


def run(task: Task) -> None:
    while not task.is_over:
        try:
            with task.connect() as connection:
                connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0))
                answers = http2.Answers()
                for first in range(0, CALLS, BATCH):
                    if task.is_over:
                        return
                    connection.sendall(b"".join(http2.opened(2 * one + 1, CALL) for one in range(first, first + BATCH)))
                    task.done["calls without a message"] += BATCH
                    time.sleep(0.005)
                kept_until_s = min(time.monotonic() + KEPT_S, task.until_s)
                connection.settimeout(1.0)
                while time.monotonic() < kept_until_s and not answers.received[http2.GOAWAY]:
                    try:
                        data = connection.recv(1 << 16)
                    except TimeoutError:
                        continue
                    if not data:
                        raise ConnectionResetError
                    connection.sendall(answers.to(data))
        except OSError as error:
            task.done[f"closed: {type(error).__name__}"] += 1
        task.pause(QUIET_S)

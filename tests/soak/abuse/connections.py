"""2,000 connections that do nothing but answer pings; one that is closed is opened again."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time

from tests.parts import http2
from tests.soak.abuse.task import Task

CONNECTIONS, OPENED_A_SECOND = 2_000, 200


def run(task: Task) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    poll = select.epoll()
    known: dict[int, tuple[socket.socket, http2.Answers]] = {}
    next_s = time.monotonic()
    while not task.is_over:
        if len(known) < CONNECTIONS and time.monotonic() >= next_s:
            next_s = time.monotonic() + 1 / OPENED_A_SECOND
            try:
                connection = task.connect()
                connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0))
            except OSError as error:
                task.done[f"refused: {type(error).__name__}"] += 1
                next_s += 0.1
            else:
                known[connection.fileno()] = connection, http2.Answers()
                poll.register(connection, select.EPOLLIN)
                task.done["opened"] += 1
                task.done["most at once"] = max(task.done["most at once"], len(known))
        wait_s = min(0.5, task.until_s - time.monotonic())
        if len(known) < CONNECTIONS:
            wait_s = min(wait_s, next_s - time.monotonic())
        for number, _ in poll.poll(max(0.0, wait_s)):
            connection, answers = known[number]
            data = b""
            with contextlib.suppress(OSError):
                data = connection.recv(1 << 16)
                if answer := answers.to(data):
                    connection.sendall(answer)
            if not data:
                task.done["closed"] += 1
                poll.unregister(number)
                known.pop(number)[0].close()
    for connection, _ in known.values():
        connection.close()

"""A process that watches a path, and reads when it is told to.

python -m tests.prometheus.reader ADDRESS PATH: prints "watching" once it has the snapshot, then reads nothing more
until a line comes on its standard input, and everything after that. Ends with its standard input.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import grpc

from zkside.pb import watch_pb2, watch_pb2_grpc


def main(address: str, path: str) -> None:
    with grpc.insecure_channel(address) as channel:
        target = watch_pb2.WatchTarget(path=path, scope=watch_pb2.SCOPE_NODE, with_data=True)
        stream = watch_pb2_grpc.WatchServiceStub(channel).Watch(watch_pb2.WatchRequest(targets=[target]))
        next(stream)
        print("watching", flush=True)
        if sys.stdin.readline():
            threading.Thread(target=_read, args=(stream,), daemon=True).start()
            sys.stdin.readline()
        stream.cancel()


def _read(stream: Iterator[watch_pb2.WatchResponse]) -> None:
    with suppress(grpc.RpcError):  # when it is cancelled
        for _ in stream:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A client that writes HTTP/2 frames by hand, to send what no client of gRPC would."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
ACK, END_HEADERS = 1, 4
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header_block(method: str) -> bytes:
    """The headers of a call, in HPACK's plainest encoding; `method` as "/package.Service/Method"."""

    def literal(name: bytes, value: bytes) -> bytes:
        return name + bytes([len(value)]) + value

    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            literal(b"\x04", method.encode()),
            literal(b"\x01", b"localhost"),
            literal(b"\x0f\x10", b"application/grpc"),
            b"\x00\x02te\x08trailers",
        )
    )


class Http2:
    """One connection. It answers SETTINGS and PING from a thread of its own, as a client has to."""

    def __init__(self, address: str, method: str = "/zkside.v1.SessionService/GetSession") -> None:
        """`address` as gRPC has it: "unix:/path" or "host:port"."""
        self.received: Counter[int] = Counter()
        """Frames, by kind."""
        self._opening = header_block(method)
        self._next = 1
        self._sending = threading.Lock()
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)))
        self.send(PREFACE + frame(SETTINGS, 0, 0, b""))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, data: bytes) -> None:
        with self._sending:
            self._socket.sendall(data)

    def open(self, number: int) -> None:
        """Begin calls, and send no message."""
        self.send(b"".join(frame(HEADERS, END_HEADERS, stream, self._opening) for stream in self._streams(number)))

    def open_and_reset(self, number: int) -> None:
        """Begin calls, and take each back at once."""
        reset = CANCEL.to_bytes(4, "big")
        self.send(
            b"".join(
                frame(HEADERS, END_HEADERS, stream, self._opening) + frame(RST_STREAM, 0, stream, reset)
                for stream in self._streams(number)
            )
        )

    def go_away(self, words: bytes, *, code: int = 2) -> None:
        self.send(frame(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big") + words))

    def _streams(self, number: int) -> range:
        begin, self._next = self._next, self._next + 2 * number
        return range(begin, self._next, 2)

    def _read(self) -> None:
        waiting = b""
        try:
            while data := self._socket.recv(1 << 16):
                waiting += data
                while len(waiting) >= 9 and len(waiting) >= (end := 9 + int.from_bytes(waiting[:3], "big")):
                    self._answer(waiting[3], waiting[4], waiting[9:end])
                    waiting = waiting[end:]
        except OSError:
            pass  # the daemon has ended the connection

    def _answer(self, kind: int, flags: int, payload: bytes) -> None:
        self.received[kind] += 1
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._sending:
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

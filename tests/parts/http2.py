"""HTTP/2 frames written by hand (RFC 9113), to send what no client of gRPC would."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
CANCEL = 8
MAX_STREAM = 2**31 - 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
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


def opened(stream: int, headers: bytes) -> bytes:
    """A call that has begun, without its message."""
    return frame(HEADERS, END_HEADERS, stream, headers)


def reset(stream: int) -> bytes:
    """A call that is taken back."""
    return frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))


class Answers:
    """What the peer wants to hear back, so that it takes us for alive."""

    def __init__(self) -> None:
        self.received: Counter[int] = Counter()
        """Frames, by kind. One of GOAWAY: it has announced the end of the connection."""
        self._waiting = b""

    def to(self, data: bytes) -> bytes:
        """The answer to what came, which may end in the middle of a frame."""
        self._waiting += data
        answer = b""
        while len(self._waiting) >= 9 and len(self._waiting) >= (end := 9 + int.from_bytes(self._waiting[:3], "big")):
            kind, flags = self._waiting[3], self._waiting[4]
            payload, self._waiting = self._waiting[9:end], self._waiting[end:]
            self.received[kind] += 1
            if kind == SETTINGS and not flags & ACK:
                answer += frame(SETTINGS, ACK, 0)
            elif kind == PING and not flags & ACK:
                answer += frame(PING, ACK, 0, payload)
        return answer


class Http2:
    """One connection. It answers SETTINGS and PING from a thread of its own, as a client has to."""

    def __init__(self, address: str, method: str = "/zkside.v1.SessionService/GetSession") -> None:
        """`address` as gRPC has it: "unix:/path" or "host:port"."""
        self._answers = Answers()
        self.received = self._answers.received
        self._opening = header_block(method)
        self._next = 1
        self._sending = threading.Lock()
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)))
        self.send(PREFACE + frame(SETTINGS, 0, 0))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, data: bytes) -> None:
        with self._sending:
            self._socket.sendall(data)

    def open(self, number: int) -> None:
        """Begin calls, and send no message."""
        self.send(b"".join(opened(stream, self._opening) for stream in self._streams(number)))

    def open_and_reset(self, number: int) -> None:
        """Begin calls, and take each back at once."""
        self.send(b"".join(opened(stream, self._opening) + reset(stream) for stream in self._streams(number)))

    def go_away(self, words: bytes, *, code: int = 2) -> None:
        self.send(frame(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big") + words))

    def _streams(self, number: int) -> range:
        begin, self._next = self._next, self._next + 2 * number
        return range(begin, self._next, 2)

    def _read(self) -> None:
        try:
            while data := self._socket.recv(1 << 16):
                if answer := self._answers.to(data):
                    self.send(answer)
        except OSError:
            pass  # the daemon has ended the connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._sending:
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

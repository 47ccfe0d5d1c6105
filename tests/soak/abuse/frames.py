"""HTTP/2 by hand (RFC 9113): as much as it takes to misbehave, which no gRPC library would."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_HEADERS = 0x1, 0x4
_CANCEL = 8
MAX_STREAM = 2**31 - 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(prefix: bytes, *texts: str) -> bytes:
    """A header that is not indexed (RFC 7541, 6.2.2); every text is shorter than 127 bytes."""
    return prefix + b"".join(bytes([len(text)]) + text.encode() for text in texts)


CALL = b"".join(
    (
        b"\x83\x86",  # :method POST, :scheme http
        _literal(b"\x04", "/zkside.v1.NodeService/Get"),  # :path
        _literal(b"\x01", "localhost"),  # :authority
        _literal(b"\x0f\x10", "application/grpc"),  # content-type
        _literal(b"\x00", "te", "trailers"),
    )
)
"""The headers of a call of NodeService.Get."""


def settings() -> bytes:
    return frame(_SETTINGS, 0, 0)


def opened(stream: int) -> bytes:
    """A call that has begun, without its message."""
    return frame(_HEADERS, _END_HEADERS, stream, CALL)


def reset(stream: int) -> bytes:
    return frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))


class Answers:
    """What the peer wants to hear back, so that it takes us for alive."""

    def __init__(self) -> None:
        self._received = b""
        self.is_going = False
        """Whether it has announced the end of the connection."""

    def to(self, data: bytes) -> bytes:
        self._received += data
        answer = b""
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + size:
                break
            kind, flags = self._received[3], self._received[4]
            payload, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            if kind == _SETTINGS and not flags & _ACK:
                answer += frame(_SETTINGS, _ACK, 0)
            elif kind == _PING and not flags & _ACK:
                answer += frame(_PING, _ACK, 0, payload)
            elif kind == _GOAWAY:
                self.is_going = True
        return answer
